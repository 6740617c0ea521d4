"""Names of subjects, expressions and heads: from folder names to index columns and item keys."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

from facegraft.heads.errors import SourceError

_NUMBERED = re.compile(r"(\d+)_(\w.*)")
_UNDERSCORES = re.compile("_+")
_LONGEST = 80
"""Longest clean name: a key holds two, a subject's and an expression's."""
_DIGITS = re.compile(r"(\d+)")


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which s2 comes before s10; names equal up to leading zeros are ordered by their text."""
    parts = _DIGITS.split(name)
    return (*((0, int(p), "") if i % 2 else (1, 0, p) for i, p in enumerate(parts)), (2, 0, name))


def clean_name(name: str) -> str:
    """The name in ASCII letters, digits and single underscores; it depends on the name alone.

    Other ASCII characters, blanks, punctuation and invisible characters become underscores; every other character outside ASCII
    becomes `u` and its code point (Müller → M_u00fc_ller), after composition (NFC), so that names that differ in a letter stay
    different. Where nothing would be left, all characters become code points. Beyond 80 characters a hash takes the place of the end.
    """
    composed = name if name.isascii() else unicodedata.normalize("NFC", name)
    clean = _UNDERSCORES.sub("_", "".join(map(_in_ascii, composed))).strip("_")
    clean = clean or "_".join(f"u{ord(letter):04x}" for letter in composed)
    if len(clean) <= _LONGEST:
        return clean
    return f"{clean[: _LONGEST - 16].rstrip('_')}_{hashlib.sha256(composed.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def _in_ascii(letter: str) -> str:
    if letter.isascii():
        return letter if letter.isalnum() else "_"
    category = unicodedata.category(letter)
    return "_" if category[0] in "ZP" or category in ("Cc", "Cf") else f"_u{ord(letter):04x}_"


def split_number(stem: str) -> tuple[int | None, str]:
    """`12_lip_puckerer` → (12, "lip_puckerer"); a name without a number → (None, name)."""
    match = _NUMBERED.fullmatch(stem)
    return (int(match[1]), match[2]) if match else (None, stem)


def head_key(subject: str, number: int | None, expression: str) -> str:
    """Item key of a head: `<subject>_e<NN>`, or `<subject>_<expression>` where the expression has no number."""
    return f"{subject}_{expression}" if number is None else f"{subject}_e{number:02d}"


def clean_names(names: Iterable[str], what: str, where: str) -> dict[str, str]:
    """Clean name by raw name. Raises SourceError where two names become equal or a name is empty."""
    clean: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in sorted(set(names), key=natural_key):
        new = clean_name(name)
        if not new:
            raise SourceError(f"{where}: a {what} has an empty name")
        if new in taken:
            raise SourceError(
                f"{where}: {what}s {taken[new]!r} and {name!r} would both be called {new!r}; rename one of them"
            )
        clean[name] = new
        taken[new] = name
    return clean
