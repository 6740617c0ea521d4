"""One mesh of a head, whatever its format."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facegraft.meshfiles.errors import MeshError
from facegraft.meshfiles.obj import read_obj
from facegraft.meshfiles.ply import read_ply
from facegraft.meshfiles.rawmesh import HEAD, Accepts, RawMesh
from facegraft.store.remote import AnyPath, place
from facegraft.surfaces.triangulate import triangulate

READERS = {".obj": read_obj, ".ply": read_ply}


def read_mesh(path: AnyPath, where: str | None = None, accepts: Accepts = HEAD) -> RawMesh:
    """Read one .obj or .ply file; raises MeshError (see the two readers). `where` replaces the path in messages."""
    path = place(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise MeshError(f"{where or path}: a mesh must be an .obj or .ply file")
    return reader(path, where, accepts)


def read_triangles(
    path: AnyPath, symmetry: ArrayLike | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices [V, 3] in the file's unit and triangles [F, 3]; raises MeshError for a file that is no mesh.

    Quads are split by their shorter diagonal, mirror images alike where a `symmetry` of this many vertices is given.
    """
    mesh = read_mesh(path)
    if mesh.is_triangles:
        return mesh.vertices, mesh.polygons[:, :3].astype(np.int64)
    fits = symmetry is not None and len(np.asarray(symmetry)) == len(mesh.vertices)
    return mesh.vertices, triangulate(mesh.polygons, mesh.vertices, symmetry if fits else None).astype(np.int64)
