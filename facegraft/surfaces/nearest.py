"""The nearest point of a triangle mesh, exactly (libigl's AABB tree)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Floats, Ints
from facegraft.lazily import lazy_import

SMALLEST = 1e-150
"""Coordinates nearer to 0 than this are 0."""


class Nearest(NamedTuple):
    """For n points: distance [n] f64 to the mesh, face [n] i64 on which the nearest point lies, and that point [n, 3] f64."""

    distance: Floats
    face: Ints
    point: Floats

    def take(self, rows: NDArray[Any]) -> Nearest:
        """A subset of the points, by index [m] or mask [n]."""
        return Nearest(self.distance[rows], self.face[rows], self.point[rows])


class SearchTree:
    """Search tree over the faces i64 [F, 3] of a mesh, vertices f64 [V, 3]; both contiguous, F > 0."""

    def __init__(self, vertices: Floats, faces: Ints) -> None:
        self._tree = lazy_import("igl").AABB()
        # Squares of smaller numbers underflow: a triangle's side would have no length, though its ends differ, and libigl then finds no face.
        self._vertices, self._faces = np.where(np.abs(vertices) < SMALLEST, 0.0, vertices), faces
        self._tree.init(self._vertices, faces)

    def nearest(self, points: Floats) -> Nearest:
        """Exact nearest points of the mesh for points f64 [n, 3]."""
        order = _near_together(points)
        _, index, closest = self._tree.squared_distance(
            self._vertices, self._faces, np.ascontiguousarray(points[order])
        )
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        closest = np.asarray(closest, dtype=np.float64).reshape(-1, 3)[back]
        # The distance is taken from the nearest point: libigl's squared distance loses half its digits near zero.
        return Nearest(
            np.linalg.norm(points - closest, axis=1), np.asarray(index, dtype=np.int64).reshape(-1)[back], closest
        )


def nearest_on_surface(vertices: Floats, faces: Ints, points: Floats) -> Nearest:
    """Nearest points of the mesh vertices f64 [V, 3], faces i64 [F, 3] for points f64 [n, 3], without keeping the search tree."""
    return SearchTree(vertices, faces).nearest(points)


def _near_together(points: Floats) -> Ints:
    """An order of the points in which neighbours follow each other, so that the tree stays in the cache (20 to 50 % faster)."""
    if len(points) == 0:
        return np.empty(0, dtype=np.int64)
    low, extent = points.min(axis=0), np.ptp(points, axis=0)
    share = (points - low) / np.where(extent > 0.0, extent, 1.0)
    cells = np.minimum(16.0 * share, 15.0).astype(np.int64)
    return np.argsort(cells @ np.array([256, 16, 1]), kind="stable")
