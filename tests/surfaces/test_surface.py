"""Nearest points, samples and refusals of a checked mesh, against trimesh."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from facegraft.surfaces.errors import SurfaceError
from facegraft.surfaces.sampling import sample_surface
from facegraft.surfaces.surface import Surface


def bumpy(seed: int = 0) -> Surface:
    """A closed surface without symmetry."""
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=1.0)
    v = np.asarray(mesh.vertices)
    radius = 80.0 + 12.0 * np.sin(3.0 * v[:, 0] + seed) * np.cos(2.0 * v[:, 1]) + 9.0 * v[:, 2] * v[:, 0]
    return Surface(v * radius[:, None] * np.array([1.0, 1.3, 0.9]), mesh.faces)


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


def test_samples_are_uniform_by_area_and_on_the_surface() -> None:
    surface = bumpy()
    drawn = sample_surface(surface.vertices, surface.faces, 40_000, np.random.default_rng(3))
    assert surface.nearest(drawn.points).distance.max() < 1e-9
    octant = (surface.vertices[surface.faces].mean(axis=1) > 0.0) @ np.array([1, 2, 4])
    share = np.bincount(octant, weights=surface.areas) / surface.areas.sum()
    assert np.abs(np.bincount(octant[drawn.face_index]) / len(drawn) - share).max() < 4 * np.sqrt(0.25 / len(drawn))
    some = octant == 3
    assert some[
        sample_surface(surface.vertices, surface.faces, 500, np.random.default_rng(4), face_mask=some).face_index
    ].all()
    # Within a triangle: the mean of uniform points is its centroid.
    triangle = Surface([[0, 0, 0], [3, 0, 0], [0, 6, 0]], [[0, 1, 2]])
    mean = sample_surface(triangle.vertices, triangle.faces, 40_000, np.random.default_rng(5)).points.mean(axis=0)
    np.testing.assert_allclose(mean, [1.0, 2.0, 0.0], atol=0.03)


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


def test_no_points_have_no_nearest() -> None:
    nearest = bumpy().nearest(np.empty((0, 3)))
    assert nearest.distance.shape == nearest.face.shape == (0,) and nearest.point.shape == (0, 3)
