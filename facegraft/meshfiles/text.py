"""A text file as one array of bytes, cut into lines; shared by the readers of OBJ and XYZ.

The text is processed as a whole, because a loop over lines in Python takes several times as long.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Bytes, Ints
from facegraft.meshfiles.errors import MeshError

SPACE, NEWLINE = 32, 10
AGAIN = "the file is damaged: copy or export it again"
_COMMENT = re.compile(rb"#[^\n]*")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+(?:[eE][-+]?\d+)?")
_COMMAS = re.compile(r"[-+.\deE]+(?:,[-+.\deE]+){2,},?|[-+.\deE]+,")
_FORTRAN = re.compile(r"[-+]?[\d.]+[dD][-+]?\d+")
_AROUND = {'"': "quotation marks", "'": "quotation marks", "|": "bars", "(": "brackets", "[": "brackets", "{": "brackets"}
"""Signs that programs write among numbers, by what they are called."""


def plain_text(data: bytes, where: str, kind: str, export: str) -> bytes:
    """The text with \\n as the only line end, spaces for tabs, a newline at the end, and no byte order mark.

    Raises MeshError for UTF-16 and binary data; `kind` and `export` complete the message ("not an OBJ text file; export
    it again as Wavefront OBJ").
    """
    refuse_utf16(data, where, kind, export)
    if b"\0" in data:
        raise MeshError(f"{where}: binary data, not {kind} text file (nor may it be UTF-16); {export}")
    data = data.removeprefix(BYTE_ORDER_MARK)
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"\t" in data:
        data = data.replace(b"\t", b" ")
    return data if data.endswith(b"\n") else data + b"\n"


def refuse_utf16(data: bytes, where: str, kind: str, export: str) -> None:
    """Raise MeshError for data that starts with the byte order mark of UTF-16; `kind`, `export`: see `plain_text`."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        bits = 32 if data.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")) else 16
        raise MeshError(f"{where}: UTF-{bits} text, not {kind} file of plain text; save it as UTF-8 or ASCII, or {export}")


def no_number(words: str) -> str:
    """What to do about a text that holds something else than numbers: other separators, decimal commas, and signs of other alphabets are usual."""
    if ";" in words:
        return "semicolons separate its numbers: use blanks (and points for decimal commas), or export it again"
    plain = words.split(" ")
    if any(_DECIMAL_COMMA.fullmatch(word) for word in plain):
        return "its numbers have decimal commas: write points (1.5, not 1,5), or export it again with an English locale"
    if any(_COMMAS.fullmatch(word) for word in plain):
        return "commas separate its numbers: use blanks, or export it again"
    if any(_FORTRAN.fullmatch(word) for word in plain):
        return "its exponents are written D, as Fortran does: write E (1.0E+02, not 1.0D+02)"
    if sign := next((letter for letter in words if letter in _AROUND), None):
        return f"there are {_AROUND[sign]} among its numbers: use blanks alone, or export it again"
    if strange := next((letter for letter in words if not letter.isascii()), None):
        name = unicodedata.name(strange, "").lower()
        return f"it holds the sign U+{ord(strange):04X}{f' ({name})' if name else ''}, where plain blanks, digits and - belong: export it again as plain ASCII"
    return AGAIN


def without_comments(characters: Bytes) -> Bytes:
    """The same text with spaces in place of everything from a # to the end of its line."""
    if not (characters == ord("#")).any():
        return characters
    return np.frombuffer(_COMMENT.sub(lambda match: b" " * len(match[0]), characters.tobytes()), np.uint8)


def count_words(characters: Bytes, ends: Ints) -> Ints:
    """Number of words of each line; `ends` are the positions after the lines' newlines."""
    solid = characters > SPACE
    starts = np.flatnonzero(solid & ~np.concatenate([[False], solid[:-1]]))
    return np.diff(np.searchsorted(starts, ends), prepend=0)


@dataclass(frozen=True)
class Lines:
    """A text (see `plain_text`) as bytes: line i is characters[starts[i]:starts[i + 1]], its newline included."""

    where: str
    characters: Bytes
    starts: Ints

    @classmethod
    def of(cls, text: bytes, where: str) -> Self:
        characters = np.frombuffer(text, np.uint8)
        return cls(where, characters, np.concatenate([[0], np.flatnonzero(characters == NEWLINE) + 1]))

    def line(self, i: int) -> str:
        line = self.characters[self.starts[i] : self.starts[i + 1]].tobytes()
        try:
            return line.decode().strip()
        except UnicodeDecodeError:
            return line.decode("latin-1").strip()

    def refuse(self, i: int, what: str, remedy: str) -> MeshError:
        """The error for line i (counted from 0 here, from 1 in the message), which it quotes."""
        quoted = self.line(i)
        return MeshError(
            f"{self.where}: line {i + 1}: {what} ({quoted[:57] + '...' if len(quoted) > 60 else quoted!r}); {remedy}"
        )

    def numbers(
        self, words: bytes, counts: Ints, dtype: type[np.float64] | type[np.int64], lines: Ints, what: str
    ) -> NDArray[Any]:
        """All numbers of these lines, in order; raises MeshError, with the text `what`, for the first line with something else.

        `words` is the text of the lines, `counts` the number of words of each.
        """
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
                    if b"_" in word:  # Python takes 1_000 for a number
                        raise ValueError(word)
                    parse(word)
            except ValueError:
                raise self.refuse(i, what, no_number(self.line(i))) from None
        raise MeshError(f"{self.where}: {what}; {AGAIN}")
