"""The id table: the row of each subject, head, expression and shape in the model's code tables."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from facegraft.errors import nearest
from facegraft.parts import Parts, PartsError
from facegraft.store import write_json_atomic
from facegraft_model.errors import ModelError

Head = tuple[str, ...]
"""An identity: the subjects of its remainder and its parts, in cascade order."""
Shape = tuple[str, ...]
"""A head with an expression: the subjects of the head, then the name of the expression."""

_TABLES = ("subjects", "expressions", "heads", "shapes", "expression_names")
_NOT_FITTED = "its code has to be fitted first, or the table is another model's"


class DataError(ModelError):
    """Samples and model do not match: for instance an unknown subject, a set that is too small, a missing column."""


@dataclass(frozen=True)
class IdTable:
    """Rows of the code tables, each table sorted and without repeats.

    parts: the parts of the heads; subjects: all recipients and donors, for the part codes; expressions: (subject, expression), for
    expression codes of a subject; heads: the recipient and the donor of each part, for methods with one identity code; shapes: heads
    with an expression, for methods with one code per shape; expression_names: for expression codes that all subjects share. The table
    is saved with a model, because it defines the meaning of the rows of its code tables.
    """

    parts: Parts
    subjects: tuple[str, ...]
    expressions: tuple[tuple[str, str], ...]
    heads: tuple[Head, ...]
    shapes: tuple[Shape, ...]
    expression_names: tuple[str, ...]
    _rows: dict[str, dict[Any, int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, width in _widths(self.parts).items():
            entries = [entry if width == 1 else tuple(entry) for entry in getattr(self, name)]
            if width > 1 and any(len(entry) != width for entry in entries):
                raise DataError(f"id table: {name} must have {width} names each, with the parts {', '.join(self.parts)}")
            if entries != sorted(set(entries)):
                raise DataError(f"id table: {name} must be sorted and without repeats")
            object.__setattr__(self, name, tuple(entries))
        self._check_people("expressions", [(subject,) for subject, _ in self.expressions])
        self._check_people("heads", self.heads)
        strangers = {shape[:-1] for shape in self.shapes} - set(self.heads)
        if strangers:
            raise DataError(f"id table: a shape of the head {self._of_head(min(strangers))}, which is not among the heads")
        unnamed = {entry[-1] for entry in (*self.expressions, *self.shapes)} - set(self.expression_names)
        if unnamed:
            raise DataError(f"id table: expression {min(unnamed)!r} is not among the expression names")
        rows = {name: {entry: row for row, entry in enumerate(getattr(self, name))} for name in _TABLES}
        object.__setattr__(self, "_rows", rows)

    def _check_people(self, name: str, entries: Iterable[tuple[str, ...]]) -> None:
        unknown = {person for entry in entries for person in entry} - set(self.subjects)
        if unknown:
            raise DataError(f"id table: {name} of {min(unknown)!r}, who is not among the subjects")

    @classmethod
    def from_index(cls, index: pa.Table, parts: Parts, split: str | None = None) -> IdTable:
        """The table of all written items in an index of samples (of one split), with every subject, recipient and donor."""
        return cls.from_rows(written_rows(index, parts, split).to_pylist(), parts)

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, Any]], parts: Parts) -> IdTable:
        """The table of some rows of an index of samples. Raises DataError where a row lacks a name."""
        require_names(rows, parts)
        return cls(
            parts=parts,
            subjects=tuple(sorted({row[column] for row in rows for column in _person_columns(parts)})),
            expressions=tuple(sorted({(row["subject"], row["expression"]) for row in rows})),
            heads=tuple(sorted({head_of(row, parts) for row in rows})),
            shapes=tuple(sorted({(*head_of(row, parts), row["expression"]) for row in rows})),
            expression_names=tuple(sorted({row["expression"] for row in rows})),
        )

    def subject(self, name: str) -> int:
        """Row of a subject. Raises DataError for a subject that is not in the table."""
        row = self._rows["subjects"].get(name)
        if row is None:
            raise DataError(
                f"subject {name!r} is not in the id table of {len(self.subjects)} subjects{nearest(name, self.subjects, _NOT_FITTED)}"
            )
        return row

    def expression(self, subject: str, expression: str) -> int:
        """Row of a subject's expression. Raises DataError when it is not in the table."""
        row = self._rows["expressions"].get((subject, expression))
        if row is None:
            self.subject(subject)
            known = [name for person, name in self.expressions if person == subject]
            raise DataError(
                f"expression {expression!r} of subject {subject!r} is not in the id table; it has {', '.join(known) or 'none'}"
            )
        return row

    def head(self, head: Head) -> int:
        """Row of a head. Raises DataError when it is not in the table."""
        row = self._rows["heads"].get(head)
        if row is None:
            raise DataError(
                f"the head {self._of_head(head)} is not in the id table of {len(self.heads)} heads; its code has to be fitted first"
            )
        return row

    def shape(self, head: Head, expression: str) -> int:
        """Row of a head with an expression. Raises DataError when it is not in the table."""
        row = self._rows["shapes"].get((*head, expression))
        if row is None:
            self.head(head)
            known = [shape[-1] for shape in self.shapes if shape[:-1] == head]
            raise DataError(
                f"the head {self._of_head(head)} has no expression {expression!r} in the id table; it has {', '.join(known) or 'none'}"
            )
        return row

    def expression_name(self, name: str) -> int:
        """Row of an expression that all subjects share. Raises DataError when it is not in the table."""
        row = self._rows["expression_names"].get(name)
        if row is None:
            raise DataError(
                f"expression {name!r} is not in the id table; it has {', '.join(self.expression_names) or 'none'}"
            )
        return row

    def _of_head(self, head: Head) -> str:
        donors = [f"{name} of {donor!r}" for name, donor in zip(self.parts, head[1:], strict=True)]
        return f"of {head[0]!r} with the {', '.join(donors)}"

    def to_json(self) -> dict[str, Any]:
        tables = {
            name: [entry if width == 1 else list(entry) for entry in getattr(self, name)]
            for name, width in _widths(self.parts).items()
        }
        return {"parts": self.parts.to_json(), **tables}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> IdTable:
        """The table from JSON. Raises DataError when the document is not an id table."""
        missing = [name for name in ("parts", *_TABLES) if name not in document]
        if missing:
            raise DataError(
                f"not an id table: it lacks {', '.join(map(repr, missing))}; it was written by an older version or is another file"
            )
        try:
            parts = Parts.from_json(document["parts"], "not an id table: its parts")
        except PartsError as error:
            raise DataError(str(error)) from error
        for name, width in _widths(parts).items():
            entries = document[name]
            good = (
                _strings(entries)
                if width == 1
                else isinstance(entries, list) and all(_strings(e) and len(e) == width for e in entries)
            )
            if not good:
                raise DataError(
                    f"not an id table: {name!r} must be a list of {'names' if width == 1 else f'lists of {width} names'}"
                )
        tables: dict[str, Any] = {
            name: tuple(entry if width == 1 else tuple(entry) for entry in document[name])
            for name, width in _widths(parts).items()
        }
        return cls(parts=parts, **tables)

    def save(self, path: str | os.PathLike[str]) -> None:
        write_json_atomic(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> IdTable:
        """Read a table. Raises DataError when the file is missing or not an id table."""
        try:
            document = json.loads(Path(path).read_bytes())
        except (OSError, ValueError) as error:
            raise DataError(f"no id table at {os.fspath(path)}: {error}") from error
        if not isinstance(document, dict):
            raise DataError(f"no id table at {os.fspath(path)}: not a JSON object")
        return cls.from_json(document)


def _widths(parts: Parts) -> dict[str, int]:
    """Number of names in an entry of each table."""
    return dict(zip(_TABLES, (1, 2, 1 + len(parts), 2 + len(parts), 1), strict=True))


def _person_columns(parts: Parts) -> tuple[str, ...]:
    """Columns of the index that name a subject."""
    return ("subject", *parts.head_columns)


def written_rows(index: pa.Table, parts: Parts, split: str | None) -> pa.Table:
    """The rows of written items in an index of samples (of a split, if given). Raises DataError when a needed column is missing."""
    needed = (*_person_columns(parts), "expression", "split", "origin")
    missing = [column for column in needed if column not in index.column_names]
    if missing:
        raise DataError(
            f"the index of the samples lacks the columns {', '.join(missing)}; make the samples with this version of facegraft"
        )
    rows = index.filter(pc.equal(index["status"], "written"))
    return rows if split is None else rows.filter(pc.equal(rows["split"], split))


def require_names(rows: Sequence[Mapping[str, Any]], parts: Parts) -> None:
    """Raises DataError where a row of the index lacks a subject, donor or expression."""
    if any(row[column] is None for row in rows for column in (*_person_columns(parts), "expression")):
        raise DataError(
            "the index of the samples has items without subject, recipient, donor or expression; sample them anew"
        )


def head_of(row: Mapping[str, Any], parts: Parts) -> Head:
    """The head that an index row shows: its recipient, and the donors of its parts."""
    return tuple(row[column] for column in parts.head_columns)


def _strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
