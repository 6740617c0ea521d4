"""One mesh file, whatever its format."""

from __future__ import annotations

from facegraft.heads.errors import MeshError
from facegraft.heads.obj import read_obj
from facegraft.heads.ply import read_ply
from facegraft.heads.rawmesh import RawMesh
from facegraft.store.remote import AnyPath, place

READERS = {".obj": read_obj, ".ply": read_ply}


def read_mesh(path: AnyPath, where: str | None = None) -> RawMesh:
    """Read one .obj or .ply file; raises MeshError (see the two readers). `where` replaces the path in messages."""
    file = place(path)
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        raise MeshError(f"{where or file}: a mesh must be an .obj or .ply file")
    return reader(file, where)
