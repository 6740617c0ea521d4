"""Which kind of source a folder or file is, by its names and by the number of vertices of its first mesh."""

from __future__ import annotations

from typing import Any

from facegraft.errors import FacegraftError, shown_name
from facegraft.heads.errors import SourceError
from facegraft.heads.facescape import REGISTERED, TOPOLOGIES
from facegraft.heads.flame import PARAMETERS, REGISTRATIONS
from facegraft.heads.folders import list_folder, mesh_files
from facegraft.heads.ict import NEUTRAL_FILE
from facegraft.heads.names import split_number
from facegraft.heads.source import KINDS
from facegraft.meshfiles.meshfile import read_mesh
from facegraft.regions.regionmap import load_region_map
from facegraft.resources import resource_folder
from facegraft.store.remote import Location

_DEEP = 3
_TRIED = 5


def guess_kind(path: Location) -> dict[str, Any]:
    """Parameters of ingest that name the kind of a source, and of kind `meshes` the region map. Raises SourceError, which names the kinds to try."""
    if not path.exists():
        raise SourceError(f"{path}: there is no such folder or file")
    if not path.is_dir():
        if path.suffix.lower() == ".npz":
            return {"kind": "flame"}
        raise _unknown(path, "it is one file, and no .npz of registered vertices: name the folder that holds the heads")
    names = {entry.name for entry in list_folder(path)}
    if "dataset.json" in names or (path / "heads" / "dataset.json").is_file():
        raise SourceError(f"{path}: holds a dataset already; look at it with `facegraft report {shown_name(str(path))}`")
    inner = {name for entry in list_folder(path) if entry.is_dir() for name in (NEUTRAL_FILE, REGISTRATIONS, PARAMETERS) if (entry / name).exists()}
    # Where they are one folder further down, the source itself says which folder to name.
    if NEUTRAL_FILE in names | inner:
        return {"kind": "ict"}
    if (names | inner) & {REGISTRATIONS, PARAMETERS}:
        return {"kind": "flame"}
    meshes = _first_meshes(path, _DEEP)
    if not meshes:
        raise _unknown(path, "there are no .obj or .ply meshes in it")
    why = ""
    for file in meshes[:_TRIED]:
        try:
            count = len(read_mesh(file).vertices)
        except FacegraftError as error:
            why = why or str(error)
            continue
        numbered = all(split_number(mesh.stem)[0] is not None for mesh in meshes)
        if count in TOPOLOGIES and (numbered or file.parent.name == REGISTERED):
            return {"kind": "facescape"}
        shipped = _topologies().get(count)
        if shipped is None:
            raise _unknown(path, f"its meshes have {count:,} vertices, which no shipped topology has: kind meshes with --region-map or --landmarks")
        return {"kind": "flame"} if shipped == "flame" else {"kind": "meshes", "region_map": shipped}
    raise _unknown(path, f"none of its first meshes can be read: {why}")


def _first_meshes(folder: Location, deep: int) -> list[Location]:
    """Meshes of the first folder, in natural order, that holds any."""
    if found := mesh_files(folder):
        return found
    for inner in list_folder(folder) if deep else []:
        if inner.is_dir() and (found := _first_meshes(inner, deep - 1)):
            return found
    return []


def _topologies() -> dict[int, str]:
    """By number of vertices, the name of the shipped region map."""
    maps = (load_region_map(file.stem) for file in sorted(resource_folder("region_maps").glob("*.json")))
    return {region_map.vertex_count: region_map.name for region_map in maps}


def _unknown(path: Location, why: str) -> SourceError:
    kinds = ", ".join(kind for kind, known in KINDS.items() if known.reads_files)
    return SourceError(f"{path}: its kind is not clear ({why}); try --kind with one of {kinds}")
