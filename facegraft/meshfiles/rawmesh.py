"""A mesh as its file holds it: vertices in file order, triangles and quads as written."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Floats, Ints32
from facegraft.meshfiles.errors import MeshError
from facegraft.store.remote import Location


@dataclass(frozen=True, eq=False)
class RawMesh:
    """Vertices [V, 3] in the file's unit; polygons [P, 4], a triangle's fourth corner being -1; normals [V, 3] or None.

    Row i is the i-th vertex of the file: nothing is merged, split, dropped or reordered, because everything
    downstream names vertices by their number. Normals are as in the file (of any length), 0 where a vertex has none.
    """

    vertices: Floats
    polygons: Ints32
    normals: Floats | None = None

    @property
    def is_triangles(self) -> bool:
        return bool((self.polygons[:, 3] < 0).all())

    @property
    def polygons_sha256(self) -> str:
        """SHA-256 of the polygons as little-endian int32 [P, 4] in C order."""
        return hashlib.sha256(np.ascontiguousarray(self.polygons, dtype="<i4").tobytes()).hexdigest()


@dataclass(frozen=True)
class Accepts:
    """The content that a reader accepts besides vertices with triangles and quads.

    clouds: a file without faces is a point cloud (refused otherwise); fans: a face of more than four corners is cut into
    a fan of triangles about its first corner (refused otherwise); normals: the vertices' normals are read (skipped otherwise).
    """

    clouds: bool = False
    fans: bool = False
    normals: bool = False


HEAD = Accepts()
"""For registered heads: vertices with triangles and quads only."""

SCAN = Accepts(clouds=True, fans=True, normals=True)
"""For scans: points, and faces and normals where the file has them."""


def read_bytes(path: Location, where: str | None = None) -> bytes:
    """The file's content; raises MeshError naming the file (`where`, or its path) and the system's reason."""
    # A pipe or a device may never end.
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise MeshError(f"{where or path}: is not a regular file; give the mesh or scan as a file on disk")
    try:
        return path.read_bytes()
    except OSError as error:
        raise MeshError(
            f"{where or path}: cannot be read ({error.strerror or error}); check its name and its permissions"
        ) from error


def to_polygons(corners: NDArray[np.int64], counts: NDArray[np.int64]) -> Ints32:
    """Polygons [P, 4] of a flat list of corners and the number of corners (3 or more) of each face.

    A face of n > 4 corners becomes the n - 2 triangles of a fan about its first corner, in its place.
    """
    rows = np.where(counts > 4, counts - 2, 1)
    face = np.repeat(np.arange(len(counts)), rows)
    step = np.arange(len(face)) - (np.cumsum(rows) - rows)[face]  # which triangle of its fan
    first = (np.cumsum(counts) - counts)[face]
    polygons = np.full((len(face), 4), -1, dtype=np.int32)
    polygons[:, 0] = corners[first]
    polygons[:, 1] = corners[first + step + 1]
    polygons[:, 2] = corners[first + step + 2]
    quad = counts[face] == 4
    polygons[quad, 3] = corners[first[quad] + 3]
    return polygons
