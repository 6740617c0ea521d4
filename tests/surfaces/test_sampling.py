"""Sampling: on the surface, uniform, balanced, in random order, repeatable."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from facegraft.geometry.clipping import icosphere
from facegraft.surfaces.errors import SamplingError
from facegraft.surfaces.labels import face_labels
from facegraft.surfaces.nearest import nearest_on_surface
from facegraft.surfaces.normals import face_areas, face_normals
from facegraft.surfaces.sampling import free_points, near_points, sample_around, sample_surface, window_uniformity


@pytest.fixture(scope="module")
def surface(closed_globe):
    """Unit-coordinate globe: vertices, faces, face labels (parts 0, 2, 3)."""
    return (
        closed_globe.vertices / 120.0,
        closed_globe.faces,
        face_labels(closed_globe.vertex_labels, closed_globe.faces),
    )


def test_points_lie_on_their_faces(surface) -> None:
    vertices, faces, labels = surface
    found = sample_surface(vertices, faces, 20_000, np.random.default_rng(0), labels=labels, balanced=0.5)
    single = found.points.astype(np.float32).astype(np.float64)
    distance, _, _ = nearest_on_surface(vertices, faces, single)
    assert distance.max() <= 1e-6
    corner = vertices[faces[found.face_index, 0]]
    assert np.abs(((found.points - corner) * found.normals).sum(axis=1)).max() < 1e-15
    np.testing.assert_allclose(np.linalg.norm(found.normals, axis=1), 1.0)
    np.testing.assert_array_equal(found.normals, face_normals(vertices, faces)[found.face_index])
    np.testing.assert_array_equal(found.parts, labels[found.face_index])
    assert (
        found.points.dtype == found.normals.dtype == np.float64
        and found.parts.dtype == np.uint8
        and len(found) == 20_000
    )


def test_normals_point_outward() -> None:
    vertices, faces = icosphere(3)
    found = sample_surface(vertices, faces, 2000, np.random.default_rng(0))
    assert (found.points * found.normals).sum(axis=1).min() > 0.9


def test_uniform_by_area(surface) -> None:
    vertices, faces, _ = surface
    n = 400_000
    found = sample_surface(vertices, faces, n, np.random.default_rng(1))
    areas = face_areas(vertices, faces)
    blocks = np.arange(len(faces)) * 200 // len(faces)
    expected = np.bincount(blocks, weights=areas) / areas.sum() * n
    assert stats.chisquare(np.bincount(blocks[found.face_index]), expected).pvalue > 1e-3


def test_uniform_within_a_triangle() -> None:
    triangle = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    p = sample_surface(triangle, np.array([[0, 1, 2]]), 50_000, np.random.default_rng(2)).points
    assert (p >= 0).all() and (p[:, :2].sum(axis=1) <= 1 + 1e-12).all()
    assert stats.kstest(p[:, 0], lambda x: 1 - (1 - x) ** 2).pvalue > 1e-3
    assert stats.kstest(p[:, 1] / (1 - p[:, 0]), "uniform").pvalue > 1e-3


def test_balanced_share_is_dealt_out_equally(surface) -> None:
    vertices, faces, labels = surface
    areas = face_areas(vertices, faces)
    n = 60_000
    all_balanced = sample_surface(vertices, faces, n, np.random.default_rng(3), labels=labels, balanced=1.0)
    np.testing.assert_array_equal(np.bincount(all_balanced.parts, minlength=4), [n // 3, 0, n // 3, n // 3])
    half = sample_surface(vertices, faces, n, np.random.default_rng(3), labels=labels, balanced=0.5)
    share = np.bincount(labels, weights=areas, minlength=4) / areas.sum()
    expected = (n / 2) * share + (n / 6) * np.array([1, 0, 1, 1])
    assert np.abs(np.bincount(half.parts, minlength=4) - expected).max() < 5 * np.sqrt(n)
    mouth = labels == 3
    seen = np.bincount(all_balanced.face_index, minlength=len(faces))[mouth]
    assert stats.chisquare(seen, areas[mouth] / areas[mouth].sum() * seen.sum()).pvalue > 1e-4


def test_mask_leaves_faces_out(surface) -> None:
    vertices, faces, labels = surface
    mask = labels != 2
    found = sample_surface(vertices, faces, 5000, np.random.default_rng(4), labels=labels, balanced=0.5, face_mask=mask)
    assert mask[found.face_index].all() and set(found.parts.tolist()) == {0, 3}


def test_same_generator_same_points(surface) -> None:
    vertices, faces, labels = surface
    one, two, other = (
        sample_surface(vertices, faces, 1000, np.random.default_rng(seed), labels=labels, balanced=0.5)
        for seed in (5, 5, 6)
    )
    assert one.points.tobytes() == two.points.tobytes() != other.points.tobytes()


def test_windows_are_uniform(surface) -> None:
    """Part labels and octants in random windows: p-values as uniform ones would be."""
    vertices, faces, labels = surface
    rng = np.random.default_rng(7)
    p_values = []
    for _ in range(20):
        found = sample_surface(vertices, faces, 8000, rng, labels=labels, balanced=0.5)
        octant = (found.points > 0) @ [1, 2, 4]
        band = near_points(found.points, [0.01, 0.05], rng)[1]
        for values in (found.parts, octant, band, found.face_index > len(faces) // 2):
            start = int(rng.integers(0, 7000))
            p_values.append(window_uniformity(values, start, start + 1000))
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3


def test_a_sorted_set_fails_the_window_test(surface) -> None:
    vertices, faces, labels = surface
    found = sample_surface(vertices, faces, 8000, np.random.default_rng(8), labels=labels, balanced=0.5)
    assert window_uniformity(np.sort(found.parts), 0, 1000) < 1e-12
    assert window_uniformity(found.points[np.argsort(found.points[:, 1]), 1] > 0, 3000, 4000) < 1e-6
    with pytest.raises(SamplingError, match="cannot be tested"):
        window_uniformity(found.parts, 0, 8000)


def test_near_points_have_their_bands_spread() -> None:
    rng = np.random.default_rng(9)
    start = rng.standard_normal((30_001, 3))
    moved, band = near_points(start, [0.01, 0.2, 1.0], rng)
    np.testing.assert_array_equal(np.bincount(band), [10_001, 10_000, 10_000])
    for i, sigma in enumerate((0.01, 0.2, 1.0)):
        offsets = (moved - start)[band == i]
        assert stats.kstest(offsets.ravel() / sigma, "norm").pvalue > 1e-3
    for bad in ([], [0.1, -1.0], [np.nan]):
        with pytest.raises(SamplingError, match="positive sigmas"):
            near_points(start, bad, rng)


def test_free_points_fill_the_ball_evenly() -> None:
    p = free_points(50_000, np.random.default_rng(10), radius=2.0)
    r = np.linalg.norm(p, axis=1)
    assert r.max() <= 2.0
    assert stats.kstest((r / 2.0) ** 3, "uniform").pvalue > 1e-3
    assert stats.chisquare(np.bincount((p > 0) @ [1, 2, 4])).pvalue > 1e-3
    assert free_points(0, np.random.default_rng(0)).shape == (0, 3)


@pytest.mark.parametrize("inside", [True, False])
def test_points_around_centres_are_uniform_there(surface, inside: bool) -> None:
    """Compared with all uniform points of the surface that lie there."""
    vertices, faces, labels = surface
    centres, radius = vertices[[10, 200]], 0.3
    found = sample_around(vertices, faces, 6000, np.random.default_rng(0), centres, radius, inside=inside, labels=labels)
    assert len(found) == 6000 and np.array_equal(found.parts, labels[found.face_index])
    distance = np.linalg.norm(found.points[:, None] - centres, axis=2).min(axis=1)
    assert ((distance <= radius) == inside).all()
    assert nearest_on_surface(vertices, faces, found.points).distance.max() < 1e-12
    every = sample_surface(vertices, faces, 60_000, np.random.default_rng(1)).points
    there = every[(np.linalg.norm(every[:, None] - centres, axis=2).min(axis=1) <= radius) == inside]
    for axis in range(3):
        assert stats.ks_2samp(found.points[:, axis], there[:, axis]).pvalue > 1e-3
    masked = sample_around(vertices, faces, 500, np.random.default_rng(0), centres, radius, inside=inside, face_mask=labels == 0)
    assert (labels[masked.face_index] == 0).all()


def test_nothing_around_a_centre_is_said(surface) -> None:
    vertices, faces, _ = surface
    rng = np.random.default_rng(0)
    with pytest.raises(SamplingError, match=r"within 0\.1 of the points of interest: it has nothing there"):
        sample_around(vertices, faces, 10, rng, [[9.0, 0.0, 0.0]], 0.1)
    with pytest.raises(SamplingError, match=r"beyond 99 of the points of interest: it has nothing there"):
        sample_around(vertices, faces, 10, rng, [[0.0, 0.0, 0.0]], 99.0, inside=False)
    assert len(sample_around(vertices, faces, 0, rng, [[0.0, 0.0, 0.0]], 99.0, inside=False)) == 0


def test_refusals(surface) -> None:
    vertices, faces, labels = surface
    rng = np.random.default_rng(0)
    with pytest.raises(SamplingError, match="between 0 and 1"):
        sample_surface(vertices, faces, 10, rng, balanced=1.5)
    with pytest.raises(SamplingError, match="area is zero"):
        sample_surface(vertices * 0.0, faces, 10, rng)
    with pytest.raises(SamplingError, match="area is zero"):
        sample_surface(vertices, faces, 10, rng, face_mask=np.zeros(len(faces), dtype=bool))
    with pytest.raises(SamplingError, match="face labels must be"):
        sample_surface(vertices, faces, 10, rng, labels=labels[1:])
    with pytest.raises(SamplingError, match="cannot draw"):
        sample_surface(vertices, faces, -1, rng)
    assert len(sample_surface(vertices, faces, 0, rng)) == 0
