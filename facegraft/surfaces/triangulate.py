"""Quads to triangles, the same way on both sides of the face."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facegraft.arrays import Floats, Ints32
from facegraft.surfaces.mirror import symmetrised


def triangulate(polygons: ArrayLike, vertices: ArrayLike, symmetry: ArrayLike | None = None) -> Ints32:
    """Split every quad by its shorter diagonal on a template; triangles [F, 3] in the order of the polygons.

    polygons [P, 4] have -1 as the fourth corner of a triangle. `vertices` [V, 3] are the template's; they are
    mirror-averaged first when `symmetry` [V] is given, so that a quad and its mirror image are split alike. Of equal
    diagonals, the one with the smallest vertex number is taken, where a vertex and its image count as one. A quad
    (a, b, c, d) becomes (a, b, c), (a, c, d) or (a, b, d), (b, c, d).
    """
    p = np.asarray(polygons, dtype=np.int64)
    v = np.asarray(vertices, dtype=np.float64)
    name = np.arange(len(v))
    if symmetry is not None:
        v = symmetrised(v, symmetry)
        name = np.minimum(name, np.asarray(symmetry))
    quad = p[:, 3] >= 0
    d02, d13 = _squared(v, p[:, 0], p[:, 2]), _squared(v, p[:, 1], p[:, 3])
    low02, low13 = np.minimum(name[p[:, 0]], name[p[:, 2]]), np.minimum(name[p[:, 1]], name[p[:, 3]])
    return split_quads(p, quad & ((d13 < d02) | ((d13 == d02) & (low13 < low02))))


def split_quads(polygons: ArrayLike, other: NDArray[np.bool_] | None = None) -> Ints32:
    """Triangles [F, 3] of polygons [P, 4]: quads cut between corners 1 and 3 where `other` [P] is true, else between 0 and 2."""
    p = np.asarray(polygons, dtype=np.int64)
    quad = p[:, 3] >= 0
    triangles = np.stack([p[:, [0, 1, 2]], p[:, [0, 2, 3]]], axis=1)
    if other is not None:
        triangles[other] = np.stack([p[other][:, [0, 1, 3]], p[other][:, [1, 2, 3]]], axis=1)
    keep = np.stack([np.ones_like(quad), quad], axis=1)
    return triangles[keep].astype(np.int32)


def _squared(v: Floats, a: NDArray[np.int64], b: NDArray[np.int64]) -> Floats:
    difference = v[a] - v[b]
    return np.asarray(np.einsum("ij,ij->i", difference, difference))
