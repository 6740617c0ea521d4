"""Registered heads as one npz file of vertex positions."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegraft.meshfiles.errors import MeshError
from facegraft.store.remote import Location

_USUAL = ("vertices", "verts", "v")


@dataclass(frozen=True)
class VertexArrays:
    """Vertices [N, V, 3] in the file's unit; where the file has them, names of the N subjects and expressions, and triangles [F, 3]."""

    vertices: NDArray[Any]
    subjects: list[str] | None
    expressions: list[str] | None
    faces: NDArray[np.int32] | None


def read_vertex_arrays(path: Location, vertex_count: int) -> VertexArrays:
    """Read the array [N, V, 3] (or [V, 3]) of an npz file, V = `vertex_count`, and `subjects`, `expressions`, `faces` if present.

    Raises MeshError, naming the file, if it is not an npz, damaged or pickled, if no array or several have that shape, and
    if the number of names does not match.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except OSError as error:
        raise MeshError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = (
            "it holds Python objects, which are not loaded" if "pickle" in str(error) else "not an npz file, or damaged"
        )
        raise MeshError(f"{path}: {reason}; save plain arrays with numpy.savez") from error
    except (AttributeError, TypeError) as error:  # numpy.load gives a bare array for an npy file
        raise MeshError(
            f"{path}: a single array, not an npz file; save it with numpy.savez(..., vertices=array)"
        ) from error
    fitting = [
        name
        for name, a in arrays.items()
        if a.dtype.kind == "f" and a.ndim in (2, 3) and a.shape[-2:] == (vertex_count, 3)
    ]
    preferred = [name for name in _USUAL if name in fitting] or fitting
    if not preferred:
        shapes = ", ".join(f"{name} {list(a.shape)}" for name, a in arrays.items()) or "nothing"
        hint = "; FLAME parameters (betas) alone are not enough: export vertices" if "betas" in arrays else ""
        raise MeshError(f"{path}: no array of registered vertices [N, {vertex_count}, 3]; it holds {shapes}{hint}")
    if len(preferred) > 1 and preferred[0] not in _USUAL:
        raise MeshError(
            f"{path}: several arrays could be the vertices ({', '.join(preferred)}); name the right one `vertices`"
        )
    vertices = arrays[preferred[0]].reshape(-1, vertex_count, 3)
    if not len(vertices):
        raise MeshError(f"{path}: the array {preferred[0]!r} holds no heads")
    faces = arrays.get("faces")
    if faces is not None and (faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "iu"):
        raise MeshError(f"{path}: `faces` must be whole numbers [F, 3], not {faces.dtype} {list(faces.shape)}")
    return VertexArrays(
        vertices,
        _names(arrays, "subjects", len(vertices), path),
        _names(arrays, "expressions", len(vertices), path),
        None if faces is None else faces.astype(np.int32),
    )


def _names(arrays: dict[str, NDArray[Any]], what: str, count: int, path: Location) -> list[str] | None:
    if what not in arrays:
        return None
    names = arrays[what]
    if names.shape != (count,):
        raise MeshError(f"{path}: `{what}` has shape {list(names.shape)}, but there are {count} heads")
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names.tolist()]
