"""A mesh as its file holds it: vertices in file order, triangles and quads as written."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facegraft.heads.errors import MeshError
from facegraft.store.remote import Location

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]


@dataclass(frozen=True)
class RawMesh:
    """Vertices [V, 3] in the file's unit; polygons [P, 4], a triangle's fourth corner being -1.

    Row i is the i-th vertex of the file: nothing is merged, split, dropped or reordered, because everything
    downstream names vertices by their number.
    """

    vertices: Floats
    polygons: Ints

    @property
    def is_triangles(self) -> bool:
        return bool((self.polygons[:, 3] < 0).all())

    @property
    def polygons_sha256(self) -> str:
        """SHA-256 of the polygons as little-endian int32 [P, 4] in C order."""
        return hashlib.sha256(np.ascontiguousarray(self.polygons, dtype="<i4").tobytes()).hexdigest()


def read_bytes(path: Location, where: str | None = None) -> bytes:
    """The file's content; raises MeshError naming the file (`where`, or its path) and the system's reason."""
    # A pipe or a device has no end that one could wait for.
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise MeshError(f"{where or path}: is no plain file; give the mesh as an .obj or .ply file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise MeshError(
            f"{where or path}: cannot be read ({error.strerror or error}); check its permissions"
        ) from error


def pad_polygons(corners: NDArray[np.int64], counts: NDArray[np.int64]) -> Ints:
    """Polygons [P, 4] of the flat corner list and the number of corners (3 or 4) of each polygon."""
    polygons = np.full((len(counts), 4), -1, dtype=np.int32)
    polygons[np.arange(4) < counts[:, None]] = corners
    return polygons
