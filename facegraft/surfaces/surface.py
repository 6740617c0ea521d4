"""A checked triangle mesh with its normals, areas and nearest-point search."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from facegraft.arrays import Floats, Ints
from facegraft.surfaces.errors import SurfaceError
from facegraft.surfaces.nearest import Nearest, SearchTree
from facegraft.surfaces.normals import face_cross

FLAT = 1e-12
"""Triangles below this share of the mean area have no normal of their own and are left out of nearest-point searches."""


class Surface:
    """A triangle mesh with the search tree for exact nearest points.

    vertices [V, 3] f64, faces [F, 3] i64, normals [F, 3] f64 (unit, by the order of the corners), areas [F] f64.
    Raises SurfaceError for a mesh without faces or area, faces out of range, or coordinates that are not finite.
    """

    def __init__(self, vertices: ArrayLike, faces: ArrayLike) -> None:
        self.vertices = np.ascontiguousarray(vertices, dtype=np.float64)
        self.faces = np.ascontiguousarray(faces, dtype=np.int64)
        if (
            self.vertices.ndim != 2
            or self.vertices.shape[1:] != (3,)
            or self.faces.ndim != 2
            or self.faces.shape[1:] != (3,)
        ):
            raise SurfaceError(
                f"a mesh is vertices [V, 3] and faces [F, 3], not {self.vertices.shape} and {self.faces.shape}"
            )
        if not len(self.faces):
            raise SurfaceError("the mesh has no faces")
        if not np.isfinite(self.vertices).all():
            raise SurfaceError("the mesh has vertices that are not finite")
        if self.faces.min() < 0 or self.faces.max() >= len(self.vertices):
            raise SurfaceError(f"the mesh has faces with corners outside 0..{len(self.vertices) - 1}")
        cross = face_cross(self.vertices, self.faces)
        length = np.linalg.norm(cross, axis=1)
        self.areas: Floats = 0.5 * length
        if not self.areas.sum() > 0.0:
            raise SurfaceError("the mesh has no area")
        self.normals: Floats = cross / np.where(length > 0.0, length, 1.0)[:, None]
        self._solid: Ints = np.flatnonzero(self.areas > FLAT * self.areas.mean())

    @cached_property
    def _tree(self) -> SearchTree:
        return SearchTree(self.vertices, np.ascontiguousarray(self.faces[self._solid]))

    def nearest(self, points: ArrayLike) -> Nearest:
        """Exact nearest points of the surface for points [n, 3], on faces that have an area."""
        found = self._tree.nearest(np.asarray(points, dtype=np.float64).reshape(-1, 3))
        return found._replace(face=self._solid[found.face])
