"""Scans: point clouds and meshes from PLY, OBJ, XYZ and NPY, their points in file order."""

from __future__ import annotations

import io
import re
import tokenize
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Floats
from facegraft.meshfiles.errors import MeshError
from facegraft.meshfiles.meshfile import READERS
from facegraft.meshfiles.rawmesh import SCAN, RawMesh, read_bytes
from facegraft.meshfiles.text import AGAIN, Lines, count_words, plain_text, without_comments
from facegraft.store.remote import AnyPath, place
from facegraft.surfaces.triangulate import split_quads

_UNIT = 0.05
"""Accepted deviation of a normal's length from 1: files round to a few digits."""
_FEW = 100
"""Fewer normals than this may all point into one octant."""
_TIGHT_COMMA = re.compile(rb"[^\s,],[^\s,]")
_OTHER_SEPARATOR = re.compile(rb"[^\s,] +[^\s,]|[^\s,](?: +,|, +)[^\s,]")
_EMPTY_FIELD = re.compile(rb"^ *,|, *,", re.MULTILINE)
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

    .ply and .obj: see the two readers. .xyz: text, 3 or 6 numbers a line (point, normal of length 1 or 0), blanks or commas, # comments.
    .npy: array [n,3] or [n,6]. Points keep their order. Raises MeshError for an unknown suffix, a file that is missing,
    empty or damaged, a number that is not finite, a face that names a missing point, columns 4 to 6 that are no normals (colours),
    and separators that may be decimal commas.
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
    _refuse_ambiguous_commas(lines)
    characters = without_comments(np.frombuffer(text.replace(b",", b" "), np.uint8))
    counts = count_words(characters, lines.starts[1:])
    filled = np.flatnonzero(counts)
    if not len(filled):
        raise MeshError(f"{where}: holds no points; is this the right file, and is it whole?")
    width = int(counts[filled[0]])
    odd = filled[counts[filled] != width]
    if len(odd):
        header = lines.line(int(filled[0])).split("#", 1)[0].split()
        if any(_is_word(word) for word in header) and not any(_is_word(word) for word in lines.line(int(odd[0])).split("#", 1)[0].split()):
            raise lines.refuse(int(filled[0]), "words, not numbers", "put a # before such lines, or remove them")
        if width == 1 and len(filled) > 2 and (counts[filled[1:]] == counts[odd[0]]).all():
            raise lines.refuse(int(filled[0]), "one number alone, the count of points?", "put a # before it, or remove the line")
        what = f"{counts[odd[0]]} numbers, but {width} in the first line of numbers"
        raise lines.refuse(int(odd[0]), what, AGAIN)
    first = lines.line(int(filled[0])).split("#", 1)[0].replace(",", " ").split()
    if all(map(_is_word, first)) and not all(map(_is_not_finite, first)):
        raise lines.refuse(int(filled[0]), "names of columns, not numbers", "put a # before them, or remove the line")
    if first[0].isalpha() and not _is_not_finite(first[0]):
        raise lines.refuse(int(filled[0]), "a word before the numbers", "leave out the column of words")
    numbers = lines.numbers(
        characters.tobytes(), counts, np.float64, np.arange(len(counts)), "something that is not a number"
    )
    table = numbers.reshape(-1, width)
    bad = _not_finite(table)
    if bad is not None:
        raise lines.refuse(int(filled[bad[0]]), bad[1], "remove such points first")
    return _from_table(table, where, commas=b"," in text and b"." not in text)


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
    if dtype.kind in "iu" and dtype.itemsize == 1:
        raise MeshError(
            f"{where}: numbers of one byte ({dtype}) are colours, not points; save the points [n,3] in their unit, as float32"
        )
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


def _from_table(table: NDArray[Any], where: str, commas: bool = False) -> RawMesh:
    """commas: the commas that separate whole numbers may be decimal ones."""
    if table.shape[1] not in (3, 6):
        raise _no_table(where, table.dtype, table.shape)
    if not len(table):
        raise MeshError(f"{where}: holds no points; is this the right file, and is it whole?")
    table = table.astype(np.float64)
    normals = table[:, 3:] if table.shape[1] == 6 else None
    if normals is not None and (what := _no_normals(normals)):
        remedy = "leave these columns out, or save a PLY, which names its columns"
        if commas:
            remedy = f"if the commas are decimal ones, write points (1.5, not 1,5); else {remedy}"
        raise MeshError(f"{where}: columns 4 to 6 must be normals of length 1, but {what}; {remedy}")
    return RawMesh(table[:, :3], _NO_FACES, normals)


def _no_normals(columns: Floats) -> str | None:
    """Why these columns [n, 3] are no normals: None where they may be. A point without a normal has zeros."""
    length = np.linalg.norm(columns, axis=1)
    wrong = np.flatnonzero((length > 0) & (np.abs(length - 1.0) > _UNIT))
    low, high = columns.min(), columns.max()
    if low >= 0 and (len(wrong) or np.count_nonzero(length) >= _FEW):
        return f"they lie between {low:g} and {high:g}, as colours do"
    if len(wrong):
        return f"that of point {wrong[0]} has length {length[wrong[0]]:.4g} ({len(wrong)} of {len(columns)} have another length than 1)"
    return None


def _is_word(word: str) -> bool:
    return not any(letter.isdigit() for letter in word)


def _is_not_finite(word: str) -> bool:
    try:
        return not np.isfinite(float(word))
    except ValueError:
        return False


def _refuse_ambiguous_commas(lines: Lines) -> None:
    """Raise MeshError where commas may be decimal ones, since blanks separate numbers too, and where a field is empty."""
    text = without_comments(lines.characters).tobytes()
    if b"," not in text:
        return
    empty = _EMPTY_FIELD.search(text)
    if empty is not None:
        raise lines.refuse(_line_at(lines, empty.start()), "nothing between two commas, or before one", "write 3 or 6 numbers a line")
    tight, other = _TIGHT_COMMA.search(text), _OTHER_SEPARATOR.search(text)
    if tight is not None and other is not None:
        what = "both commas and blanks stand between numbers"
        remedy = "if the commas are decimal ones, write points (1.5, not 1,5); else separate all numbers alike"
        raise lines.refuse(_line_at(lines, max(tight.start(), other.start())), what, remedy)


def _line_at(lines: Lines, position: int) -> int:
    return int(np.searchsorted(lines.starts, position, side="right")) - 1


def _no_table(where: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> MeshError:
    return MeshError(
        f"{where}: must hold numbers [n,3] (points) or [n,6] (points and normals), "
        f"not {'Python objects' if dtype.hasobject else str(dtype)[:60]} {list(shape)}"
    )
