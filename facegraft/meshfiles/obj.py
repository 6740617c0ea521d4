"""Wavefront OBJ, read for its vertices and polygons (and, for scans, its normals), in file order.

General mesh libraries split a vertex that has two texture coordinates and merge or drop others; registered
heads are only usable if vertex i of the file stays vertex i. So `len(vertices)` is always the number of `v` lines.
Texture coordinates, materials, groups, lines and points are skipped.
Format: Wavefront Advanced Visualizer manual, appendix B1.
"""

from __future__ import annotations

import re

import numpy as np

from facegraft.arrays import Floats, Ints
from facegraft.meshfiles.errors import MeshError
from facegraft.meshfiles.rawmesh import HEAD, Accepts, RawMesh, read_bytes, to_polygons
from facegraft.meshfiles.text import AGAIN, NEWLINE, SPACE, Lines, count_words, no_number, plain_text, without_comments
from facegraft.store.remote import Location

_CONTINUED = re.compile(rb"\\\n")
_AFTER_SLASH = re.compile(rb"/[^\x00-\x20]*")
_CORNER = re.compile(rb"[^\x00-\x20/]+(?:/[^\x00-\x20/]*(?:/([^\x00-\x20/]*))?)?[^\x00-\x20]*")  # v, v/t, v//n, v/t/n
_LOOKALIKE = re.compile(rb"[\x80-\xff\s]*[vVfF][\s,;:=\x80-\xff]*[-+.\d]")
_LOOKALIKES, _CAPITALS = np.frombuffer(b"vVfF", np.uint8), np.frombuffer(b"VF", np.uint8)
_LETTER = np.array([chr(i).isalpha() and i < 128 for i in range(256)])
_CUT = "the file is probably truncated: copy or export it again"


def read_obj(path: Location, where: str | None = None, accepts: Accepts = HEAD) -> RawMesh:
    """Read vertices (unit of the file) and polygons; `accepts` says which other content is read or refused.

    Understands vertex colours and weights (ignored), `f a`, `a/b`, `a//c`, `a/b/c`, negative indices, continued lines,
    CRLF, comments, a byte order mark and a last line without newline. The normal of a vertex is the sum of its corners' normals; a file
    without faces has one normal per vertex. Raises MeshError with file and line: unreadable, binary or UTF-16 file, no
    vertices or (unless accepted) no faces, a vertex or normal that is cut short or not finite, a face that names a missing
    vertex (usually a truncated file), a line that only looks like a vertex or face (`V 1 2 3`, a no-break space after `v`), which
    would shift all that follow, or (unless accepted) a face of more than four corners.
    """
    return parse_obj(read_bytes(path, where), where or str(path), accepts)


def parse_obj(data: bytes, where: str, accepts: Accepts = HEAD) -> RawMesh:
    """`read_obj` on a file's content; `where` names it in messages."""
    text = _Statements.of(_plain(data, where), where)
    text.refuse_lookalikes()
    vertex_lines, face_lines = text.statements("v"), text.statements("f")
    vertices = _vertices(text, vertex_lines)
    if not len(face_lines):
        if not accepts.clouds:
            raise MeshError(f"{where}: {len(vertices)} vertices but no faces; {_CUT}")
        normals = _all_normals(text) if accepts.normals else None
        return RawMesh(
            vertices,
            np.empty((0, 4), dtype=np.int32),
            normals if normals is not None and len(normals) == len(vertices) else None,
        )
    words, counts = text.arguments(face_lines, "f")
    corners = _corners(text, words, counts, face_lines, vertex_lines, accepts)
    normals = _corner_normals(text, words, counts, face_lines, corners, len(vertices)) if accepts.normals else None
    return RawMesh(vertices, to_polygons(corners, counts), normals)


def parse_obj_vertices(data: bytes, where: str) -> Floats:
    """The vertices [V, 3] alone, for files whose faces are known; raises MeshError as `read_obj` does."""
    text = _Statements.of(_plain(data, where), where)
    text.refuse_lookalikes()
    return _vertices(text, text.statements("v"))


def _plain(data: bytes, where: str) -> bytes:
    text = plain_text(data, where, "an OBJ", "export it again as Wavefront OBJ")
    if b"\\\n" in text:  # a statement that continues on the next line: join the lines (line numbers in messages shift)
        text = _CONTINUED.sub(b" ", text)
    return text if text.endswith(b"\n") else text + b"\n"


class _Statements(Lines):
    """The lines of an OBJ file as statements: a keyword and its arguments."""

    def statements(self, keyword: str) -> Ints:
        """Numbers (from 0) of the lines that are a statement with this keyword."""
        first, last = self.starts[:-1], len(self.characters) - 1
        found = np.ones(len(first), dtype=bool)
        for i, letter in enumerate(keyword):
            found &= self.characters[np.minimum(first + i, last)] == ord(letter)
        after = self.characters[np.minimum(first + len(keyword), last)]
        found &= (after == SPACE) | (after == NEWLINE)
        for number in np.flatnonzero(self.characters[first] == SPACE):  # indented statements: rare
            found[number] = self.line(int(number)).split(None, 1)[:1] == [keyword]
        return np.flatnonzero(found)

    def refuse_lookalikes(self) -> None:
        """Raise MeshError for a line that looks like a vertex or a face and is none: without it, all later ones would shift."""
        first, last = self.starts[:-1], len(self.characters) - 1
        letter, after = self.characters[first], self.characters[np.minimum(first + 1, last)]
        known = _LETTER[after] | (after == SPACE) | (after == NEWLINE)
        odd = np.isin(letter, _LOOKALIKES) & ~known | np.isin(letter, _CAPITALS) & (after == SPACE)
        odd |= (letter > 127) | ((letter < SPACE) & (letter != NEWLINE))
        for number in np.flatnonzero(odd).tolist():
            line = self.characters[self.starts[number] : self.starts[number + 1]].tobytes()
            if _LOOKALIKE.match(line):
                what = "looks like a vertex or a face, but its first word is not v or f and a blank"
                raise self.refuse(number, what, "write `v x y z` and `f a b c`, with plain blanks, or export it again")

    def arguments(self, lines: Ints, keyword: str) -> tuple[bytes, Ints]:
        """The arguments after the keyword in these lines, one statement per line, and the number of words of each."""
        breaks = np.flatnonzero(np.diff(lines) != 1) + 1
        runs = zip(lines[np.concatenate([[0], breaks])], lines[np.concatenate([breaks - 1, [-1]])], strict=True)
        chosen = np.concatenate([self.characters[self.starts[a] : self.starts[b + 1]] for a, b in runs])
        ends = np.cumsum(self.starts[lines + 1] - self.starts[lines])
        begins = np.concatenate([[0], ends[:-1]])
        visible = np.flatnonzero(chosen != SPACE)
        at = visible[np.searchsorted(visible, begins)]  # the keyword's position: it may be indented
        for i in range(len(keyword)):
            chosen[at + i] = SPACE
        chosen = without_comments(chosen)
        return chosen.tobytes(), count_words(chosen, ends)


def _vertices(text: _Statements, lines: Ints) -> Floats:
    if not len(lines):
        raise MeshError(f"{text.where}: no vertices (no line starts with 'v '); is this an OBJ file, and is it whole?")
    return _triples(text, lines, "v", "vertex")


def _triples(text: _Statements, lines: Ints, keyword: str, what: str) -> Floats:
    """The first three numbers [n, 3] of these statements (a vertex's colours and weights follow them)."""
    words, counts = text.arguments(lines, keyword)
    short = np.flatnonzero(counts < 3)
    if len(short):
        line = int(lines[short[0]])
        words_of_line = text.line(line).split(None, 1)[1:]
        remedy = no_number(words_of_line[0]) if words_of_line else AGAIN
        raise text.refuse(line, f"a {what} with {counts[short[0]]} coordinates instead of 3", _CUT if remedy == AGAIN else remedy)
    flat = text.numbers(words, counts, np.float64, lines, f"a {what} coordinate is not a number")
    triples: Floats = flat[(np.cumsum(counts) - counts)[:, None] + np.arange(3)]
    bad = np.flatnonzero(~np.isfinite(triples).all(axis=1))
    if len(bad):
        others = f", nor are {len(bad) - 1} others" if len(bad) > 1 else ""
        raise text.refuse(int(lines[bad[0]]), f"{what} {bad[0]} is not finite{others}", "repair or leave out this mesh")
    return triples


def _corners(text: _Statements, words: bytes, counts: Ints, lines: Ints, vertex_lines: Ints, accepts: Accepts) -> Ints:
    """The vertices (from 0) that the faces name, in order."""
    odd = np.flatnonzero((counts < 3) | ((counts > 4) & (not accepts.fans)))
    if len(odd):
        i, n = int(lines[odd[0]]), counts[odd[0]]
        if n < 3:
            raise text.refuse(i, f"a face with {n} corners", _CUT)
        remedy = "faces must be triangles or quads: triangulate the mesh on export, keeping its vertices"
        raise text.refuse(i, f"a face with {n} corners", remedy)
    if b"/" in words:
        words = _AFTER_SLASH.sub(b"", words)
    corners = text.numbers(words, counts, np.int64, lines, "a face corner is not a vertex index")
    return _from_zero(text, corners, np.repeat(lines, counts), vertex_lines, "vertex")


def _from_zero(text: _Statements, index: Ints, lines: Ints, defining: Ints, what: str) -> Ints:
    """Indices from 0, from the file's indices: these count from 1 or, if negative, back from the last `defining` line so far."""
    if (index < 0).any():
        before = np.searchsorted(defining, lines)
        index = np.where(index < 0, np.maximum(index + before + 1, 0), index)
    wrong = np.flatnonzero((index < 1) | (index > len(defining)))
    if len(wrong):
        from_zero = index.min() == 0 and index.max() < len(defining)
        raise text.refuse(
            int(lines[wrong[0]]),
            f"a face names a {what} that does not exist (there are {len(defining)})",
            "its faces count from 0, but an OBJ file counts from 1: export it again" if from_zero else _CUT,
        )
    return index - 1


def _all_normals(text: _Statements) -> Floats | None:
    lines = text.statements("vn")
    return _triples(text, lines, "vn", "normal") if len(lines) else None


def _corner_normals(
    text: _Statements, words: bytes, counts: Ints, lines: Ints, corners: Ints, vertex_count: int
) -> Floats | None:
    """For each vertex the sum [V, 3] of the normals that its corners name; None where no corner names one."""
    named = [match[1] for match in _CORNER.finditer(words)] if b"/" in words else []
    has = np.array([bool(word) for word in named], dtype=bool)
    if not has.any():
        return None
    if len(has) != len(corners):
        raise MeshError(f"{text.where}: a face corner is not understood; {AGAIN}")
    defining = text.statements("vn")
    line = np.repeat(lines, counts)[has]
    given = b"\n".join(word for word in named if word)
    index = text.numbers(
        given, np.ones(len(line), dtype=np.int64), np.int64, line, "a face corner's normal is not an index"
    )
    index = _from_zero(text, index, line, defining, "normal")
    total = np.zeros((vertex_count, 3))
    np.add.at(total, corners[has], _triples(text, defining, "vn", "normal")[index])
    return total
