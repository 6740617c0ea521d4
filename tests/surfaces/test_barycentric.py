"""Barycentric coordinates, also of triangles that have collapsed."""

from __future__ import annotations

import numpy as np

from facegraft.surfaces.barycentric import barycentric


def test_barycentric_coordinates_also_of_collapsed_triangles() -> None:
    rng = np.random.default_rng(0)
    triangles = rng.normal(size=(50, 3, 3))
    weights = rng.dirichlet((1, 1, 1), 50)
    points = np.einsum("nk,nkj->nj", weights, triangles)
    assert np.abs(barycentric(points, triangles) - weights).max() < 1e-9
    flat = np.array([[[0.0, 0, 0], [1, 0, 0], [4, 0, 0]], [[2.0, 2, 2]] * 3])
    got = barycentric(np.array([[3.0, 0, 0], [2, 2, 2]]), flat)
    assert np.allclose(np.einsum("nk,nkj->nj", got, flat), [[3, 0, 0], [2, 2, 2]])
