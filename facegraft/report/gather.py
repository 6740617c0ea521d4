"""Gather the content of a report: the stages found in a folder, each with its dataset, its run, its rejects and its timings."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegraft.engine import RunRecord, read_run
from facegraft.engine.folder import LOG_FOLDER
from facegraft.parts import Parts
from facegraft.regions.regionmap import RegionMap, RegionSet
from facegraft.report.errors import ReportError
from facegraft.stages import stage_at
from facegraft.stages.parameters import ParameterError
from facegraft.store import Dataset, StoreError, open_dataset
from facegraft.store.remote import Location, place
from facegraft.store.writer import DATASET_FILE, RUN_FILE
from facegraft.vocabulary import KINDS, NEUTRAL


@dataclass(frozen=True)
class Timings:
    """Timings of the shards that have a log: worker seconds, processes, and seconds by item key."""

    shards: int
    seconds: float
    processes: int
    items: Mapping[str, float]

    @property
    def rate(self) -> float:
        """Items per second and worker."""
        return len(self.items) / self.seconds if self.seconds > 0 else float("nan")


@dataclass(frozen=True)
class StageFacts:
    """One stage's folder. If the folder exists but cannot be reported on, `dataset` is None and `problem` says why."""

    kind: str
    folder: Location
    dataset: Dataset | None = None
    run: RunRecord | None = None
    problem: str | None = None
    timings: Timings | None = None

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """All index rows, written and rejected."""
        return [] if self.dataset is None else list(self.dataset.index.to_pylist())

    @cached_property
    def written(self) -> list[dict[str, Any]]:
        """Index rows of the written items, by key."""
        return [row for row in self.rows if row["status"] == "written"]

    @property
    def rejects(self) -> dict[str, list[str]]:
        """Keys by reason, the most frequent reason first."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            if row["status"] == "rejected":
                found.setdefault(row["reason"] or "no reason recorded", []).append(row["key"])
        return dict(sorted(found.items(), key=lambda pair: (-len(pair[1]), pair[0])))

    @property
    def size_bytes(self) -> int:
        """Bytes of shards, index and attachments."""
        if self.dataset is None:
            return 0
        document = self.dataset.document
        return int(
            sum(shard["bytes"] for shard in document["shards"])
            + document["index"]["bytes"]
            + sum(file["bytes"] for file in document["attachments"].values())
        )

    def changed_parameters(self) -> dict[str, Any]:
        """Parameters of the run that differ from the stage's defaults, or from the defaults of its preset if it has one."""
        if self.run is None:
            return {}
        given = self.run.parameters
        stage = stage_at(self.run.stage)
        if stage is None:
            return dict(given)
        kind = stage.parameters
        fixed = {name for name, spec in kind.model_fields.items() if spec.is_required() or name == "preset"}
        try:
            default = kind.parse({name: given[name] for name in fixed if name in given}).as_json()
        except ParameterError:  # made by another version, which had other values: show everything
            return dict(given)
        shown = {name: value for name, value in given.items() if name in fixed or value != default.get(name)}
        if "preset" in shown and shown["preset"] == kind.model_fields["preset"].default:
            del shown["preset"]
        return shown

    def command(self, root: Location) -> str | None:
        """The command line that makes this dataset again, with paths relative to the folder that holds `root`."""
        stage = None if self.run is None else stage_at(self.run.stage)
        if self.run is None or stage is None:
            return None

        def named(path: Location) -> str:
            where = path.resolve()
            base = root.resolve().parent
            if isinstance(where, Path) and isinstance(base, Path) and where.is_relative_to(base):
                return shlex.quote(str(where.relative_to(base)))
            return shlex.quote(str(where))

        changed = self.changed_parameters()
        words = ["facegraft", stage.name, *(named(place(path)) for path in self.run.inputs)]
        if "kind" in changed:
            words += ["--kind", str(changed.pop("kind"))]
        words += ["--seed", str(self.run.seed)]
        for name, value in sorted(changed.items(), key=lambda pair: (pair[0] != "preset", pair[0])):
            text = value if isinstance(value, str) else json.dumps(value)
            words += ["--set", shlex.quote(f"{name}={text}")]
        return " ".join([*words, "-o", named(self.folder)])


@dataclass(frozen=True)
class Gathered:
    """Everything found in a folder, by kind."""

    root: Location
    stages: Mapping[str, StageFacts] = field(default_factory=dict)

    def dataset(self, kind: str) -> Dataset | None:
        """The readable dataset of a kind, or None if it is missing or has no items."""
        facts = self.stages.get(kind)
        return facts.dataset if facts is not None and facts.dataset is not None and len(facts.dataset) else None

    def missing(self, kind: str) -> str:
        """Why there is no dataset of a kind, for the page."""
        facts = self.stages.get(kind)
        if facts is None:
            return f"There is no dataset of {kind} in this folder."
        return f"The {kind} could not be shown: {facts.problem or 'no item was written'}."

    @cached_property
    def region_map(self) -> RegionMap | None:
        """The region map of the topology, from the first stage that has one."""
        for facts in self.stages.values():
            if facts.dataset is not None and (found := facts.dataset.region_map) is not None:
                return RegionMap.from_json(found)
        return None

    @cached_property
    def parts(self) -> Parts | None:
        """The parts of the items, from the first dataset with parts; None where there are only heads."""
        schemas = (facts.dataset.schema for facts in self.stages.values() if facts.dataset is not None)
        return next((schema.parts for schema in schemas if schema.parts is not None), None)

    @cached_property
    def regions(self) -> RegionSet | None:
        """The region set of these parts in the topology's map."""
        if self.parts is None or self.region_map is None:
            return None
        return self.region_map.regions.get(self.parts.region_set)

    @cached_property
    def neutral(self) -> dict[str, tuple[str, str]]:
        """For each subject, (kind, key) of its neutral head, from the heads or from its self-graft."""
        found: dict[str, tuple[str, str]] = {}
        for row in self.stages["composites"].written if self.dataset("composites") else []:
            if self.is_self_graft(row):
                found[row["recipient"]] = ("composites", row["key"])
        for row in self.stages["heads"].written if self.dataset("heads") else []:
            if row["expression"] == NEUTRAL:
                found[row["subject"]] = ("heads", row["key"])
        return found

    def is_self_graft(self, row: Mapping[str, Any]) -> bool:
        """Whether a composite is a self-graft, that is, its recipient's own neutral head."""
        return self.parts is not None and self.parts.is_self_graft(row)

    def neutral_head(self, subject: str) -> dict[str, NDArray[np.float64]] | None:
        """Vertices and landmarks of a subject's neutral head, in mm; None where it is missing."""
        if subject not in self.neutral:
            return None
        kind, key = self.neutral[subject]
        dataset = self.dataset(kind)
        assert dataset is not None
        return {name: dataset.read(key, name).astype(np.float64) for name in ("vertices", "landmarks")}


def gather(folder: Location) -> Gathered:
    """Read a run's folder (those of heads, composites, surfaces, samples that exist) or one dataset's folder.

    Raises ReportError where there is no readable dataset, and StoreError for a damaged run record.
    """
    if _is_stage(folder):
        found = [_stage(folder, None)]
    else:
        found = [_stage(folder / kind, kind) for kind in KINDS if _is_stage(folder / kind)]
    if not found:
        raise ReportError(
            f"{folder}: nothing to report on; give a dataset's folder, or a run's folder that holds {', '.join(KINDS)}"
        )
    if all(facts.dataset is None for facts in found):
        raise ReportError(f"{folder}: no finished dataset to report on ({'; '.join(str(f.problem) for f in found)})")
    return Gathered(folder, {facts.kind: facts for facts in found})


def _is_stage(folder: Location) -> bool:
    return (folder / DATASET_FILE).is_file() or (folder / RUN_FILE).is_file()


def _stage(folder: Location, kind: str | None) -> StageFacts:
    run = read_run(folder) if (folder / RUN_FILE).is_file() else None
    try:
        dataset = open_dataset(folder)
    except StoreError as error:
        return StageFacts(kind or (str(run.schema["kind"]) if run else "heads"), folder, run=run, problem=str(error))
    if kind is not None and dataset.kind != kind:
        problem = f"{folder} holds a dataset of kind {dataset.kind!r}"
        return StageFacts(kind, folder, run=run, problem=problem)
    return StageFacts(dataset.kind, folder, dataset, run, timings=_timings(folder, dataset))


def _timings(folder: Location, dataset: Dataset) -> Timings | None:
    """Timings from the workers' logs. Logs are not part of the dataset, so missing or truncated ones are skipped."""
    seconds, items, processes, shards = 0.0, dict[str, float](), set[tuple[str, int]](), 0
    for shard in dataset.shards:
        path = folder / LOG_FOLDER / f"{shard.stem}.json"
        try:
            log = json.loads(path.read_bytes())
            seconds += float(log["seconds"])
            items |= {str(key): float(value) for key, value in log["item_seconds"].items()}
            processes.add((str(log["host"]), int(log["pid"])))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        shards += 1
    return Timings(shards, seconds, len(processes), items) if shards else None
