"""Distances and scores against brute force, closed forms and trimesh."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.bootstrap import bootstrap, paired_bootstrap
from facegraft_model.evaluation.metrics import (
    Cloud,
    OneWay,
    describe,
    f_score,
    floor_scores,
    normal_cosine,
    scores,
    symmetric_chamfer,
)
from scipy.spatial.transform import Rotation

from facegraft.surfaces.errors import SurfaceError
from facegraft.surfaces.icp import rigid_icp
from facegraft.surfaces.labels import face_labels, face_parts
from facegraft.surfaces.sampling import sample_surface
from facegraft.surfaces.surface import Surface


def sphere(radius: float, subdivisions: int = 5) -> Surface:
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return Surface(mesh.vertices, mesh.faces)


def bumpy(seed: int = 0) -> Surface:
    """A closed surface without symmetry."""
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=1.0)
    v = np.asarray(mesh.vertices)
    radius = 80.0 + 12.0 * np.sin(3.0 * v[:, 0] + seed) * np.cos(2.0 * v[:, 1]) + 9.0 * v[:, 2] * v[:, 0]
    return Surface(v * radius[:, None] * np.array([1.0, 1.3, 0.9]), mesh.faces)


def test_cloud_distances_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(300, 3)), rng.normal(size=(200, 3))
    pairwise = np.linalg.norm(a[:, None] - b[None], axis=2)
    np.testing.assert_allclose(Cloud(b).distances(a), pairwise.min(axis=1), rtol=1e-12)
    np.testing.assert_allclose(Cloud(b, workers=2).distances(a), pairwise.min(axis=1), rtol=1e-12)
    scd = 0.5 * (pairwise.min(axis=1).mean() + pairwise.min(axis=0).mean())
    assert symmetric_chamfer(Cloud(b).distances(a), Cloud(a).distances(b)) == pytest.approx(scd, rel=1e-12)


def test_nearest_points_are_those_of_trimesh() -> None:
    surface = bumpy()
    points = np.random.default_rng(2).normal(size=(200, 3)) * 60.0
    nearest = surface.nearest(points)
    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    closest, distance, _ = trimesh.proximity.closest_point_naive(mesh, points)
    np.testing.assert_allclose(nearest.distance, distance, atol=1e-9)
    np.testing.assert_allclose(nearest.point, closest, atol=1e-6)
    corners = surface.vertices[surface.faces[nearest.face]]
    height = np.einsum("ni,ni->n", nearest.point - corners[:, 0], surface.normals[nearest.face])
    np.testing.assert_allclose(height, 0.0, atol=1e-9)


def test_f_score_is_the_harmonic_mean_and_0_where_nothing_is_near() -> None:
    forward, backward = np.array([0.1, 0.4, 0.9, 3.0]), np.array([0.2, 5.0])
    assert f_score(forward, backward, 1.0) == pytest.approx(100 * 2 * 0.75 * 0.5 / 1.25)
    assert f_score(forward, backward, 0.01) == 0.0
    assert f_score(forward, backward, 0.1) == 0.0  # precision is 0
    assert f_score(forward, backward, 10.0) == 100.0


def test_statistics_of_distances() -> None:
    values = np.arange(101.0)
    assert describe(values) == pytest.approx(
        {"mean": 50.0, "median": 50.0, "p95": 95.0, "rms": np.sqrt(np.mean(values**2))}
    )


def test_samples_are_uniform_by_area_and_on_the_surface() -> None:
    surface = bumpy()
    drawn = sample_surface(surface, 40_000, np.random.default_rng(3))
    assert surface.nearest(drawn.points).distance.max() < 1e-9
    octant = (surface.vertices[surface.faces].mean(axis=1) > 0.0) @ np.array([1, 2, 4])
    share = np.bincount(octant, weights=surface.areas) / surface.areas.sum()
    assert np.abs(np.bincount(octant[drawn.face]) / len(drawn) - share).max() < 4 * np.sqrt(0.25 / len(drawn))
    some = octant == 3
    assert some[sample_surface(surface, 500, np.random.default_rng(4), some).face].all()
    # Within a triangle: the mean of uniform points is its centroid.
    triangle = Surface([[0, 0, 0], [3, 0, 0], [0, 6, 0]], [[0, 1, 2]])
    mean = sample_surface(triangle, 40_000, np.random.default_rng(5)).points.mean(axis=0)
    np.testing.assert_allclose(mean, [1.0, 2.0, 0.0], atol=0.03)


def test_face_parts_follow_the_rule_that_labelled_the_samples() -> None:
    rng = np.random.default_rng(6)
    labels, faces = rng.integers(0, 4, 60).astype(np.uint8), rng.integers(0, 60, (500, 3))
    np.testing.assert_array_equal(face_parts(labels, faces), face_labels(labels, faces))


@pytest.mark.parametrize("offset", [0.25, 1.5])
def test_concentric_spheres_score_their_offset(offset: float) -> None:
    inner, outer = sphere(100.0), sphere(100.0 + offset)
    rng = np.random.default_rng(7)
    a, b = sample_surface(inner, 20_000, rng), sample_surface(outer, 20_000, rng)
    to_outer, to_inner = outer.nearest(a.points), inner.nearest(b.points)
    forward = OneWay(
        Cloud(b.points).distances(a.points),
        to_outer.distance,
        normal_cosine(inner.normals[a.face], outer.normals[to_outer.face]),
    )
    backward = OneWay(
        Cloud(a.points).distances(b.points),
        to_inner.distance,
        normal_cosine(outer.normals[b.face], inner.normals[to_inner.face]),
    )
    result = scores(forward, backward, (0.5, 1.0, 2.0))
    assert result["p2s_mm"] == pytest.approx(offset, rel=2e-3)
    for way in ("accuracy", "completeness"):
        for statistic in ("mean", "median", "rms", "p95"):
            assert result[f"{way}_{statistic}_mm"] == pytest.approx(offset, rel=2e-3)
    assert result["f_surface_0.5mm"] == (100.0 if offset < 0.5 else 0.0)
    assert result["f_surface_2mm"] == 100.0
    assert result["normal_consistency"] > 0.999
    # Poisson points of density d at height h: E[distance] = ∫ exp(-π d (r² - h²)) dr from h, plus h.
    r = np.linspace(offset, offset + 20.0, 200_000)
    density = 20_000 / inner.areas.sum()
    expected = offset + np.trapezoid(np.exp(-np.pi * density * (r**2 - offset**2)), r)
    assert result["scd_mm"] == pytest.approx(expected, rel=0.02)


def test_the_floor_of_two_samplings_is_half_over_the_root_of_the_density() -> None:
    surface = sphere(100.0)
    rng = np.random.default_rng(8)
    a, b = (sample_surface(surface, 30_000, rng).points for _ in range(2))
    floor = floor_scores(Cloud(b).distances(a), Cloud(a).distances(b), (1.0,))
    density = 30_000 / surface.areas.sum()
    assert floor["scd_mm"] == pytest.approx(0.5 / np.sqrt(density), rel=0.02)
    assert floor["f_1mm"] == pytest.approx(100.0 * (1.0 - np.exp(-np.pi * density)), rel=0.03)


def test_degenerate_faces_are_never_the_nearest() -> None:
    surface = Surface([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.5, 0, 0]], [[0, 3, 1], [0, 1, 2]])
    nearest = surface.nearest(np.array([[0.4, -1.0, 0.0]]))
    assert nearest.face.tolist() == [1]
    assert nearest.distance[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("vertices", "faces", "message"),
    [
        (np.zeros((0, 3)), np.zeros((0, 3), int), "no faces"),
        (np.full((3, 3), np.nan), [[0, 1, 2]], "not finite"),
        (np.eye(3), [[0, 1, 3]], "outside 0..2"),
        (np.zeros((3, 3)), [[0, 1, 2]], "no area"),
        (np.zeros((3, 2)), [[0, 1, 2]], r"\[V, 3\]"),
    ],
)
def test_a_mesh_that_cannot_be_scored_is_refused(vertices: np.ndarray, faces: list[list[int]], message: str) -> None:
    with pytest.raises(SurfaceError, match=message):
        Surface(vertices, faces)


def test_bootstrap_resamples_subjects_with_all_their_heads() -> None:
    rng = np.random.default_rng(9)
    subjects = np.repeat(["a", "b", "c", "d", "e"], [1, 4, 2, 3, 5])
    values = rng.normal(size=15) + np.repeat(rng.normal(size=5) * 3, [1, 4, 2, 3, 5])
    got = bootstrap({"x": values, "y": -values}, subjects.tolist(), np.random.default_rng(10), rounds=4000)
    assert got["x"].mean == pytest.approx(values.mean())
    direct = []
    names = np.unique(subjects)
    for _ in range(4000):
        chosen = rng.choice(names, size=5)
        direct.append(np.concatenate([values[subjects == name] for name in chosen]).mean())
    low, high = np.quantile(direct, [0.025, 0.975])
    assert got["x"].low == pytest.approx(low, abs=0.15)
    assert got["x"].high == pytest.approx(high, abs=0.15)
    assert got["y"].low == pytest.approx(-(got["x"].high or 0.0))  # the same draws for every metric
    assert got["x"].std == pytest.approx(np.std([values[subjects == name].mean() for name in names], ddof=1))
    # Repeating every head of every subject adds no information and must not narrow the interval.
    twice = bootstrap({"x": np.tile(values, 2)}, np.tile(subjects, 2).tolist(), np.random.default_rng(10), rounds=4000)
    assert twice["x"].low == pytest.approx(got["x"].low)


def test_one_subject_has_no_interval_and_no_heads_no_mean() -> None:
    only = bootstrap({"x": np.array([1.0, 2.0])}, ["a", "a"], np.random.default_rng(0))["x"]
    assert (only.mean, only.low, only.high, only.std) == (1.5, None, None, None)
    with pytest.raises(ModelError, match="no heads"):
        bootstrap({"x": np.array([])}, [], np.random.default_rng(0))


def test_pairing_removes_the_spread_of_the_heads() -> None:
    rng = np.random.default_rng(11)
    easy_or_hard = rng.uniform(0.2, 5.0, 20)
    gain = rng.normal(-0.05, 0.01, 20)
    subjects = [f"s{i // 2}" for i in range(20)]
    difference = paired_bootstrap({"x": easy_or_hard, "only": gain}, {"x": easy_or_hard + gain}, subjects, rng)
    assert set(difference) == {"x"}
    assert difference["x"].mean == pytest.approx(gain.mean())
    assert difference["x"].high is not None and difference["x"].high < 0.0
    assert bootstrap({"x": easy_or_hard}, subjects, rng)["x"].low < easy_or_hard.mean() - 0.3  # type: ignore[operator]


def test_icp_finds_a_known_motion() -> None:
    truth = bumpy()
    rotation, shift = Rotation.from_rotvec([0.05, -0.08, 0.04]), np.array([3.0, -2.0, 4.0])
    moved = Surface(rotation.apply(truth.vertices) + shift, truth.faces)
    points = sample_surface(moved, 4000, np.random.default_rng(12)).points

    def correspond(p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        nearest = truth.nearest(p)
        return nearest.point, truth.normals[nearest.face], np.ones(len(p), dtype=bool)

    motion = rigid_icp(points, correspond)
    assert motion.iterations <= 20
    assert motion.rms_before > 1.0 and motion.rms_after < 1e-3
    np.testing.assert_allclose(motion.apply(moved.vertices), truth.vertices, atol=0.01)
    assert motion.degrees == pytest.approx(np.degrees(rotation.magnitude()), abs=0.01)
    np.testing.assert_allclose(motion.matrix[:3, :3] @ motion.matrix[:3, :3].T, np.eye(3), atol=1e-12)


def test_icp_leaves_what_is_not_determined_alone() -> None:
    truth = sphere(100.0, 4)
    points = sample_surface(truth, 2000, np.random.default_rng(13)).points
    points /= np.linalg.norm(points, axis=1, keepdims=True) / 101.0

    def correspond(p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        direction = p / np.linalg.norm(p, axis=1, keepdims=True)
        return 100.0 * direction, direction, np.ones(len(p), dtype=bool)

    motion = rigid_icp(points, correspond)
    assert motion.degrees < 1e-3
    assert motion.rms_after <= motion.rms_before
    with pytest.raises(SurfaceError, match="fewer than 6"):
        rigid_icp(points, lambda p: (p, p, np.zeros(len(p), dtype=bool)))
