"""The nearest point of a triangle mesh, exactly (`compiled.search`).

numba is imported where a tree is built.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Bools, Floats, Ints

if TYPE_CHECKING:
    from facegraft.surfaces.compiled.boxtree import BoxTree
    from facegraft.surfaces.compiled.sides import Sides

SMALLEST = 1e-150
"""Coordinates nearer to 0 than this are 0: squares of smaller numbers underflow, so that a side would have no length though its ends differ."""


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
        from facegraft.surfaces.compiled import boxtree

        self.vertices, self.faces = np.where(np.abs(vertices) < SMALLEST, 0.0, vertices), faces
        self.tree: BoxTree = boxtree.build_tree(self.vertices[faces])

    @cached_property
    def sides(self) -> Sides:
        """What tells on which side points lie; the mesh must be closed and oriented."""
        from facegraft.surfaces.compiled import sides

        return sides.sides_of(self.vertices, self.faces, self.tree)

    def nearest(self, points: Floats) -> Nearest:
        """Exact nearest points of the mesh for points f64 [n, 3]."""
        return self._found(points)[0]

    def nearest_and_inside(self, points: Floats) -> tuple[Nearest, Bools]:
        """Exact nearest points of a closed, oriented mesh for points f64 [n, 3], and which of these [n] lie inside: where its winding number
        exceeds 1/2 (Jacobson et al. 2013)."""
        from facegraft.surfaces.compiled import sides

        found, feature = self._found(points)
        within = sides.inside(
            self.sides, self.vertices, self.faces, self.tree, points, found.point, found.face, feature
        )
        return found, within

    def _found(self, points: Floats) -> tuple[Nearest, NDArray[np.int8]]:
        from facegraft.surfaces.compiled import search

        own = np.ascontiguousarray(points, dtype=np.float64)
        slot, point, distance, feature = search.nearest_triangles(self.tree, own, search.near_together(own))
        return Nearest(distance, self.tree.faces[slot], point), feature


def nearest_on_surface(vertices: Floats, faces: Ints, points: Floats) -> Nearest:
    """Nearest points of the mesh vertices f64 [V, 3], faces i64 [F, 3] for points f64 [n, 3], without keeping the search tree."""
    return SearchTree(vertices, faces).nearest(points)

