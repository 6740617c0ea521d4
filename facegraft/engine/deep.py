"""Check that a dataset follows from its inputs: some of its items are made again, as workers make them, and compared bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

import facegraft
from facegraft.engine.errors import EngineError
from facegraft.engine.job import StageJob
from facegraft.engine.options import EngineOptions
from facegraft.engine.plan import StagePlan, shard_plan
from facegraft.engine.run_record import RunRecord, differences, read_run, run_record
from facegraft.engine.sandbox import Limits, Sandbox
from facegraft.engine.shard_task import make_item
from facegraft.engine.stage import ItemResult, PlannedItem
from facegraft.store import Dataset, open_dataset
from facegraft.store.remote import Location, place
from facegraft.store.schema import check_row

Planner = Callable[[list[str], Mapping[str, Any], int], StagePlan]


@dataclass(frozen=True)
class DeepReport:
    """`checked`: keys of the items that were made again; `findings`: what differs, one line each."""

    checked: list[str]
    findings: list[str]


def verify_deep(
    folder: Location, stage_path: str, planner: Planner, items: int, seed: int, options: EngineOptions
) -> DeepReport:
    """Plan the run of the folder again from its inputs, make `items` of its written items again, and compare.

    The caller gives `stage_path` and `planner` (inputs, parameters, seed → plan): a folder must not decide which code is run.
    Raises EngineError where the inputs are missing or have changed, or another version made the dataset; StoreError where the
    dataset is damaged.
    """
    run = read_run(folder)
    _check_maker(folder, run, stage_path)
    dataset = open_dataset(folder)
    planned = _plan_again(folder, run, planner)
    keys = chosen_keys(dataset.keys(), items, seed)
    limits = Limits(options.item_timeout_s, int(options.item_memory_gb * 1e9))
    job = StageJob(run.stage, str(folder.absolute()), run.inputs, run.commit_sha256(), run.code_version)
    findings = []
    with closing(Sandbox(job, limits)) as sandbox:
        for key in keys:
            result = make_item(planned[key], sandbox, dataset.schema)
            findings += [f"{folder}: item {key}{what}" for what in _differences(dataset, planned[key], result)]
    return DeepReport(keys, findings)


def chosen_keys(keys: list[str], count: int, seed: int) -> list[str]:
    """`count` of the keys (all where there are fewer), the same for the same seed, sorted."""
    rng = np.random.Generator(np.random.PCG64(seed))
    numbers = rng.choice(len(keys), size=min(count, len(keys)), replace=False)
    return [keys[number] for number in sorted(numbers.tolist())]


def _check_maker(folder: Location, run: RunRecord, stage_path: str) -> None:
    if run.stage != stage_path:
        raise EngineError(f"{folder} was made by stage {run.stage}, not {stage_path}")
    if run.code_version != facegraft.__version__:
        raise EngineError(
            f"{folder} was made by facegraft {run.code_version}, this is {facegraft.__version__}, which may make other bytes; "
            "install that version to compare"
        )
    for path in run.inputs:
        if not place(path).exists():
            raise EngineError(
                f"{folder} was made from {path}, which is not there; put it back, or run the command that made {folder.name} again with "
                "the place where it is now, which only updates the place"
            )


def _plan_again(folder: Location, run: RunRecord, planner: Planner) -> dict[str, PlannedItem]:
    plan = planner(run.inputs, run.parameters, run.seed)
    sharded = shard_plan(plan)
    changed = differences(run, run_record(run.stage, plan, sharded, run.inputs, run.parameters, run.seed))
    if changed:
        raise EngineError(
            f"the inputs of {folder} ({', '.join(run.inputs) or 'none'}) are not those it was made from ({'; '.join(changed[:4])}); "
            "put the old ones back, or make the dataset again from these in another folder"
        )
    return {item.key: item for item in sharded.items}


def _differences(dataset: Dataset, item: PlannedItem, result: ItemResult) -> Iterator[str]:
    """The differences of an item, as texts that follow 'item KEY' in a finding."""
    if result.reason is not None:
        yield f" was written, and is now rejected: {result.reason}"
        return
    there = dataset[item.key]
    for name, made in result.fields.items():
        if (what := _array_difference(there[name], made)) is not None:
            yield f", field {name}: {what}"
    row = dataset.row(item.key)
    for name, value in check_row(item.key, {**item.row, **result.row}, dataset.schema.columns).items():
        if row[name] != value:
            yield f", index column {name}: {row[name]!r} in the dataset, {value!r} when made again"


def _array_difference(there: np.ndarray, made: np.ndarray) -> str | None:
    if (there.dtype, there.shape) != (made.dtype, made.shape):
        return f"{there.dtype} {list(there.shape)} in the dataset, {made.dtype} {list(made.shape)} when made again"
    if there.tobytes() == made.tobytes():
        return None
    differing = there != made
    count = int(np.count_nonzero(differing))
    if count == 0:
        return "equal values of other bits (as 0 and -0)"
    largest = np.abs(there[differing].astype(np.float64) - made[differing].astype(np.float64)).max()
    return f"{count} of {there.size} values differ, by up to {largest:.3g}"
