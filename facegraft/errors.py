"""The base class of all errors meant for users, and helpers for their messages."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections.abc import Iterable

_LISTED = 12
_NO_LINE = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories that no line of text holds: control characters, halves of characters, ends of lines and paragraphs."""


def printable(value: object, longest: int = 80) -> str:
    """Untrusted text made safe for a message: one line, short, without control characters."""
    text = str(value)
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= longest else text[:longest] + "…"


def name_fault(name: str) -> str | None:
    """Why a name on disk cannot stand in messages and records: None where it can. No-break spaces and soft hyphens can."""
    found = {unicodedata.category(letter) for letter in name} & _NO_LINE
    if not found:
        return None
    return "is not UTF-8 text" if "Cs" in found else "holds a control character or the end of a line"


def shown_name(name: str) -> str:
    """A name on disk, made safe for a message and a record: bytes that are not UTF-8 as \\xe9."""
    return printable(os.fsencode(name).decode("utf-8", "backslashreplace") if name_fault(name) else name, 300)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """" (did you mean 'x'?)" for an unknown name, with the most similar known name; empty where none is similar."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def nearest(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """The end of a message about an unknown name: `did_you_mean`, or, where no known name is similar, "; " and `otherwise` (by
    default the list of known names)."""
    names = list(known)
    if meant := did_you_mean(name, names):
        return meant
    listed = ", ".join(sorted(names)[:_LISTED]) + (", …" if len(names) > _LISTED else "")
    return f"; {otherwise or (f'there are {listed}' if names else 'there are none')}"


class FacegraftError(Exception):
    """An error whose message is one clear line: what is wrong, where, and what to do.

    The command line prints the message and exits; any other exception is a bug and keeps its traceback.
    `exit_code` is the exit code of the command: 1 for a failed run, 2 for wrong usage.
    """

    exit_code = 1
