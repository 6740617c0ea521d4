"""The parts of a dataset or a model: their names, their order in the cascade, and their landmarks.

They are read from a region set and recorded in every `dataset.json` and every checkpoint. All code that handles parts
iterates over them; no list of parts is written in the code. Their order defines the labels (0 is the remainder, 1 the first
part), the stages of the template morph, and the columns that name the donors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from facegraft.errors import FacegraftError, printable
from facegraft.vocabulary import LANDMARK_COUNT, REM

MAX_PARTS = 255
"""Largest number of parts: labels are bytes, and 0 is the remainder's."""

RESERVED = frozenset(
    [
        "all",
        "exp",
        "expression",
        "expression_name",
        "free_normals",
        "free_points",
        "free_sdf",
        "full",
        "head",
        "id",
        "is_composite",
        "is_neutral",
        "item",
        "key",
        "landmarks",
        "near_normals",
        "near_parts",
        "near_points",
        "near_sdf",
        "neutral",
        "poi_normals",
        "poi_parts",
        "poi_points",
        "poi_sdf",
        "recipient",
        "rem",
        "remainder",
        "sdf",
        "shape",
        "split",
        "stage_part_labels",
        "stage_points",
        "stage_rows",
        "subject",
        "surface_normals",
        "surface_parts",
        "surface_points",
        "template",
        "template_draws",
        "to_mm",
        "wide_normals",
        "wide_parts",
        "wide_points",
        "wide_sdf",
    ]
)
"""Names that are already used in tables, codes, columns and batches."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,29}")


class PartsError(FacegraftError):
    """Invalid parts: a repeated or reserved name, too many parts, or wrong landmarks."""


@dataclass(frozen=True)
class Part:
    """A part: its name, and the five landmarks (iBUG 68) around which the model blends its field."""

    name: str
    landmarks: tuple[int, ...]


@dataclass(frozen=True)
class Parts:
    """The parts of one region set, in cascade order: the order of the model's nets and of the labels.

    `Parts` is a sequence of names: `for name in parts`, `name in parts`, `len(parts)`.
    """

    region_set: str
    entries: tuple[Part, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", tuple(self.entries))
        names = [part.name for part in self.entries]
        if not 0 < len(names) <= MAX_PARTS:
            raise PartsError(f"region set {self.region_set!r} has {len(names)} parts; there must be 1 to {MAX_PARTS}")
        for part in self.entries:
            check_part_name(part.name)
            if names.count(part.name) > 1:
                raise PartsError(f"region set {self.region_set!r} names part {part.name!r} twice")
            if len(part.landmarks) != 5 or not all(
                type(mark) is int and 0 <= mark < LANDMARK_COUNT for mark in part.landmarks
            ):
                raise PartsError(
                    f"part {part.name!r} needs five landmarks, numbers from 0 to {LANDMARK_COUNT - 1}, not "
                    f"{printable(list(part.landmarks))}"
                )

    def __iter__(self) -> Iterator[str]:
        return (part.name for part in self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parts, in cascade order."""
        return tuple(part.name for part in self.entries)

    # -- labels -------------------------------------------------------------------------------------------------------

    @property
    def labelled(self) -> tuple[str, ...]:
        """Names by label: the remainder, then the parts."""
        return (REM, *self.names)

    def label(self, name: str) -> int:
        """Label of a part, or of the remainder. Raises PartsError naming the known parts."""
        if name not in self.labelled:
            raise PartsError(f"there is no part {printable(name)!r}; parts are {', '.join(self.names)}")
        return self.labelled.index(name)

    def landmarks(self, name: str) -> tuple[int, ...]:
        """The five landmarks of a part."""
        return self.entries[self.label(name) - 1].landmarks

    def describe_labels(self) -> str:
        """`0 rem, 1 nose, …`"""
        return ", ".join(f"{number} {name}" for number, name in enumerate(self.labelled))

    # -- the template morph -------------------------------------------------------------------------------------------

    @property
    def stages(self) -> tuple[str, ...]:
        """Number of stages of the template morph: as scanned, neutral, one more part of the template in each, template.

        The net of a part with label k maps stage k to stage k + 1; the expression's net maps 0 to 1, the remainder's the last
        but one to the last.
        """
        return ("as_scanned", "neutral", *(f"template_{name}" for name in self.names), "template")

    def describe_stages(self) -> str:
        """`as scanned, neutral, with the template's nose, + eyes, …, template`"""
        first, *others = self.names
        return ", ".join(
            ["as scanned", "neutral", f"with the template's {first}", *(f"+ {n}" for n in others), "template"]
        )

    # -- columns of the index -----------------------------------------------------------------------------------------

    @property
    def donor_columns(self) -> dict[str, str]:
        """For each part, the index column that names its donor."""
        return {name: f"donor_{name}" for name in self.names}

    @property
    def head_columns(self) -> tuple[str, ...]:
        """The columns that name the sources of a head's parts: recipient (the remainder's donor), then the donors."""
        return ("recipient", *self.donor_columns.values())

    def is_self_graft(self, row: Mapping[str, Any]) -> bool:
        """Whether an index row is of a composite that is its recipient's own neutral head."""
        return {row[column] for column in self.head_columns} == {row["recipient"]}

    # -- JSON ---------------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        return {
            "region_set": self.region_set,
            "parts": [{"name": part.name, "landmarks": list(part.landmarks)} for part in self.entries],
        }

    @classmethod
    def from_json(cls, document: Any, where: str = "parts") -> Parts:
        """The parts from the value of `to_json`. Raises PartsError, starting with `where`, for anything else."""
        try:
            entries = tuple(Part(part["name"], tuple(part["landmarks"])) for part in document["parts"])
            region_set = document["region_set"]
            if not isinstance(region_set, str) or not region_set.isprintable():
                raise PartsError("its region set has no name")
            return cls(region_set, entries)
        except PartsError as error:
            raise PartsError(f"{where}: {error}") from error
        except (KeyError, TypeError) as error:
            raise PartsError(f"{where}: does not list its parts ({printable(error)})") from error


def check_part_name(name: object) -> str:
    """Return a valid part name, else raise PartsError: part names become columns, codes and options."""
    found = _plain(name, "part")
    if found in RESERVED:
        raise PartsError(f"a part cannot be called {found!r}: that name is reserved; choose another")
    return found


def check_set_name(name: object) -> str:
    """Return a valid name of a region set, else raise PartsError: the name is used as an option."""
    return _plain(name, "region set")


def _plain(name: object, what: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PartsError(
            f"{what} name {printable(repr(name))} must be lower case letters, digits and underscores, 30 at most, a letter first"
        )
    return name
