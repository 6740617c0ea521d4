"""The common interface of all sources of heads.

A source is built twice: once where the work is planned (`plan`), and once in every worker (`loader`). Between the two go
a few shared arrays and, for every head, a small JSON-able `spec`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from facegraft.heads.errors import SourceError
from facegraft.meshfiles.rawmesh import Floats, Ints
from facegraft.regions.regionmap import RegionMap

DEFAULT_SUBJECTS = 40
DEFAULT_EXPRESSIONS = 3

KINDS = {
    "synthetic": "facegraft.heads.synthetic_source:SyntheticSource",
    "ict": "facegraft.heads.ict:IctSource",
    "facescape": "facegraft.heads.facescape:FacescapeSource",
    "flame": "facegraft.heads.flame:FlameSource",
    "meshes": "facegraft.heads.meshes:MeshesSource",
}


@dataclass(frozen=True)
class SourceOptions:
    """What a user may ask of a source; each source reads those that concern it (see `stages.ingest`)."""

    subjects: int | None = None
    expressions: int | tuple[str, ...] | None = None
    first_subject: int = 1
    sigma: float = 1.0
    clip: float = 2.5
    symmetrise: float = 0.0
    region_map: str | None = None
    template: str | None = None
    mm_per_unit: float | None = None


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
    faces: Ints
    heads: list[Head]
    shared: dict[str, NDArray[Any]] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    identity: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)


Loader = Callable[[Mapping[str, Any]], Floats]


class HeadSource(Protocol):
    """One kind of source, constructed as Source(path, options, seed)."""

    def plan(self) -> SourcePlan:
        """Look at the source and lay out its heads. Raises SourceError."""
        ...

    def loader(self, shared: Mapping[str, NDArray[Any]], region_map: RegionMap) -> Loader:
        """A function from a head's spec to its vertices [V, 3] in mm; it raises MeshError for a head that is not usable."""
        ...


def make_source(kind: str, path: Path | None, options: SourceOptions, seed: int) -> HeadSource:
    """The source of this kind; raises SourceError for an unknown kind or a path that is missing or not needed."""
    if kind not in KINDS:
        raise SourceError(f"there is no kind of heads {kind!r}; kinds are {', '.join(KINDS)}")
    if kind != "synthetic" and path is None:
        raise SourceError(
            f"kind {kind} reads heads from disk: name its folder, as in `facegraft ingest FOLDER --kind {kind} -o heads`"
        )
    if path is not None and kind != "synthetic" and not path.exists():
        raise SourceError(f"{path}: there is no such folder or file")
    module, _, name = KINDS[kind].partition(":")
    source: HeadSource = getattr(importlib.import_module(module), name)(path, options, seed)
    return source


def subject_name(number: int) -> str:
    """Name of a computed subject: s0001, s0002, …"""
    return f"s{number:04d}"
