"""PLY (ASCII, binary little and big endian), read for its vertices and polygons alone, in file order.

Elements and properties other than the vertices' x, y, z and the faces' corner list are stepped over.
Format: G. Turk, "The PLY Polygon File Format", 1994.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegraft.heads.errors import MeshError
from facegraft.heads.rawmesh import RawMesh, pad_polygons, read_bytes
from facegraft.store.remote import Location

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_CORNER_LISTS = ("vertex_indices", "vertex_index")


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


def read_ply(path: Location, where: str | None = None) -> RawMesh:
    """Read vertices (unit of the file) and polygons of three or four corners.

    Raises MeshError naming the file: unreadable, not a PLY file, truncated, no vertices or faces, a vertex that is not
    finite, a corner outside the vertices, or a face of more than four corners.
    """
    where = where or str(path)
    data = read_bytes(path, where)
    encoding, elements, start = _header(data, where)
    columns: dict[str, NDArray[np.float64]] = {}
    corners = counts = None
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
    if not {"x", "y", "z"} <= columns.keys() or not len(columns["x"]):
        raise MeshError(f"{where}: the PLY file has no vertices with x, y and z")
    if corners is None or counts is None or not len(counts):
        raise MeshError(f"{where}: the PLY file has no faces (a point cloud?); a registered head needs its faces")
    vertices = np.column_stack([columns[axis] for axis in "xyz"]).astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(vertices).all(axis=1))
    if len(bad):
        raise MeshError(
            f"{where}: vertex {bad[0]} is not finite ({len(bad)} such vertices); repair or leave out this mesh"
        )
    odd = np.flatnonzero((counts < 3) | (counts > 4))
    if len(odd):
        raise MeshError(
            f"{where}: face {odd[0]} has {counts[odd[0]]} corners; faces must be triangles or quads: "
            "triangulate the mesh on export, keeping its vertices"
        )
    if corners.min() < 0 or corners.max() >= len(vertices):
        worst = corners.min() if corners.min() < 0 else corners.max()
        raise MeshError(
            f"{where}: a face names vertex {worst}, but the file has {len(vertices)} vertices; the file is damaged"
        )
    return RawMesh(vertices, pad_polygons(corners, counts))


def _header(data: bytes, where: str) -> tuple[str, list[_Element], int]:
    end = data.find(b"end_header")
    newline = data.find(b"\n", end)
    if not data.startswith(b"ply") or end < 0 or newline < 0:
        raise MeshError(f"{where}: not a PLY file, or one whose header is cut off")
    encoding, elements = "", list[_Element]()
    try:
        for line in data[:end].decode("ascii", "replace").splitlines()[1:]:
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
                elements[-1].properties.append(_Property(words[4], _TYPES[words[3]], _TYPES[words[2]]))
            elif words[0] == "property":
                elements[-1].properties.append(_Property(words[2], _TYPES[words[1]]))
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
    return encoding, elements, newline + 1


_Lists = dict[str, tuple[NDArray[Any], NDArray[np.int64]]]  # name -> flat values, how many a row
_Scalars = dict[str, NDArray[np.float64]]


class _Text:
    """ASCII body: all numbers at once, then taken row by row where rows differ in length."""

    def __init__(self, body: bytes, where: str) -> None:
        self.where = where
        try:
            self.numbers = np.fromstring(body, dtype=np.float64, sep=" ") if body.strip() else np.empty(0)
        except ValueError:
            raise MeshError(
                f"{where}: the PLY body holds something that is not a number; the file is damaged"
            ) from None
        self.at = 0

    def take(self, n: int) -> NDArray[np.float64]:
        if n > len(self.numbers) - self.at:
            raise MeshError(f"{self.where}: the PLY file ends too early (truncated): copy or export it again")
        self.at += n
        return self.numbers[self.at - n : self.at]

    def read(self, element: _Element) -> tuple[_Lists, _Scalars]:
        if not any(p.count_type for p in element.properties):
            table = self.take(element.count * len(element.properties)).reshape(element.count, len(element.properties))
            return {}, {p.name: table[:, i] for i, p in enumerate(element.properties)}
        return _row_by_row(element, lambda _type, n: self.take(n), self.where)


class _Binary:
    """Binary body: one structured read where every row has the same length, else row by row."""

    def __init__(self, body: bytes, where: str, order: str) -> None:
        self.body, self.where, self.order, self.at = body, where, order, 0

    def take(self, kind: str | np.dtype[Any], n: int) -> NDArray[Any]:
        dtype: np.dtype[Any] = np.dtype(self.order + kind) if isinstance(kind, str) else kind
        if self.at + n * dtype.itemsize > len(self.body):
            raise MeshError(f"{self.where}: the PLY file ends too early (truncated): copy or export it again")
        values = np.frombuffer(self.body, dtype, n, self.at)
        self.at += n * dtype.itemsize
        return values

    def read(self, element: _Element) -> tuple[_Lists, _Scalars]:
        lists = [p for p in element.properties if p.count_type]
        if not element.count:
            return {}, {p.name: np.empty(0) for p in element.properties if not p.count_type}
        if not lists:
            layout = np.dtype([(p.name, self.order + p.type) for p in element.properties])
            table = self.take(layout, element.count)
            return {}, {p.name: table[p.name] for p in element.properties}
        if len(element.properties) == 1:  # the usual face list: try all rows as long as the first
            only = lists[0]
            start = self.at
            length = _length(self.take(str(only.count_type), 1)[0], self.where)
            self.at = start
            row_bytes = np.dtype(only.count_type).itemsize + length * np.dtype(only.type).itemsize
            if element.count * row_bytes <= len(self.body) - self.at:
                layout = np.dtype(
                    [("n", self.order + str(only.count_type)), ("values", self.order + only.type, (length,))]
                )
                rows = np.frombuffer(self.body, layout, element.count, self.at)
                if (rows["n"] == length).all():
                    self.at += element.count * layout.itemsize
                    return {only.name: (rows["values"].ravel(), rows["n"].astype(np.int64))}, {}
        return _row_by_row(element, self.take, self.where)


def _row_by_row(element: _Element, take: Callable[[str, int], NDArray[Any]], where: str) -> tuple[_Lists, _Scalars]:
    """Rows of varying length; `take(type, n)` gives the next n numbers. Packed as they come: a row may be one byte of the file."""
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


def _length(number: float, where: str) -> int:
    """The length of a row's list; a file may give it in any type."""
    if not 0 <= number < 2**32 or number != int(number):
        raise MeshError(f"{where}: a row's list has length {number:g} in the PLY file; the file is damaged")
    return int(number)


def _whole(corners: NDArray[Any], where: str) -> NDArray[np.int64]:
    """The corners as integers, whatever type the file gives them in."""
    if (
        corners.dtype.kind == "f"
        and not (np.isfinite(corners) & (corners == np.trunc(corners)) & (np.abs(corners) < 2**53)).all()
    ):
        raise MeshError(f"{where}: a face names a vertex by something that is no whole number; the PLY file is damaged")
    return corners.astype(np.int64)
