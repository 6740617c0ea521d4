"""Scans: point clouds and meshes from PLY, OBJ, XYZ and NPY, their points in file order."""

from __future__ import annotations

import io
import tokenize
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Floats
from facegraft.meshfiles.errors import MeshError
from facegraft.meshfiles.meshfile import READERS
from facegraft.meshfiles.rawmesh import SCAN, RawMesh, read_bytes
from facegraft.meshfiles.text import Lines, count_words, plain_text, without_comments
from facegraft.store.remote import AnyPath, place
from facegraft.surfaces.triangulate import split_quads

_NO_FACES = np.empty((0, 4), dtype=np.int32)


@dataclass(frozen=True, eq=False)
class PointCloud:
    """A scan in the unit of its file, points in file order.

    points f64 [n,3]; normals f64 [n,3], each of length 1, or 0 where the file has none for that point, or None; faces
    i64 [m,3] (polygons cut into fans) or None.
    """

    points: NDArray[np.float64]
    normals: NDArray[np.float64] | None = None
    faces: NDArray[np.int64] | None = None


def read_points(path: AnyPath) -> PointCloud:
    """Read a scan: a point cloud or a mesh, by suffix.

    .ply and .obj: see the two readers. .xyz: text, 3 or 6 numbers a line (point, normal), blanks or commas, # comments.
    .npy: array [n,3] or [n,6]. Points keep their order. Raises MeshError for an unknown suffix, a file that is missing,
    empty or damaged, a number that is not finite, or a face that names a missing point.
    """
    path = place(path)
    suffix = path.suffix.lower()
    if suffix in READERS:
        mesh = READERS[suffix](path, None, SCAN)
    elif suffix in (".xyz", ".npy"):
        data = read_bytes(path)
        mesh = parse_xyz(data, str(path)) if suffix == ".xyz" else parse_npy(data, str(path))
    else:
        raise MeshError(f"{path}: cannot read {suffix or 'a file without suffix'}; take .ply, .obj, .xyz or .npy")
    normals = mesh.normals
    if normals is not None:
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        normals = normals / np.where(length > 0, length, 1.0) if length.any() else None
    faces = split_quads(mesh.polygons).astype(np.int64)
    return PointCloud(mesh.vertices, normals, faces if len(faces) else None)


def parse_xyz(data: bytes, where: str) -> RawMesh:
    """Points of a text of 3 or 6 numbers a line; `where` names it in messages. Raises MeshError, naming the line."""
    text = plain_text(data, where, "an XYZ", "export it again as text, x y z a line")
    lines = Lines.of(text, where)
    characters = without_comments(np.frombuffer(text.replace(b",", b" "), np.uint8))
    counts = count_words(characters, lines.starts[1:])
    filled = np.flatnonzero(counts)
    if not len(filled):
        raise MeshError(f"{where}: holds no points; is this the right file, and is it whole?")
    width = int(counts[filled[0]])
    odd = filled[counts[filled] != width]
    if len(odd):
        what = f"{counts[odd[0]]} numbers, but {width} in the first line of numbers"
        raise lines.refuse(int(odd[0]), what, "the file is damaged: copy or export it again")
    numbers = lines.numbers(
        characters.tobytes(), counts, np.float64, np.arange(len(counts)), "something that is not a number"
    )
    table = numbers.reshape(-1, width)
    bad = _not_finite(table)
    if bad is not None:
        raise lines.refuse(int(filled[bad[0]]), bad[1], "remove such points first")
    return _from_table(table, where)


def parse_npy(data: bytes, where: str) -> RawMesh:
    """Points of an array file [n,3] or [n,6]; `where` names it in messages. Raises MeshError.

    The header is checked against the size of the file before any memory is allocated for it.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(stream)
    # The header is a Python literal: a damaged one can make the parser raise more than a ValueError.
    except (ValueError, TypeError, SyntaxError, EOFError, tokenize.TokenError, RecursionError, MemoryError):
        raise MeshError(
            f"{where}: not an array file of plain numbers (.npy), or a damaged one; save it with numpy.save"
        ) from None
    if dtype.hasobject or dtype.kind not in "fiu" or len(shape) != 2 or shape[1] not in (3, 6):
        raise _no_table(where, dtype, shape)
    start = stream.tell()
    if not 0 <= shape[0] * shape[1] * dtype.itemsize <= len(data) - start:
        raise MeshError(f"{where}: the array file ends too early (truncated): copy or export it again")
    table = np.frombuffer(data, dtype, shape[0] * shape[1], start).reshape(shape, order="F" if fortran else "C")
    bad = _not_finite(table)
    if bad is not None:
        raise MeshError(f"{where}: {bad[1]}; remove such points first")
    return _from_table(table, where)


def _not_finite(table: NDArray[Any]) -> tuple[int, str] | None:
    """The first row of [n,3 or 6] with a number that is not finite, and a phrase for the message."""
    bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
    return (int(bad[0]), f"point {bad[0]} is not finite ({len(bad)} of {len(table)})") if len(bad) else None


def _from_table(table: NDArray[Any], where: str) -> RawMesh:
    if table.shape[1] not in (3, 6):
        raise _no_table(where, table.dtype, table.shape)
    if not len(table):
        raise MeshError(f"{where}: holds no points; is this the right file, and is it whole?")
    points: Floats = table[:, :3].astype(np.float64)
    return RawMesh(points, _NO_FACES, table[:, 3:].astype(np.float64) if table.shape[1] == 6 else None)


def _no_table(where: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> MeshError:
    return MeshError(
        f"{where}: must hold numbers [n,3] (points) or [n,6] (points and normals), "
        f"not {'Python objects' if dtype.hasobject else str(dtype)[:60]} {list(shape)}"
    )
