"""Which row of the model's code tables belongs to which subject and expression."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from facegraft.store import StoreError, write_json_atomic

PERSON_COLUMNS = ("subject", "recipient", "donor_nose", "donor_eyes", "donor_mouth")
NEEDED_COLUMNS = (*PERSON_COLUMNS, "expression", "split", "origin")


class DataError(StoreError):
    """Samples and model do not fit: an unknown subject, a set that is too small, a missing column."""


@dataclass(frozen=True)
class IdTable:
    """Rows of the code tables: a row per subject, and a row per (subject, expression), both sorted.

    It is saved with a model, because the rows of its code tables mean nothing without it.
    """

    subjects: tuple[str, ...]
    expressions: tuple[tuple[str, str], ...]
    _subject_rows: dict[str, int] = field(init=False, repr=False, compare=False)
    _expression_rows: dict[tuple[str, str], int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "subjects", tuple(self.subjects))
        object.__setattr__(self, "expressions", tuple((subject, expression) for subject, expression in self.expressions))
        if list(self.subjects) != sorted(set(self.subjects)) or list(self.expressions) != sorted(set(self.expressions)):
            raise DataError("id table: subjects and expressions must be sorted and without repeats")
        unknown = {subject for subject, _ in self.expressions} - set(self.subjects)
        if unknown:
            raise DataError(f"id table: expressions of {min(unknown)!r}, who is not among the subjects")
        object.__setattr__(self, "_subject_rows", {subject: row for row, subject in enumerate(self.subjects)})
        object.__setattr__(self, "_expression_rows", {pair: row for row, pair in enumerate(self.expressions)})

    @classmethod
    def from_index(cls, index: pa.Table, split: str | None = None) -> IdTable:
        """Everyone who appears in the written items of an index of samples (of one split): as subject, recipient or donor."""
        rows = written_rows(index, split)
        people = {person for column in PERSON_COLUMNS for person in rows[column].to_pylist()}
        pairs = set(zip(rows["subject"].to_pylist(), rows["expression"].to_pylist(), strict=True))
        if None in people or any(None in pair for pair in pairs):
            raise DataError("the index of the samples has items without subject, recipient, donor or expression; sample them anew")
        return cls(tuple(sorted(people)), tuple(sorted(pairs)))

    def subject(self, name: str) -> int:
        """Row of a subject. Raises DataError for somebody whom the table does not know."""
        if name not in self._subject_rows:
            raise DataError(f"subject {name!r} is not in the id table of {len(self.subjects)} subjects{_nearest(name, self.subjects)}")
        return self._subject_rows[name]

    def expression(self, subject: str, expression: str) -> int:
        """Row of a subject's expression. Raises DataError when the table does not know it."""
        if (subject, expression) not in self._expression_rows:
            self.subject(subject)
            known = [name for person, name in self.expressions if person == subject]
            raise DataError(f"expression {expression!r} of subject {subject!r} is not in the id table; it has {', '.join(known) or 'none'}")
        return self._expression_rows[subject, expression]

    def to_json(self) -> dict[str, Any]:
        return {"subjects": list(self.subjects), "expressions": [list(pair) for pair in self.expressions]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> IdTable:
        """Raises DataError when the document is no id table."""
        subjects, expressions = document.get("subjects"), document.get("expressions")
        pairs = isinstance(expressions, list) and all(_strings(pair) and len(pair) == 2 for pair in expressions)
        if not _strings(subjects) or not pairs:
            raise DataError("not an id table: it needs 'subjects' (names) and 'expressions' (pairs of subject and expression)")
        return cls(tuple(document["subjects"]), tuple((subject, expression) for subject, expression in document["expressions"]))

    def save(self, path: str | os.PathLike[str]) -> None:
        write_json_atomic(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> IdTable:
        """Raises DataError when the file is missing or no id table."""
        try:
            document = json.loads(Path(path).read_bytes())
        except (OSError, ValueError) as error:
            raise DataError(f"no id table at {os.fspath(path)}: {error}") from error
        if not isinstance(document, dict):
            raise DataError(f"no id table at {os.fspath(path)}: not a JSON object")
        return cls.from_json(document)


def written_rows(index: pa.Table, split: str | None) -> pa.Table:
    """The rows of an index of samples that hold data (and belong to a split). Raises DataError when a needed column is missing."""
    missing = [column for column in NEEDED_COLUMNS if column not in index.column_names]
    if missing:
        raise DataError(f"the index of the samples lacks the columns {', '.join(missing)}; make the samples with this version of facegraft")
    rows = index.filter(pc.equal(index["status"], "written"))
    return rows if split is None else rows.filter(pc.equal(rows["split"], split))


def _strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else "; its code has to be fitted first, or the table is another model's"
