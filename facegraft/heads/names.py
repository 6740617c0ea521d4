"""Names of subjects, expressions and heads: from folder names to index columns and item keys."""

from __future__ import annotations

import re
from collections.abc import Iterable

from facegraft.heads.errors import SourceError

_NUMBERED = re.compile(r"(\d+)_(\w.*)")
_DIGITS = re.compile(r"(\d+)")


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which s2 comes before s10; names equal up to leading zeros are ordered by their text."""
    parts = _DIGITS.split(name)
    return (*((0, int(p), "") if i % 2 else (1, 0, p) for i, p in enumerate(parts)), (2, 0, name))


def clean_name(name: str) -> str:
    """The name with everything outside [A-Za-z0-9_] turned into single underscores; empty where nothing is left."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")


def split_number(stem: str) -> tuple[int | None, str]:
    """`12_lip_puckerer` → (12, "lip_puckerer"); a name without a number → (None, name)."""
    match = _NUMBERED.fullmatch(stem)
    return (int(match[1]), match[2]) if match else (None, stem)


def head_key(subject: str, number: int | None, expression: str) -> str:
    """Item key of a head: `<subject>_e<NN>`, or `<subject>_<expression>` where the expression has no number."""
    return f"{subject}_{expression}" if number is None else f"{subject}_e{number:02d}"


def clean_names(names: Iterable[str], what: str, where: str) -> dict[str, str]:
    """Clean name by raw name. Raises SourceError where two names become equal or nothing is left of a name."""
    clean: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in sorted(set(names), key=natural_key):
        new = clean_name(name)
        if not new:
            raise SourceError(f"{where}: {what} {name!r} has no letter or digit in its name; rename it")
        if new in taken:
            raise SourceError(
                f"{where}: {what}s {taken[new]!r} and {name!r} would both be called {new!r}; rename one of them"
            )
        clean[name] = new
        taken[new] = name
    return clean
