"""The common interface of all sources of heads.

A source is built twice: once where the work is planned (`plan`), and once in every worker (`loader`). Between the two go
a few shared arrays and, for every head, a small JSON-able `spec`.
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
from facegraft.heads.errors import SourceError
from facegraft.heads.options import SourceOptions
from facegraft.regions.regionmap import RegionMap
from facegraft.store.remote import Location

DEFAULT_SUBJECTS = 40
DEFAULT_EXPRESSIONS = 3


@dataclass(frozen=True)
class SourceKind:
    """A kind of source: the import path of its class, whether it reads files, and the names of the splits that were published for it.

    The class has `Options`, a SourceOptions: what a user may ask of it.
    """

    path: str
    reads_files: bool = True
    splits: tuple[str, ...] = ()

    @property
    def source(self) -> type[HeadSource]:
        """The class, imported when it is needed."""
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
"""All kinds by the name that `ingest.kind` gives: a new one is a file with a class, and a line here."""


@dataclass(frozen=True)
class Head:
    """One head that a source can give: whose, which expression (its number, where expressions are numbered), how to load it.

    `source` is the file it comes from, relative to the source's folder, None for heads that are computed;
    `row` are further index columns.
    """

    subject: str
    expression: str
    number: int | None
    spec: dict[str, Any]
    source: str | None = None
    row: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SourcePlan:
    """Everything a source knows before the work: faces [F, 3] of the topology, its heads, and what its loader needs.

    `files` are those read beside the heads' own; `identity` is what stands for the input where there are no files;
    `columns` are the types of the columns that the heads' rows add to the index.
    """

    region_map: RegionMap
    faces: Ints32
    heads: list[Head]
    shared: dict[str, NDArray[Any]] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    identity: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)


Loader = Callable[[Mapping[str, Any]], Floats]


class HeadSource(ABC):
    """One kind of source, constructed as Source(path, options, seed); `options` are its own Options."""

    Options: ClassVar[type[SourceOptions]] = SourceOptions

    @abstractmethod
    def __init__(self, path: Location | None, options: Any, seed: int) -> None: ...

    @abstractmethod
    def plan(self) -> SourcePlan:
        """Look at the source and lay out its heads. Raises SourceError."""

    @abstractmethod
    def loader(self, shared: Mapping[str, NDArray[Any]], region_map: RegionMap) -> Loader:
        """A function from a head's spec to its vertices [V, 3] in mm; it raises MeshError for a head that is not usable."""

    def split(self, name: str, subjects: Sequence[str]) -> dict[str, str]:
        """subject → side, by a published split of `SourceKind.splits`; subjects that it leaves out are not in the result."""
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
