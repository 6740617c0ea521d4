"""The neck's cut: planar on the template, on the skin of every head, with the same faces for all."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from facegraft.geometry.neck import cut_neck
from facegraft.surfaces.topology import boundary_loops, euler_characteristic


@pytest.fixture(scope="module")
def ball() -> tuple:
    """A 100 mm ball cropped along edges below y = -50: its loop steps up and down."""
    mesh = trimesh.creation.icosphere(4, radius=100.0)
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    low = vertices[:, 1] < -50
    kept = faces[~low[faces].any(axis=1)]
    (loop,) = boundary_loops(kept)
    return vertices, faces, loop, np.flatnonzero(low)


def test_the_cut_is_flat_and_below_the_loop(ball: tuple) -> None:
    vertices, faces, loop, drop = ball
    cut = cut_neck(vertices, faces, loop, drop)
    assert cut is not None
    rim = cut.extend(vertices)[cut.loop]
    assert np.ptp(vertices[loop, 1]) > 3.0  # what it is good for
    assert np.linalg.svd(rim - rim.mean(axis=0), compute_uv=False)[2] < 1e-9
    assert rim[:, 1].max() < vertices[loop, 1].min() + 1.0
    assert euler_characteristic(cut.faces) == 1
    (boundary,) = boundary_loops(cut.faces)
    assert set(boundary.tolist()) == set(cut.loop.tolist())
    assert set(np.unique(faces[~np.isin(faces, drop).any(axis=1)]).tolist()) <= set(np.unique(cut.faces).tolist())


def test_on_another_head_the_cut_lies_on_its_edges(ball: tuple) -> None:
    vertices, faces, loop, drop = ball
    cut = cut_neck(vertices, faces, loop, drop)
    other = vertices * [1.1, 0.9, 1.0] + 3.0 * np.sin(vertices / 20.0)
    new = cut.extend(other)[len(other) :]
    a, b = other[cut.edge[:, 0]], other[cut.edge[:, 1]]
    assert (cut.share > 0).all() and (cut.share < 1).all()
    assert np.allclose(np.linalg.norm(new - a, axis=1) + np.linalg.norm(new - b, axis=1), np.linalg.norm(b - a, axis=1))


def test_a_flat_loop_and_a_neck_that_ends_are_left_as_they_are(ball: tuple) -> None:
    vertices, faces, loop, drop = ball
    flat = vertices.copy()
    flat[loop, 1] = -50.0
    assert cut_neck(flat, faces, loop, drop) is None
    nothing_below = faces[~np.isin(faces, drop).all(axis=1)]  # one row of faces under the loop: the plane leaves them
    assert cut_neck(vertices, nothing_below, loop, drop) is None
    assert cut_neck(vertices, faces, loop, np.empty(0, dtype=np.int64)) is None
