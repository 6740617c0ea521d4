"""PLY (ASCII, binary little and big endian), read for its vertices, polygons and (for scans) normals, in file order.

Elements and properties other than the vertices' x, y, z (nx, ny, nz) and the faces' corner list are skipped.
Format: G. Turk, "The PLY Polygon File Format", 1994.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Floats
from facegraft.meshfiles.errors import MeshError
from facegraft.meshfiles.rawmesh import HEAD, Accepts, RawMesh, read_bytes, to_polygons
from facegraft.meshfiles.text import BYTE_ORDER_MARK, no_number, refuse_utf16
from facegraft.store.remote import Location

TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
"""numpy's name of each scalar type that a PLY header may name."""

_CORNER_LISTS = ("vertex_indices", "vertex_index")
_LONGEST_HEADER = 1 << 20
_LINE = re.compile(rb"([^\r\n]*)(\r\n|\n|\r)")


@dataclass
class _Property:
    name: str
    type: str
    count_type: str | None = None  # a list when set


@dataclass
class _Element:
    name: str
    count: int
    properties: list[_Property] = field(default_factory=list)


def read_ply(path: Location, where: str | None = None, accepts: Accepts = HEAD) -> RawMesh:
    """Read vertices (unit of the file) and polygons; `accepts` says which other content is read or refused.

    The header's lines may end in LF, CRLF or CR. Raises MeshError naming the file: unreadable, not a PLY file, truncated,
    more numbers than the header says, no vertices or (unless accepted) no faces, faces without a list of corners, a vertex or normal that is not finite, a corner outside the vertices, a face of fewer than three corners or (unless
    accepted) of more than four.
    """
    where = where or str(path)
    data = read_bytes(path, where).removeprefix(BYTE_ORDER_MARK)
    encoding, elements, start = _header(data, where)
    columns: dict[str, NDArray[np.float64]] = {}
    corners, counts = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    source: _Text | _Binary = (
        _Text(data[start:], where) if encoding == "ascii" else _Binary(data[start:], where, encoding)
    )
    for element in elements:
        lists, scalars = source.read(element)
        if element.name == "vertex":
            columns = scalars
        for name in _CORNER_LISTS:
            if element.name == "face" and name in lists:
                corners, counts = _whole(lists[name][0], where), lists[name][1]
        if element.name == "face" and element.count and not set(_CORNER_LISTS) & set(lists):
            there = ", ".join(p.name[:60] for p in element.properties)
            raise MeshError(
                f"{where}: no faces can be read: they have no list {' or '.join(_CORNER_LISTS)} (there is {there}); rename the list of their corners"
            )
    source.refuse_surplus(elements)
    vertices = _triples(columns, "xyz", "vertex", where)
    if vertices is None and columns and len(next(iter(columns.values()))):
        raise MeshError(
            f"{where}: the PLY file's vertices have no x, y and z (there is {', '.join(name[:60] for name in columns)}); rename their coordinates"
        )
    if vertices is None or not len(vertices):
        raise MeshError(f"{where}: the PLY file has no vertices with x, y and z; is this a mesh, and is it whole?")
    if not len(counts) and not accepts.clouds:
        raise MeshError(f"{where}: the PLY file has no faces (a point cloud?); a registered head needs its faces")
    _check_faces(corners, counts, len(vertices), where, accepts)
    normals = _triples(columns, ("nx", "ny", "nz"), "normal", where) if accepts.normals else None
    return RawMesh(vertices, to_polygons(corners, counts), normals)


def _triples(columns: dict[str, NDArray[Any]], names: Iterable[str], what: str, where: str) -> Floats | None:
    """Three columns side by side [n, 3], all finite; None where one is missing."""
    if not set(names) <= columns.keys():
        return None
    with np.errstate(invalid="ignore"):  # numbers that are none are refused below
        triples = np.column_stack([columns[name] for name in names]).astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(triples).all(axis=1))
    if len(bad):
        raise MeshError(
            f"{where}: {what} {bad[0]} is not finite ({len(bad)} of {len(triples)}); repair or leave out this mesh"
        )
    return triples


def _check_faces(
    corners: NDArray[np.int64], counts: NDArray[np.int64], vertex_count: int, where: str, accepts: Accepts
) -> None:
    odd = np.flatnonzero((counts < 3) | ((counts > 4) & (not accepts.fans)))
    if len(odd):
        n = counts[odd[0]]
        remedy = (
            "the file is damaged: copy or export it again"
            if n < 3
            else "faces must be triangles or quads: triangulate the mesh on export, keeping its vertices"
        )
        raise MeshError(f"{where}: face {odd[0]} has {n} corners; {remedy}")
    if len(corners) and (corners.min() < 0 or corners.max() >= vertex_count):
        worst = corners.min() if corners.min() < 0 else corners.max()
        from_one = corners.min() == 1 and corners.max() == vertex_count
        remedy = "its faces count from 1, but a PLY file counts from 0: export it again" if from_one else "the file is damaged: copy or export it again"
        raise MeshError(f"{where}: a face names vertex {worst}, but the file has {vertex_count} vertices; {remedy}")


def _header(data: bytes, where: str) -> tuple[str, list[_Element], int]:
    refuse_utf16(data, where, "a PLY", "export it again as PLY")
    lines, start = _header_lines(data)
    if not start:
        raise MeshError(f"{where}: not a PLY file, or one whose header is cut off")
    encoding, elements = "", list[_Element]()
    try:
        for line in lines:
            words = line.split()
            if not words or words[0] in ("comment", "obj_info"):
                continue
            if words[0] == "format":
                encoding = {"ascii": "ascii", "binary_little_endian": "<", "binary_big_endian": ">"}[words[1]]
            elif words[0] == "element":
                elements.append(_Element(words[1], int(words[2])))
                if elements[-1].count < 0:
                    raise ValueError(line)
            elif words[0] == "property" and words[1] == "list":
                elements[-1].properties.append(_Property(words[4], TYPES[words[3]], TYPES[words[2]]))
            elif words[0] == "property":
                elements[-1].properties.append(_Property(words[2], TYPES[words[1]]))
            else:
                raise ValueError(line)
    except (KeyError, IndexError, ValueError):
        raise MeshError(f"{where}: PLY header line not understood: {line.strip()[:60]!r}") from None
    if not encoding:
        raise MeshError(f"{where}: the PLY header names no format")
    for element in elements:
        names = [p.name for p in element.properties]
        if len(set(names)) < len(names) or (element.count and not names):
            what = "a property twice" if names else f"{element.count} rows but no property"
            raise MeshError(f"{where}: the PLY header gives element {element.name[:60]!r} {what}; the file is damaged")
    return encoding, elements, start


def _header_lines(data: bytes) -> tuple[list[str], int]:
    """The lines between `ply` and `end_header`, and where the body starts: 0 where this is no header."""
    first = _LINE.match(data)
    if first is None or first[1].strip() != b"ply":
        return [], 0
    lines, at = list[str](), first.end()
    while at < _LONGEST_HEADER and (line := _LINE.match(data, at)):
        at = line.end()
        if line[1].strip() == b"end_header":
            # After lines that end in CR, a byte LF is the body's first.
            return lines, at - (first[2] == b"\r" and line[2] == b"\r\n")
        lines.append(line[1].decode("ascii", "replace"))
    return [], 0


_Lists = dict[str, tuple[NDArray[Any], NDArray[np.int64]]]  # name -> flat values, values per row
_Scalars = dict[str, NDArray[Any]]


class _Text:
    """ASCII body: all numbers at once; one table where every row has the same length, else row by row."""

    def __init__(self, body: bytes, where: str) -> None:
        self.where = where
        try:
            self.numbers = np.fromstring(body, dtype=np.float64, sep=" ") if body.strip() else np.empty(0)
        except ValueError:
            words = body.split()
            odd = next((word for word in words if not _is_number(word)), b"").decode("latin-1")
            raise MeshError(
                f"{where}: the PLY body holds something that is not a number ({odd[:60]!r}); {no_number(odd)}"
            ) from None
        self.at = 0

    def take(self, _kind: str, n: int) -> NDArray[np.float64]:
        if n > len(self.numbers) - self.at:
            raise MeshError(f"{self.where}: the PLY file ends too early (truncated): copy or export it again")
        self.at += n
        return self.numbers[self.at - n : self.at]

    def refuse_surplus(self, _elements: list[_Element]) -> None:
        """Raise MeshError where numbers are left: the rows are longer than the header says, so that those read are others."""
        if left := len(self.numbers) - self.at:
            raise MeshError(
                f"{self.where}: {left} more numbers in the PLY body than its header says; the header must name every column: export it again"
            )

    def read(self, element: _Element) -> tuple[_Lists, _Scalars]:
        if not element.count:
            return _no_rows(element)
        start, lengths = self.at, _first_lengths(element, self.take, self.where)
        row = self.at - start
        self.at = start
        if lengths and element.count * row > len(self.numbers) - start:  # shorter rows may follow, or the file end
            return _row_by_row(element, self.take, self.where)
        table = self.take("", element.count * row).reshape(element.count, row)
        lists, scalars, column = _Lists(), _Scalars(), 0
        for p in element.properties:
            if p.count_type is None:
                scalars[p.name] = table[:, column]
                column += 1
                continue
            length = lengths[p.name]
            if (table[:, column] != length).any():
                self.at = start
                return _row_by_row(element, self.take, self.where)
            values = table[:, column + 1 : column + 1 + length]
            lists[p.name] = values.ravel(), np.full(element.count, length)
            column += 1 + length
        return lists, scalars


class _Binary:
    """Binary body: one structured read where every row has the same length, else row by row."""

    def __init__(self, body: bytes, where: str, order: str) -> None:
        self.body, self.where, self.order, self.at = body, where, order, 0

    def take(self, kind: str, n: int) -> NDArray[Any]:
        dtype = np.dtype(self.order + kind)
        if n * dtype.itemsize > len(self.body) - self.at:
            raise MeshError(f"{self.where}: the PLY file ends too early (truncated): copy or export it again")
        values = np.frombuffer(self.body, dtype, n, self.at)
        self.at += n * dtype.itemsize
        return values

    def refuse_surplus(self, elements: list[_Element]) -> None:
        """Raise MeshError where so many bytes are left that rows may be longer than the header says; a few after the end do no harm."""
        left, rows = len(self.body) - self.at, max((element.count for element in elements), default=0)
        if rows and left >= rows:
            raise MeshError(
                f"{self.where}: {left} more bytes in the PLY body than its header says; the header must name every column: export it again"
            )

    def read(self, element: _Element) -> tuple[_Lists, _Scalars]:
        if not element.count:
            return _no_rows(element)
        start, lengths = self.at, _first_lengths(element, self.take, self.where)
        row = self.at - start
        self.at = start
        if element.count * row > len(self.body) - start:  # checked before the layout is made: a row may claim gigabytes
            if lengths:
                return _row_by_row(element, self.take, self.where)
            raise MeshError(f"{self.where}: the PLY file ends too early (truncated): copy or export it again")
        layout: list[Any] = []
        for p in element.properties:
            if p.count_type is None:
                layout.append((p.name, self.order + p.type))
            else:
                layout += [
                    (f"count of {p.name}", self.order + p.count_type),  # no name in a header holds a space
                    (p.name, self.order + p.type, (lengths[p.name],)),
                ]
        table = np.frombuffer(self.body, np.dtype(layout), element.count, start)
        if any((table[f"count of {name}"] != length).any() for name, length in lengths.items()):
            return _row_by_row(element, self.take, self.where)
        self.at = start + element.count * row
        counts = {name: np.full(element.count, length) for name, length in lengths.items()}
        return (
            {name: (table[name].ravel(), counts[name]) for name in lengths},
            {p.name: table[p.name] for p in element.properties if p.count_type is None},
        )


_Take = Callable[[str, int], NDArray[Any]]


def _no_rows(element: _Element) -> tuple[_Lists, _Scalars]:
    nothing = np.empty(0)
    return (
        {p.name: (nothing, np.empty(0, dtype=np.int64)) for p in element.properties if p.count_type is not None},
        {p.name: nothing for p in element.properties if p.count_type is None},
    )


def _first_lengths(element: _Element, take: _Take, where: str) -> dict[str, int]:
    """Length of each list of the first row; `take` is then past that row. In most files all rows are alike."""
    lengths: dict[str, int] = {}
    for p in element.properties:
        if p.count_type is not None:
            lengths[p.name] = _length(take(p.count_type, 1)[0], where)
        take(p.type, lengths.get(p.name, 1))
    return lengths


def _row_by_row(element: _Element, take: _Take, where: str) -> tuple[_Lists, _Scalars]:
    """Rows of varying length; `take(type, n)` gives the next n numbers. Packed while reading: a row may be one byte of the file."""
    values = {p.name: array("d") for p in element.properties}
    lengths = {p.name: array("q") for p in element.properties if p.count_type}
    for _ in range(element.count):
        for p in element.properties:
            n = 1
            if p.count_type:
                n = _length(take(p.count_type, 1)[0], where)
                lengths[p.name].append(n)
            values[p.name].extend(take(p.type, n).tolist())
    flat = {name: np.array(packed, np.float64) for name, packed in values.items()}
    return (
        {name: (flat[name], np.array(packed, np.int64)) for name, packed in lengths.items()},
        {name: numbers for name, numbers in flat.items() if name not in lengths},
    )


def _is_number(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _length(number: float, where: str) -> int:
    """The length of a row's list, which a file may store in any type."""
    if not 0 <= number < 2**32 or number != int(number):
        raise MeshError(f"{where}: a row's list has length {number:g} in the PLY file; it is damaged, or its header does not name every column of the rows before")
    return int(number)


def _whole(corners: NDArray[Any], where: str) -> NDArray[np.int64]:
    """The corners as integers; a file may store them in any type."""
    if (
        corners.dtype.kind == "f"
        and not (np.isfinite(corners) & (corners == np.trunc(corners)) & (np.abs(corners) < 2**53)).all()
    ):
        raise MeshError(f"{where}: a face names a vertex by something that is no whole number; the PLY file is damaged")
    return corners.astype(np.int64)
