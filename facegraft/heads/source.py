"""The common interface of all sources of heads.

A source is used in two places: where the work is planned (`plan`), and in every worker (`loader`). The plan passes the
workers a few shared arrays and, for every head, a small `spec` that can be written as JSON.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from numpy.typing import NDArray

from facegraft.arrays import Floats, Ints32
from facegraft.errors import nearest
from facegraft.heads.alignment import Alignment
from facegraft.heads.errors import SourceError
from facegraft.heads.options import SourceOptions
from facegraft.regions.regionmap import RegionMap
from facegraft.store.remote import Location

DEFAULT_SUBJECTS = 40
DEFAULT_EXPRESSIONS = 3


@dataclass(frozen=True)
class SourceKind:
    """A kind of source: the import path of its class, whether it reads files, and the names of its published splits.

    The attribute `Options` of the class, a SourceOptions, declares the options that a user may set.
    """

    path: str
    reads_files: bool = True
    splits: tuple[str, ...] = ()

    @property
    def source(self) -> type[HeadSource]:
        """The class, imported on the first use."""
        module, _, name = self.path.partition(":")
        found: type[HeadSource] = getattr(importlib.import_module(module), name)
        return found


KINDS = {
    "synthetic": SourceKind("facegraft.heads.synthetic_source:SyntheticSource", reads_files=False),
    "ict": SourceKind("facegraft.heads.ict:IctSource"),
    "facescape": SourceKind("facegraft.heads.facescape:FacescapeSource", splits=("imface",)),
    "flame": SourceKind("facegraft.heads.flame:FlameSource"),
    "meshes": SourceKind("facegraft.heads.meshes:MeshesSource"),
}
"""All kinds, by their name in `ingest.kind`. A new kind is a file with a class, and a line here."""


@dataclass(frozen=True)
class Head:
    """One head of a source: its subject, its expression (with its number, where there is one) and how to load it.

    `source` is the head's file, relative to the source's folder, or None for computed heads; `row` holds further index
    columns.
    """

    subject: str
    expression: str
    number: int | None
    spec: dict[str, Any]
    source: str | None = None
    row: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SourcePlan:
    """The plan of a source: faces [F, 3] of the topology, the heads, and the arrays that the loader needs.

    `files` are the files read besides the heads' own, and `beside` names files in the folder that holds the source on which the plan may
    depend, there or not: nothing else outside the source is read but what options name. `identity` identifies the input where there are no files;
    `columns` gives the type of each column that the heads' rows add to the index.
    """

    region_map: RegionMap
    faces: Ints32
    heads: list[Head]
    shared: dict[str, NDArray[Any]] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    identity: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)


Loader = Callable[[Mapping[str, Any]], Floats]


class HeadSource(ABC):
    """One kind of source, constructed as Source(path, options, seed); `options` are its own Options."""

    Options: ClassVar[type[SourceOptions]] = SourceOptions

    alignment: Alignment = "none"
    """How ingest takes the pose out of these heads."""

    @property
    def posed(self) -> bool:
        """Whether the heads may be in any pose, since it is taken out."""
        return self.alignment != "none"

    @abstractmethod
    def __init__(self, path: Location | None, options: Any, seed: int) -> None: ...

    @abstractmethod
    def plan(self) -> SourcePlan:
        """Read the source and list its heads. Raises SourceError."""

    @abstractmethod
    def loader(self, shared: Mapping[str, NDArray[Any]], region_map: RegionMap) -> Loader:
        """A function from a head's spec to its vertices [V, 3] in mm; it raises MeshError for a head that is not usable."""

    def split(self, name: str, subjects: Sequence[str]) -> dict[str, str]:
        """The side of each subject, by a published split of `SourceKind.splits`; subjects that it leaves out are not in the result."""
        raise SourceError(f"there is no published split {name!r} for these heads")


def make_source(kind: str, path: Location | None, options: Mapping[str, Any], seed: int) -> HeadSource:
    """The source of this kind with these options; raises SourceError for an unknown kind or a path that is missing or not needed."""
    if kind not in KINDS:
        raise SourceError(f"there is no kind of heads {kind!r}{nearest(kind, KINDS)}")
    known = KINDS[kind]
    if known.reads_files and path is None:
        raise SourceError(
            f"kind {kind} reads heads from disk: name its folder, as in `facegraft ingest FOLDER --kind {kind} -o heads`"
        )
    if path is not None and known.reads_files and not path.exists():
        raise SourceError(f"{path}: there is no such folder or file")
    source = known.source
    return source(path, source.Options(**options), seed)


def subject_name(number: int) -> str:
    """Name of a computed subject: s0001, s0002, …"""
    return f"s{number:04d}"
