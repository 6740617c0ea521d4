"""Signed distances: closed forms, brute force, behaviour at the surface, and refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from types import ModuleType

import igl
import numpy as np
import pytest
import trimesh
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.spatial import Delaunay, cKDTree

from facegraft.geometry.clipping import icosphere
from facegraft.surfaces.distance import signed_distance
from facegraft.surfaces.errors import DistanceError
from facegraft.surfaces.nearest import nearest_on_surface
from facegraft.surfaces.normals import face_normals
from facegraft.surfaces.topology import is_watertight, open_edge_count

_BOX = trimesh.creation.box((2.0, 2.0, 2.0))
CUBE, CUBE_FACES = np.asarray(_BOX.vertices), np.asarray(_BOX.faces)


def cube_distance(p):
    """Signed distance to the cube of half side 1."""
    q = np.abs(p) - 1.0
    return np.linalg.norm(np.maximum(q, 0.0), axis=1) + np.minimum(q.max(axis=1), 0.0)


def test_cube_has_its_closed_form() -> None:
    points = np.random.default_rng(0).uniform(-2.5, 2.5, (5000, 3))
    found = signed_distance(CUBE, CUBE_FACES, points)
    np.testing.assert_allclose(found.sdf, cube_distance(points), atol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(found.gradient, axis=1), 1.0)
    np.testing.assert_allclose(points - found.sdf[:, None] * found.gradient, found.closest_points, atol=1e-12)
    clear = (
        np.abs(cube_distance(points + 1e-5) - cube_distance(points)) > 0
    )  # away from the medial axis a difference quotient agrees
    step = 1e-6
    quotient = np.stack(
        [(cube_distance(points + step * e) - cube_distance(points - step * e)) / (2 * step) for e in np.eye(3)], axis=1
    )
    close = np.abs(quotient - found.gradient).max(axis=1) < 1e-3
    assert close[clear].mean() > 0.999


def test_sphere() -> None:
    vertices, faces = icosphere(5)
    points = np.random.default_rng(1).uniform(-1.5, 1.5, (3000, 3))
    found = signed_distance(vertices, faces, points)
    np.testing.assert_allclose(found.sdf, np.linalg.norm(points, axis=1) - 1.0, atol=1e-3)
    far = np.abs(found.sdf) > 0.05
    assert (found.gradient[far] * points[far] / np.linalg.norm(points[far], axis=1)[:, None]).sum(axis=1).min() > 0.98


numbers = st.floats(-10.0, 10.0)
points3 = st.tuples(numbers, numbers, numbers)


@settings(max_examples=200, deadline=None)
@given(st.tuples(points3, points3, points3), points3)
@example(((0.0, 0.0, 0.0), (0.0, 0.0, 1.0905990498351412e-221), (0.0, 1.0, 0.0)), (0.0, 1.401298464324817e-45, 0.0))
@example(((0.0, 0.0, 0.0), (0.0, 0.0, 1.0905990498351412e-221), (0.0, 1.0, 0.0)), (0.0, 1.0, 0.0))
def test_nearest_point_of_one_triangle(brute_force, triangle, point) -> None:
    corners, p = np.array(triangle), np.array([point])
    expected = brute_force.point_triangle_distance(p, corners[None])[0, 0]
    distance, index, closest = nearest_on_surface(corners, np.array([[0, 1, 2]]), p)
    assert distance[0] == pytest.approx(expected, abs=1e-7)
    assert index[0] == 0
    assert np.linalg.norm(p[0] - closest[0]) == pytest.approx(distance[0])


def assert_exact(brute_force, vertices, faces, points) -> None:
    found = signed_distance(vertices, faces, points)
    expected = brute_force.exact_signed_distance(vertices, faces, points)
    assert np.abs(found.sdf - expected).max() <= 1e-9
    assert np.array_equal(found.sdf < 0, expected < 0)


def mixed_points(rng, vertices, n: int):
    near = vertices[rng.integers(len(vertices), size=n // 2)] + 0.02 * rng.standard_normal((n // 2, 3))
    return np.concatenate([near, rng.uniform(-1.0, 1.0, (n - n // 2, 3))])


def test_globe_against_brute_force(brute_force, closed_globe) -> None:
    rng = np.random.default_rng(2)
    vertices = closed_globe.vertices / 120.0
    assert_exact(brute_force, vertices, closed_globe.faces, mixed_points(rng, vertices, 160))


def test_ict_heads_against_brute_force(brute_force, ict) -> None:
    rng = np.random.default_rng(3)
    for expression in ({}, {"jawOpen": 1.0}):
        head = ict.closed(rng, **expression)
        vertices = head.vertices / 200.0
        assert_exact(brute_force, vertices, head.faces, mixed_points(rng, vertices, 60))


@pytest.mark.parametrize("step", [1e-3, 1e-5, 1e-7, 1e-9, 1e-11])
def test_sign_and_gradient_right_at_the_surface(closed_globe, step: float) -> None:
    """On either side of a face, however near: the right sign, and the face's normal as gradient."""
    rng = np.random.default_rng(4)
    vertices, faces = closed_globe.vertices / 120.0, closed_globe.faces
    index = rng.integers(len(faces), size=1000)
    normals = face_normals(vertices, faces)[index]
    middles = vertices[faces[index]].mean(axis=1)
    for side in (1.0, -1.0):
        points = middles + side * step * normals
        found = signed_distance(vertices, faces, points)
        # the mouth is a slit: a step of 1e-3 may cross to its other lip
        own = np.abs(np.abs(found.sdf) - step) <= 1e-3 * step + 1e-15
        assert own.mean() > 0.97
        assert (np.sign(found.sdf[own]) == side).all()
        assert (found.gradient[own] * normals[own]).sum(axis=1).min() > (0.999 if step > 1e-10 else 0.99)


def test_points_exactly_on_the_surface_get_the_face_normal(closed_globe) -> None:
    vertices, faces = closed_globe.vertices, closed_globe.faces
    found = signed_distance(vertices, faces, vertices[:500])
    assert np.abs(found.sdf).max() == 0.0
    np.testing.assert_allclose(found.gradient, face_normals(vertices, faces)[found.face_index])


def test_winding_not_libigls_scaled_distance(closed_globe) -> None:
    """|sdf| is the distance itself; libigl's fast-winding signed_distance returns it scaled by 1 - 2|w|."""
    vertices, faces = closed_globe.vertices / 120.0, closed_globe.faces
    points = np.random.default_rng(5).uniform(-1, 1, (2000, 3))
    found = signed_distance(vertices, faces, points)
    distance, _, _ = nearest_on_surface(vertices, faces, points)
    np.testing.assert_allclose(np.abs(found.sdf), distance, atol=1e-15)


SCRIPT = """
import hashlib, numpy as np
from facegraft.geometry.clipping import icosphere
from facegraft.surfaces.distance import signed_distance
vertices, faces = icosphere(4)
vertices = vertices * [0.7, 0.9, 0.8] + 0.003 * np.random.default_rng(0).standard_normal(vertices.shape)
points = np.random.default_rng(1).uniform(-1, 1, (5000, 3))
found = signed_distance(vertices, faces, points)
print(hashlib.sha256(b"".join(a.tobytes() for a in (found.sdf, found.gradient, found.face_index))).hexdigest())
"""


def test_same_bytes_on_any_number_of_threads() -> None:
    digests = set()
    for threads in ("1", "3"):
        env = {**os.environ, "IGL_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=600, env=env
        )
        digests.add(run.stdout.strip())
    assert len(digests) == 1


@pytest.mark.parametrize("count", [5, 100])
def test_few_and_many_points_at_the_surface_get_the_same_signs(closed_globe, count: int) -> None:
    """A millionth of a millimetre off the surface both sides are told."""
    vertices, faces = closed_globe.vertices / 120.0, closed_globe.faces
    chosen = np.random.default_rng(8).choice(len(faces), count, replace=False)
    for side in (1.0, -1.0):
        points = vertices[faces[chosen]].mean(axis=1) + side * 1e-9 * face_normals(vertices, faces)[chosen]
        assert (np.sign(signed_distance(vertices, faces, points).sdf) == side).mean() > 0.95


def test_open_edges_are_counted(closed_globe, globe) -> None:
    assert open_edge_count(closed_globe.faces) == 0
    assert open_edge_count(closed_globe.faces[1:]) == 3
    assert open_edge_count(CUBE_FACES[2:]) == 4
    assert open_edge_count(globe.faces) == sum(len(loop) for loop in globe.openings.values())
    turned = CUBE_FACES.copy()
    turned[0] = turned[0, ::-1]
    assert open_edge_count(turned) == 3
    assert open_edge_count(np.concatenate([CUBE_FACES, CUBE_FACES])) == 18
    assert open_edge_count([[0, 0, 1]]) > 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3).filter(lambda t: len(set(t)) == 3), min_size=1, max_size=10))
def test_open_edge_count_agrees_with_watertightness(faces) -> None:
    assert (open_edge_count(faces) == 0) == is_watertight(faces)


def test_refusals(closed_globe) -> None:
    vertices, faces = closed_globe.vertices, closed_globe.faces
    points = np.zeros((2, 3))
    with pytest.raises(DistanceError, match="3 open"):
        signed_distance(vertices, faces[1:], points)
    with pytest.raises(DistanceError, match="point inward"):
        signed_distance(vertices, faces[:, ::-1], points)
    with pytest.raises(DistanceError, match="1 of the 2 points are not finite"):
        signed_distance(vertices, faces, np.array([[0.0, 0, 0], [np.nan, 0, 0]]))
    with pytest.raises(DistanceError, match=r"shape \(3,\)"):
        signed_distance(vertices, faces, np.zeros(3))
    with pytest.raises(DistanceError, match="no faces"):
        signed_distance(vertices, np.zeros((0, 3), dtype=int), points)
    with pytest.raises(DistanceError, match=r"no distance backend 'magic'; there are height_field, mesh-to-sdf, winding"):
        signed_distance(vertices, faces, points, backend="magic")
    assert len(signed_distance(vertices, faces, np.zeros((0, 3))).sdf) == 0


def test_mesh_to_sdf_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mesh_to_sdf", None)
    with pytest.raises(DistanceError, match=r"pip install 'facegraft\[paper\]'"):
        signed_distance(CUBE, CUBE_FACES, np.zeros((1, 3)), backend="mesh-to-sdf")


def test_mesh_to_sdf_takes_a_sheet_with_the_sign_of_z(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the package, whose votes of normals are of no use on an open sheet: only its distances count."""

    class Cloud:
        def __init__(self, mesh: object, points: np.ndarray, normals: np.ndarray) -> None:
            self.points = points

        def get_sdf_in_batches(self, asked: np.ndarray, return_gradients: bool) -> tuple[np.ndarray, np.ndarray]:
            distance, index = cKDTree(self.points).query(asked)
            return -distance.astype(np.float32), (self.points[index] - asked) / distance[:, None]

    package, inner = ModuleType("mesh_to_sdf"), ModuleType("mesh_to_sdf.surface_point_cloud")
    inner.SurfacePointCloud = Cloud
    package.surface_point_cloud = inner
    monkeypatch.setitem(sys.modules, "mesh_to_sdf", package)
    monkeypatch.setitem(sys.modules, "mesh_to_sdf.surface_point_cloud", inner)
    monkeypatch.setattr("facegraft.surfaces.backends.mesh_to_sdf.CLOUD", 40_000)
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9)))
    sheet = np.column_stack([x, y, 0.2 * x * y])
    faces = Delaunay(np.column_stack([x, y])).simplices
    upward = np.cross(sheet[faces[:, 1]] - sheet[faces[:, 0]], sheet[faces[:, 2]] - sheet[faces[:, 0]])[:, 2] > 0
    faces = np.where(upward[:, None], faces, faces[:, ::-1])
    points = np.random.default_rng(0).uniform(-0.8, 0.8, (200, 3))
    found = signed_distance(sheet, faces, points, backend="mesh-to-sdf")
    exact = signed_distance(sheet, faces, points, backend="height_field")
    assert np.abs(found.sdf - exact.sdf).max() < 0.02 and (np.sign(found.sdf) == np.sign(exact.sdf)).all()
    assert ((found.gradient * exact.gradient).sum(1) > 0.9)[np.abs(exact.sdf) > 0.1].all()


@pytest.mark.slow
def test_mesh_to_sdf_is_close_and_repeatable() -> None:
    pytest.importorskip("mesh_to_sdf", reason="the extra `paper` is not installed")
    points = np.random.default_rng(6).uniform(-1.5, 1.5, (500, 3))
    found = signed_distance(CUBE, CUBE_FACES, points, backend="mesh-to-sdf")
    assert np.abs(found.sdf - cube_distance(points)).max() < 0.02
    again = signed_distance(CUBE, CUBE_FACES, points, backend="mesh-to-sdf")
    assert np.array_equal(found.sdf, again.sdf)


def test_fast_winding_numbers_alone_would_fail_at_the_surface(closed_globe) -> None:
    """Why libigl's fast winding numbers do not tell the side: they are computed in float32."""
    vertices, faces = closed_globe.vertices / 120.0, closed_globe.faces
    middles = vertices[faces].mean(axis=1) - 1e-10 * face_normals(vertices, faces)
    fast = igl.fast_winding_number(vertices, faces, middles)
    assert (fast < 0.5).mean() > 0.1
    assert (signed_distance(vertices, faces, middles).sdf < 0).mean() > 0.99
