"""Connectivity on shapes whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from facegraft.surfaces import normals as nm
from facegraft.surfaces import topology as tp
from facegraft.surfaces.errors import TopologyError


def grid(n: int = 6) -> np.ndarray:
    """Triangulated n × n vertex grid: a disk with one boundary loop of 4 (n − 1) vertices."""
    i, j = np.meshgrid(np.arange(n - 1), np.arange(n - 1), indexing="ij")
    a = (i * n + j).ravel()
    return np.concatenate([np.c_[a, a + n, a + 1], np.c_[a + 1, a + n, a + n + 1]])


def test_disk() -> None:
    faces = grid(6)
    assert tp.euler_characteristic(faces) == 1
    assert not tp.is_watertight(faces)
    (loop,) = tp.boundary_loops(faces)
    assert len(loop) == 20 and len(set(loop.tolist())) == 20
    directed = {tuple(e) for e in tp.directed_edges(faces).tolist()}
    assert all((int(a), int(b)) in directed for a, b in zip(loop, np.roll(loop, -1), strict=True))


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_loops_do_not_depend_on_face_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    faces = grid(5)
    shuffled = faces[rng.permutation(len(faces))]
    assert set(tp.boundary_loops(shuffled)[0].tolist()) == set(tp.boundary_loops(faces)[0].tolist())
    assert tp.euler_characteristic(shuffled) == 1


def test_sphere_and_torus() -> None:
    sphere, torus = trimesh.creation.icosphere(2), trimesh.creation.torus(3, 1)
    assert (
        tp.is_watertight(sphere.faces)
        and tp.euler_characteristic(sphere.faces) == 2
        and tp.boundary_loops(sphere.faces) == []
    )
    assert tp.is_watertight(torus.faces) and tp.euler_characteristic(torus.faces) == 0
    assert nm.signed_volume(sphere.vertices, sphere.faces) == pytest.approx(sphere.volume)
    flipped = sphere.faces.copy()
    flipped[0] = flipped[0, ::-1]
    assert not tp.is_watertight(flipped)
    both = np.concatenate([sphere.faces, torus.faces + len(sphere.vertices)])
    assert len(np.unique(tp.face_components(both))) == 2


def test_normals_and_areas_agree_with_trimesh() -> None:
    mesh = trimesh.creation.torus(3, 1)
    assert np.allclose(nm.face_areas(mesh.vertices, mesh.faces), mesh.area_faces)
    assert np.allclose(nm.face_normals(mesh.vertices, mesh.faces), mesh.face_normals, atol=1e-9)
    normals = nm.vertex_normals(mesh.vertices, mesh.faces)
    assert np.allclose(np.linalg.norm(normals, axis=1), 1)


def test_rings_are_edge_distances() -> None:
    adjacency = tp.vertex_adjacency(grid(9), 81)
    rings = tp.grow_rings(adjacency, [40], 3)
    from scipy.sparse.csgraph import dijkstra

    hops = dijkstra(adjacency.astype(float), indices=40, unweighted=True)
    for k, ring in enumerate(rings, start=1):
        assert ring.tolist() == np.flatnonzero(hops == k).tolist()


def test_pinched_boundary_is_refused() -> None:
    with pytest.raises(TopologyError, match="vertex 0"):
        tp.boundary_loops(np.array([[0, 1, 2], [0, 3, 4]]))


def test_compact_keeps_order() -> None:
    faces, kept = tp.compact(np.array([[5, 2, 9]]), 12)
    assert kept.tolist() == [2, 5, 9] and faces.tolist() == [[1, 0, 2]]
