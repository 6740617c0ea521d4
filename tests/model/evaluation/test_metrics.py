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

from facegraft.surfaces.sampling import sample_surface
from facegraft.surfaces.surface import Surface


def sphere(radius: float, subdivisions: int = 5) -> Surface:
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return Surface(mesh.vertices, mesh.faces)


def test_cloud_distances_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(300, 3)), rng.normal(size=(200, 3))
    pairwise = np.linalg.norm(a[:, None] - b[None], axis=2)
    np.testing.assert_allclose(Cloud(b).distances(a), pairwise.min(axis=1), rtol=1e-12)
    np.testing.assert_allclose(Cloud(b, workers=2).distances(a), pairwise.min(axis=1), rtol=1e-12)
    scd = 0.5 * (pairwise.min(axis=1).mean() + pairwise.min(axis=0).mean())
    assert symmetric_chamfer(Cloud(b).distances(a), Cloud(a).distances(b)) == pytest.approx(scd, rel=1e-12)


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


@pytest.mark.parametrize("offset", [0.25, 1.5])
def test_concentric_spheres_score_their_offset(offset: float) -> None:
    inner, outer = sphere(100.0), sphere(100.0 + offset)
    rng = np.random.default_rng(7)
    a, b = (
        sample_surface(inner.vertices, inner.faces, 20_000, rng),
        sample_surface(outer.vertices, outer.faces, 20_000, rng),
    )
    to_outer, to_inner = outer.nearest(a.points), inner.nearest(b.points)
    forward = OneWay(
        Cloud(b.points).distances(a.points),
        to_outer.distance,
        normal_cosine(inner.normals[a.face_index], outer.normals[to_outer.face]),
    )
    backward = OneWay(
        Cloud(a.points).distances(b.points),
        to_inner.distance,
        normal_cosine(outer.normals[b.face_index], inner.normals[to_inner.face]),
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
    a, b = (sample_surface(surface.vertices, surface.faces, 30_000, rng).points for _ in range(2))
    floor = floor_scores(Cloud(b).distances(a), Cloud(a).distances(b), (1.0,))
    density = 30_000 / surface.areas.sum()
    assert floor["scd_mm"] == pytest.approx(0.5 / np.sqrt(density), rel=0.02)
    assert floor["f_1mm"] == pytest.approx(100.0 * (1.0 - np.exp(-np.pi * density)), rel=0.03)


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
