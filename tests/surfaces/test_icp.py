"""Iterative closest points: known motions found, what is not determined left alone."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from facegraft.surfaces.errors import SurfaceError
from facegraft.surfaces.icp import rigid_icp, trimmed_icp
from facegraft.surfaces.procrustes import procrustes, rotations, similarities
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


def test_icp_finds_a_known_motion() -> None:
    truth = bumpy()
    rotation, shift = Rotation.from_rotvec([0.05, -0.08, 0.04]), np.array([3.0, -2.0, 4.0])
    moved = Surface(rotation.apply(truth.vertices) + shift, truth.faces)
    points = sample_surface(moved.vertices, moved.faces, 4000, np.random.default_rng(12)).points

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
    points = sample_surface(truth.vertices, truth.faces, 2000, np.random.default_rng(13)).points
    points /= np.linalg.norm(points, axis=1, keepdims=True) / 101.0

    def correspond(p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        direction = p / np.linalg.norm(p, axis=1, keepdims=True)
        return 100.0 * direction, direction, np.ones(len(p), dtype=bool)

    motion = rigid_icp(points, correspond)
    assert motion.degrees < 1e-3
    assert motion.rms_after <= motion.rms_before
    with pytest.raises(SurfaceError, match="fewer than 6"):
        rigid_icp(points, lambda p: (p, p, np.zeros(len(p), dtype=bool)))


@pytest.mark.parametrize("similarity", [False, True])
def test_a_part_is_laid_on_the_whole(similarity: bool) -> None:
    """Trimmed: a fifth of the points are beside the target and must not count."""
    target = bumpy()
    rng = np.random.default_rng(14)
    cloud = sample_surface(target.vertices, target.faces, 6000, rng).points
    tree = cKDTree(cloud)
    part = cloud[cloud[:, 2] > 0.0]
    scale = 1.03 if similarity else 1.0
    rotation, shift = Rotation.from_rotvec([0.05, -0.1, 0.04]), np.array([3.0, -2.0, 4.0])
    stray = part[: len(part) // 5] + np.array([0.0, 0.0, 60.0])
    points = scale * rotation.apply(np.concatenate([part, stray])) + shift

    matrix, residual = trimmed_icp(
        points, cloud, tree.query, np.eye(4), kept_share=0.75, iterations=200, similarity=similarity
    )
    moved = points @ matrix[:3, :3].T + matrix[:3, 3]
    assert residual < 1e-6
    assert np.abs(moved[: len(part)] - part).max() < 1e-5
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(scale**-3)


@pytest.mark.parametrize("similarity", [False, True])
def test_procrustes_finds_the_exact_map_and_never_reflects(similarity: bool) -> None:
    rng = np.random.default_rng(15)
    points = rng.normal(size=(40, 3))
    scale = 1.7 if similarity else 1.0
    rotation = Rotation.from_rotvec([0.5, -2.0, 1.0]).as_matrix()
    found = procrustes(points, scale * points @ rotation.T + [1.0, 2.0, 3.0], similarity)
    np.testing.assert_allclose(found[:3, :3], scale * rotation, atol=1e-12)
    np.testing.assert_allclose(found[:3, 3], [1.0, 2.0, 3.0], atol=1e-12)
    mirrored = procrustes(points, points * [-1.0, 1.0, 1.0], similarity)
    assert np.linalg.det(mirrored[:3, :3]) > 0


def test_procrustes_is_the_least_squares_map_of_scipy() -> None:
    rng = np.random.default_rng(16)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(30, 3))
    expected = Rotation.align_vectors(y - y.mean(0), x - x.mean(0))[0].as_matrix()
    np.testing.assert_allclose(procrustes(x, y, False)[:3, :3], expected, atol=1e-8)
    cross = ((y - y.mean(0)).T @ (x - x.mean(0)))[None]
    trace = np.array([np.square(x - x.mean(0)).sum()])
    np.testing.assert_allclose(rotations(cross)[0][0], expected, atol=1e-8)
    np.testing.assert_allclose(similarities(cross, trace)[0], procrustes(x, y, True)[:3, :3], atol=1e-12)


def test_procrustes_refuses_what_determines_no_map() -> None:
    with pytest.raises(SurfaceError, match="at least 3 points"):
        procrustes(np.eye(3)[:2], np.eye(3)[:2], False)
    with pytest.raises(SurfaceError, match="row-matched"):
        procrustes(np.eye(3), np.zeros((4, 3)), False)
    with pytest.raises(SurfaceError, match="all the same"):
        procrustes(np.ones((4, 3)), np.ones((4, 3)), True)
