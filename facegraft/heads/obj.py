"""Wavefront OBJ, read for its vertices and polygons alone, in file order.

General mesh libraries split a vertex that carries two texture coordinates and merge or drop others; registered
heads are only usable if vertex i of the file stays vertex i. So `len(vertices)` is the number of `v` lines, always.
Texture coordinates, normals, materials, groups, lines and points are skipped.
Format: Wavefront Advanced Visualizer manual, appendix B1.

The text is handled as one byte array (a published head is 2-4 MB; line by line in Python takes three times as long).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegraft.heads.errors import MeshError
from facegraft.heads.rawmesh import Floats, Ints, RawMesh, pad_polygons, read_bytes
from facegraft.store.remote import Location

_Bytes = NDArray[np.uint8]
_Ints = NDArray[np.int64]

_SPACE, _NEWLINE = 32, 10
_CONTINUED = re.compile(rb"\\\n")
_COMMENT = re.compile(rb"#[^\n]*")
_AFTER_SLASH = re.compile(rb"/[^ \n]*")
_CUT = "the file is probably truncated: copy or export it again"


def read_obj(path: Location, where: str | None = None) -> RawMesh:
    """Read vertices (unit of the file) and polygons of three or four corners.

    Understands vertex colours and weights (ignored), `f a`, `a/b`, `a//c`, `a/b/c`, negative indices, CRLF, comments and
    a last line without newline. Raises MeshError with file and line: unreadable or binary file, no vertices or
    faces, a vertex that is cut short or not finite, a face that names a missing vertex (usually a truncated file),
    or a face of more than four corners.
    """
    return parse_obj(read_bytes(path, where), where or str(path))


def parse_obj(data: bytes, where: str) -> RawMesh:
    """`read_obj` on a file's content; `where` names it in messages."""
    text = _Text.of(data, where)
    vertex_lines, face_lines = text.statements("v"), text.statements("f")
    vertices = _vertices(text, vertex_lines)
    if not len(face_lines):
        raise MeshError(f"{where}: {len(vertices)} vertices but no faces; {_CUT}")
    return RawMesh(vertices, _polygons(text, face_lines, vertex_lines))


def parse_obj_vertices(data: bytes, where: str) -> Floats:
    """The vertices [V, 3] alone, for files whose faces are known; raises MeshError as `read_obj` does."""
    text = _Text.of(data, where)
    return _vertices(text, text.statements("v"))


@dataclass(frozen=True)
class _Text:
    """An OBJ file as bytes: line i is characters[starts[i]:starts[i + 1]], its newline included."""

    where: str
    characters: _Bytes
    starts: _Ints

    @classmethod
    def of(cls, data: bytes, where: str) -> _Text:
        if b"\0" in data:
            raise MeshError(f"{where}: binary data, not an OBJ text file; export it again as Wavefront OBJ")
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\\\n" in data:  # a statement that goes on in the next line: join them (line numbers of messages shift)
            data = _CONTINUED.sub(b" ", data)
        if b"\t" in data:
            data = data.replace(b"\t", b" ")
        if not data.endswith(b"\n"):
            data += b"\n"
        characters = np.frombuffer(data, np.uint8)
        return cls(where, characters, np.concatenate([[0], np.flatnonzero(characters == _NEWLINE) + 1]))

    def statements(self, keyword: str) -> _Ints:
        """Numbers (from 0) of the lines that are a statement with this one-letter keyword."""
        first = self.starts[:-1]
        letter = self.characters[first] == ord(keyword)
        after = self.characters[np.minimum(first + 1, len(self.characters) - 1)]
        found = letter & ((after == _SPACE) | (after == _NEWLINE))
        for i in np.flatnonzero(self.characters[first] == _SPACE):  # indented statements: rare
            found[i] = self.line(int(i)).split(None, 1)[:1] == [keyword]
        return np.flatnonzero(found)

    def line(self, i: int) -> str:
        return self.characters[self.starts[i] : self.starts[i + 1]].tobytes().decode("latin-1").strip()

    def arguments(self, lines: _Ints) -> tuple[bytes, _Ints]:
        """What follows the keyword in these lines, one a line, and how many words each has."""
        breaks = np.flatnonzero(np.diff(lines) != 1) + 1
        runs = zip(lines[np.concatenate([[0], breaks])], lines[np.concatenate([breaks - 1, [-1]])], strict=True)
        chosen = np.concatenate([self.characters[self.starts[a] : self.starts[b + 1]] for a, b in runs])
        ends = np.cumsum(self.starts[lines + 1] - self.starts[lines])
        begins = np.concatenate([[0], ends[:-1]])
        visible = np.flatnonzero(chosen != _SPACE)
        chosen[visible[np.searchsorted(visible, begins)]] = _SPACE  # the keyword, which may be indented
        if (chosen == ord("#")).any():
            chosen = np.frombuffer(_COMMENT.sub(lambda m: b" " * len(m[0]), chosen.tobytes()), np.uint8)
        solid = chosen > _SPACE
        word_starts = np.flatnonzero(solid[1:] & ~solid[:-1]) + 1
        counts = np.diff(np.searchsorted(word_starts, ends), prepend=0)
        return chosen.tobytes(), counts

    def refuse(self, i: int, what: str, remedy: str) -> MeshError:
        quoted = self.line(i)
        return MeshError(
            f"{self.where}: line {i + 1}: {what} ({quoted[:57] + '...' if len(quoted) > 60 else quoted!r}); {remedy}"
        )

    def numbers(
        self, words: bytes, counts: _Ints, dtype: type[np.float64] | type[np.int64], lines: _Ints, what: str
    ) -> NDArray[Any]:
        """All numbers, in order; where that fails, the words are tried one by one for the message."""
        try:
            values: NDArray[Any] = np.fromstring(words, dtype=dtype, sep=" ")
        except ValueError:
            values = np.empty(0)
        if len(values) == counts.sum():
            return values
        parse = int if dtype is np.int64 else float
        for i, row in zip(lines.tolist(), words.split(b"\n"), strict=False):
            try:
                for word in row.split():
                    parse(word)
            except ValueError:
                raise self.refuse(i, what, "the file is damaged: copy or export it again") from None
        raise MeshError(f"{self.where}: {what}; the file is damaged: copy or export it again")


def _vertices(text: _Text, lines: _Ints) -> Floats:
    if not len(lines):
        raise MeshError(f"{text.where}: no vertices (no line starts with 'v '); is this an OBJ file, and is it whole?")
    words, counts = text.arguments(lines)
    short = np.flatnonzero(counts < 3)
    if len(short):
        raise text.refuse(int(lines[short[0]]), f"a vertex with {counts[short[0]]} coordinates instead of 3", _CUT)
    flat = text.numbers(words, counts, np.float64, lines, "a vertex coordinate is not a number")
    vertices: Floats = flat[
        (np.cumsum(counts) - counts)[:, None] + np.arange(3)
    ]  # colours and weights follow the first three
    bad = np.flatnonzero(~np.isfinite(vertices).all(axis=1))
    if len(bad):
        what = (
            f"vertex {bad[0]} is not finite, nor are {len(bad) - 1} others"
            if len(bad) > 1
            else f"vertex {bad[0]} is not finite"
        )
        raise text.refuse(int(lines[bad[0]]), what, "repair or leave out this mesh")
    return vertices


def _polygons(text: _Text, lines: _Ints, vertex_lines: _Ints) -> Ints:
    words, counts = text.arguments(lines)
    odd = np.flatnonzero((counts < 3) | (counts > 4))
    if len(odd):
        i, n = int(lines[odd[0]]), counts[odd[0]]
        if n < 3:
            raise text.refuse(i, f"a face with {n} corners", _CUT)
        remedy = "faces must be triangles or quads: triangulate the mesh on export, keeping its vertices"
        raise text.refuse(i, f"a face with {n} corners", remedy)
    if b"/" in words:
        words = _AFTER_SLASH.sub(b"", words)
    corners = text.numbers(words, counts, np.int64, lines, "a face corner is not a vertex index")
    face = np.repeat(np.arange(len(lines)), counts)
    if (corners < 0).any():  # counted back from the vertices read so far
        before = np.searchsorted(vertex_lines, lines)[face]
        corners = np.where(corners < 0, np.maximum(corners + before + 1, 0), corners)
    wrong = np.flatnonzero((corners < 1) | (corners > len(vertex_lines)))
    if len(wrong):
        what = f"a face names a vertex that does not exist (there are {len(vertex_lines)})"
        raise text.refuse(int(lines[face[wrong[0]]]), what, _CUT)
    return pad_polygons(corners - 1, counts)
