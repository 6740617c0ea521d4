"""One Dask task: make one shard from the plan, item by item, and commit it. This module does not depend on Dask."""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from facegraft.engine.folder import LOG_FOLDER
from facegraft.engine.job import StageJob, read_job_run
from facegraft.engine.plan import read_shard_items
from facegraft.engine.sandbox import ItemRunner, Limits, thread_sandbox
from facegraft.engine.shortage import shortage
from facegraft.engine.signs import SIGNS
from facegraft.engine.stage import ItemResult, PlannedItem, short_reason
from facegraft.errors import FacegraftError
from facegraft.store import (
    DatasetSchema,
    FieldError,
    RejectedItem,
    RemoteError,
    ShardItem,
    read_commit,
    shard_name,
    write_arrays_atomic,
    write_json_atomic,
    write_shard,
)
from facegraft.store.remote import Location, each, place
from facegraft.store.schema import check_fields, check_row
from facegraft.store.writer import REJECT_FOLDER

_OFFENDING_BYTES = 1 << 24

RunnerMaker = Callable[[StageJob, Limits], ItemRunner]


@dataclass(frozen=True)
class ShardTask:
    """The task that is sent to a worker. `plan_sha256`: of the bytes of plan.parquet."""

    job: StageJob
    shard: int
    plan_sha256: str
    limits: Limits


@dataclass(frozen=True)
class ShardResult:
    """The result that is sent back. `kept`: the shard was committed before. `error`: why the run cannot continue (not an item's fault);
    `defect`: the traceback, if that is a bug of facegraft."""

    shard: int
    written: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    kept: bool = False
    error: str | None = None
    defect: str = ""

    @property
    def rejected(self) -> int:
        return sum(self.reasons.values())


def run_shard(task: ShardTask, runner_for: RunnerMaker = thread_sandbox) -> ShardResult:
    """Make and commit a shard, unless it is committed already. Errors come back as a result: not every exception can be pickled."""
    try:
        with SIGNS.of_shard(task.shard):
            return _make(task, runner_for)
    except FacegraftError as error:
        return ShardResult(task.shard, error=str(error))
    except Exception as error:
        if limit := shortage(str(error)):
            return ShardResult(
                task.shard, error=f"shard {task.shard} cannot be made on {socket.gethostname()}: {limit}"
            )
        return ShardResult(
            task.shard,
            error=f"shard {task.shard} failed: {type(error).__name__}: {error}",
            defect=traceback.format_exc(),
        )


def _make(task: ShardTask, runner_for: RunnerMaker) -> ShardResult:
    start = time.perf_counter()
    output = place(task.job.output)
    run = read_job_run(task.job)
    schema = run.dataset_schema()
    name = shard_name(task.shard, run.shards)
    record = read_commit(output, name, task.job.commit_sha256)
    if record is not None:
        reasons = Counter(row["reason"] for row in record["rows"] if row["status"] == "rejected")
        return ShardResult(task.shard, len(record["rows"]) - reasons.total(), dict(reasons), kept=True)
    runner = runner_for(task.job, task.limits)
    written, refused, seconds = [], [], {}
    for item in read_shard_items(output, task.shard, task.plan_sha256):
        begun = time.perf_counter()
        result = make_item(item, runner, schema)
        seconds[item.key] = round(time.perf_counter() - begun, 6)
        if result.reason is None:
            written.append(ShardItem(item.key, result.fields, {**item.row, **result.row}))
        else:
            _record_reject(output, task.job.stage, name, item, result)
            refused.append(RejectedItem(item.key, result.reason, item.row))
    write_shard(output, name, written, refused, schema, task.job.commit_sha256)
    _forget_rejects(output, [done.key for done in written])
    timings = {
        "shard": name,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "seconds": round(time.perf_counter() - start, 6),
        "item_seconds": seconds,
    }
    write_json_atomic(output / LOG_FOLDER / f"{name.removesuffix('.safetensors')}.json", timings)
    return ShardResult(task.shard, len(written), dict(Counter(item.reason for item in refused)))


def make_item(item: PlannedItem, runner: ItemRunner, schema: DatasetSchema) -> ItemResult:
    """Make one item; output that does not match the schema becomes a reject. Raises RemoteError where an object store does not answer."""
    result = runner.run(item)
    if result.unreachable:
        raise RemoteError(result.reason)
    if result.reason is not None:
        return result
    try:
        check_fields(item.key, result.fields, schema)
        check_row(item.key, {**item.row, **result.row}, schema.columns)
    except FieldError as error:
        # The key has its own column: without it, equal faults have equal reasons and can be counted.
        text = str(error).removeprefix(f"item {item.key}").lstrip(",: ")
        return replace(result, reason=short_reason(f"invalid output: {text}"))
    return result


def _record_reject(output: Location, stage: str, shard: str, item: PlannedItem, result: ItemResult) -> None:
    folder = output / REJECT_FOLDER
    if result.offending and sum(array.nbytes for array in result.offending.values()) <= _OFFENDING_BYTES:
        write_arrays_atomic(folder / f"{item.key}.safetensors", result.offending)
    record = {
        "key": item.key,
        "reason": result.reason,
        "stage": stage,
        "shard": shard,
        "row": item.row,
        "spec": item.spec,
        "traceback": result.traceback.encode(errors="replace").decode(),
    }
    write_json_atomic(folder / f"{item.key}.json", record)


def _forget_rejects(output: Location, keys: list[str]) -> None:
    names = [f"{key}{suffix}" for key in keys for suffix in (".json", ".safetensors")]
    each(output, lambda name: (output / REJECT_FOLDER / name).unlink(missing_ok=True), names)
