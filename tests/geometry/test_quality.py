"""Quality measures on shapes whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from facegraft.geometry.quality import (
    dihedral_angles,
    dihedral_excess,
    flipped_faces,
    loop_edges,
    self_intersecting_faces,
)


def test_dihedral_angles_of_a_cube_are_right_angles_and_flat_ones() -> None:
    box = trimesh.creation.box()
    top = np.flatnonzero(box.vertices[:, 2] > 0)
    angle = np.arctan2(box.vertices[top, 1], box.vertices[top, 0])
    loop = top[np.argsort(angle)]
    seam = loop_edges(np.asarray(box.faces), loop)
    assert np.allclose(dihedral_angles(np.asarray(box.vertices), np.asarray(box.faces), seam), 90.0)
    inside_out = np.asarray(box.faces)[:, ::-1]
    seam = loop_edges(inside_out, loop)
    assert np.allclose(dihedral_angles(np.asarray(box.vertices), inside_out, seam), -90.0)


def test_excess_is_the_distance_from_the_range() -> None:
    excess = dihedral_excess(np.array([5.0, 20.0, -3.0]), np.array([0.0, 0.0, 0.0]), np.array([10.0, 10.0, 10.0]))
    assert excess.tolist() == [0.0, 10.0, 3.0]


def test_flips_are_counted() -> None:
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0.5, 0.5, 0]])
    fan = np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])
    pulled = corners.copy()
    pulled[4] = [1.5, 0.5, 0]  # past one side: the face on that side turns over
    assert flipped_faces(corners, corners, fan) == 0
    assert flipped_faces(pulled, corners, fan) == 1


def brute_force(vertices: np.ndarray, faces: np.ndarray) -> int:
    """Every pair of faces by exact-ish plane arithmetic, one by one."""

    def crosses(p: np.ndarray, q: np.ndarray, t: np.ndarray) -> bool:
        normal = np.cross(t[1] - t[0], t[2] - t[0])
        a, b = (p - t[0]) @ normal, (q - t[0]) @ normal
        if a * b > 0 or a == b:
            return False
        x = p + (a / (a - b)) * (q - p)
        return all(np.cross(t[(k + 1) % 3] - t[k], x - t[k]) @ normal >= 0 for k in range(3))

    hit = set()
    for i in range(len(faces)):
        for j in range(i):
            if set(faces[i]) & set(faces[j]):
                continue
            a, b = vertices[faces[i]], vertices[faces[j]]
            if any(crosses(x[k], x[(k + 1) % 3], y) for x, y in ((a, b), (b, a)) for k in range(3)):
                hit |= {i, j}
    return len(hit)


@pytest.mark.slow
@given(st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_self_intersections_against_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sphere = trimesh.creation.icosphere(1)
    bumpy = np.asarray(sphere.vertices) * rng.uniform(0.3, 1.5, size=(len(sphere.vertices), 1))
    other = np.asarray(sphere.vertices) * 0.4 + rng.normal(scale=0.5, size=3)
    vertices = np.concatenate([bumpy, other])
    faces = np.concatenate([np.asarray(sphere.faces), np.asarray(sphere.faces) + len(bumpy)])
    assert self_intersecting_faces(vertices, faces) == brute_force(vertices, faces)


def test_a_loop_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not an inner edge"):
        loop_edges(np.asarray(trimesh.creation.box().faces), np.array([0, 7, 3]))
