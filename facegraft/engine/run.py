"""A run from start to end: lock the folder, make every shard, count the items, finish the dataset."""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import facegraft
from facegraft.engine.cluster import Outcome, ShardClient, SharedClient, refuse_second_import, start_client
from facegraft.engine.errors import EngineError, RunInterrupted
from facegraft.engine.evidence import read_evidence, write_evidence
from facegraft.engine.folder import (
    LOG_FOLDER,
    bind_to_run,
    finished_counts,
    make_output,
    refuse_foreign_folder,
    refuse_links,
    write_attachments,
)
from facegraft.engine.interrupts import remembered_interrupts
from facegraft.engine.job import StageJob
from facegraft.engine.locks import locked
from facegraft.engine.options import EngineOptions
from facegraft.engine.plan import ShardedPlan, StagePlan, read_plan, shard_plan, write_plan
from facegraft.engine.progress import show_progress
from facegraft.engine.run_record import RunRecord, is_asked_for, read_run, run_record
from facegraft.engine.sandbox import Limits
from facegraft.engine.shard_task import ShardResult, ShardTask
from facegraft.engine.stage import stage_label, stage_name
from facegraft.engine.status import commit_records
from facegraft.store import finish_dataset, sweep_shards, withdraw_dataset, write_bytes_atomic
from facegraft.store.atomic import remove_file_durably
from facegraft.store.reader import sound_fingerprint
from facegraft.store.remote import Location, place
from facegraft.store.schema import commit_name
from facegraft.store.writer import REJECT_FOLDER, RUN_FILE, SHARD_FOLDER

# By then Dask itself has tried the shard four times, and at the second loss it ran alone.
_LOSSES_ALLOWED = 2
_TICK_S = 0.5


@dataclass(frozen=True)
class RunSummary:
    """The result of a run. `kept`: items that were committed before it started; `seconds`: of this run."""

    output: Location
    planned: int
    written: int
    rejected: int
    reasons: dict[str, int]
    kept: int
    already_complete: bool
    seconds: float


def execute(
    stage_path: str,
    plan: StagePlan,
    inputs: list[str],
    output: str | Location,
    parameters: Mapping[str, Any],
    seed: int,
    options: EngineOptions,
    client: ShardClient | SharedClient | None = None,
) -> RunSummary:
    """Make the dataset of the plan, or continue where an earlier run of it stopped.

    `stage_path`: "package.module:Class". `client`: from `start_client`, or a SharedClient, to share one cluster among several runs;
    otherwise one is started, if anything is to be made (scripts that do so need the usual `if __name__ == "__main__":`). Raises
    EngineError when the folder holds something else, too many items are rejected, or no worker is left; RunInterrupted on Ctrl-C;
    StoreError when the disk cannot be written. Committed shards stay.
    """
    refuse_second_import()
    start = time.monotonic()
    folder = place(output).absolute()
    sharded = shard_plan(plan)
    record = run_record(stage_path, plan, sharded, inputs, parameters, seed)
    stage_name(stage_path)
    make_output(folder)
    refuse_foreign_folder(folder)  # before a lock file is made in a foreign folder
    refuse_links(folder)
    with locked(folder) as check_lock:
        bind_to_run(folder, record)
        if finished_counts(folder) is not None:
            whole = _left_if_whole(folder, record, start)
            if whole is not None:
                _keep_evidence(folder, record, plan)
                return whole
            withdraw_dataset(folder)  # files are missing or damaged: make them again
        with _resumable(folder):
            write_attachments(folder, plan)
            summary = _make_and_finish(folder, record, sharded, options, client, start, check_lock)
        _keep_evidence(folder, record, plan)
        return summary


def already_complete(
    stage_path: str, places: Sequence[Location], inputs: list[str], output: Location, parameters: Mapping[str, Any], seed: int
) -> RunSummary | None:
    """The result of `execute` where the folder holds this same run, finished and whole, as far as can be told without a plan; else None.

    `places`: the inputs; `inputs`: their full names. Raises EngineError where the folder is in use, or is no folder of a run.
    """
    refuse_second_import()
    start = time.monotonic()
    folder = place(output).absolute()
    if not (folder / RUN_FILE).is_file():
        return None
    refuse_links(folder)
    with locked(folder):
        record = read_run(folder)
        evidence = read_evidence(folder, record.commit_sha256())
        if evidence is None or not is_asked_for(record, stage_path, parameters, seed):
            return None
        if finished_counts(folder) is None or not evidence.holds(places):
            return None
        bind_to_run(folder, replace(record, inputs=inputs))
        return _left_if_whole(folder, record, start)


def _keep_evidence(folder: Location, record: RunRecord, plan: StagePlan) -> None:
    if plan.evidence is not None:
        write_evidence(folder, record.commit_sha256(), plan.evidence)


def retry(output: str | Location, stage_path: str, options: EngineOptions, client: ShardClient | SharedClient | None = None) -> RunSummary:
    """Make the shards with rejected items again (perhaps with other limits) and finish the dataset again.

    `stage_path` must be the stage of the run. The caller gives it, because a folder must not decide which code is run.
    Raises the same errors as `execute`.
    """
    refuse_second_import()
    start = time.monotonic()
    folder = place(output).absolute()
    record = read_run(folder)
    if record.stage != stage_path:
        raise EngineError(f"{folder} was made by stage {record.stage}, not {stage_path}")
    if record.code_version != facegraft.__version__:
        raise EngineError(
            f"{folder} was made by facegraft {record.code_version}, this is {facegraft.__version__}; use that version"
        )
    refuse_links(folder)
    with locked(folder) as check_lock:
        sharded = read_plan(folder, record.dataset_schema().columns)
        if sharded.sha256() != record.plan_sha256:
            raise EngineError(
                f"{folder}/plan.parquet is damaged (its items are not those of run.json); run the command that made it again"
            )
        rejected = {name: n for name, commit in commit_records(folder, record) if (n := _rejected_in(commit))}
        if not rejected and finished_counts(folder) is not None:
            return _summary_of_finished(folder, record, Counter(), start)
        with _resumable(folder):
            # The dataset counts as incomplete until it is finished again.
            withdraw_dataset(folder)
            for name in rejected:
                remove_file_durably(folder / SHARD_FOLDER / commit_name(name))
            # As many rejects as before are accepted; otherwise a retry could turn a finished dataset into a failed run.
            accepted = sum(rejected.values())
            return _make_and_finish(folder, record, sharded, options, client, start, check_lock, accepted)


def _make_and_finish(
    folder: Location,
    record: RunRecord,
    sharded: ShardedPlan,
    options: EngineOptions,
    client: ShardClient | SharedClient | None,
    start: float,
    check_lock: Callable[[], None],
    accepted: int = 0,
) -> RunSummary:
    job = StageJob(record.stage, str(folder), record.inputs, record.commit_sha256(), record.code_version)
    limits = Limits(options.item_timeout_s, int(options.item_memory_gb * 1e9))
    plan_sha256 = write_plan(folder, sharded)
    tasks = [ShardTask(job, number, plan_sha256, limits) for number in range(sharded.shard_count)]
    tally = _Tally(folder, record.planned, options, accepted)
    with _running(client, options) as running:
        _drive(running, tasks, tally, check_lock)
    check_lock()
    document = finish_dataset(folder, record.dataset_schema(), sharded.keys_by_shard(), job.commit_sha256)
    counts = document["counts"]
    return RunSummary(
        folder,
        counts["planned"],
        counts["written"],
        counts["rejected"],
        dict(tally.reasons),
        tally.kept,
        False,
        time.monotonic() - start,
    )


def _running(client: ShardClient | SharedClient | None, options: EngineOptions) -> AbstractContextManager[ShardClient]:
    if client is None:
        return start_client(options)
    return nullcontext(client.started() if isinstance(client, SharedClient) else client)


def _drive(client: ShardClient, tasks: list[ShardTask], tally: _Tally, check_lock: Callable[[], None]) -> None:
    """Run all tasks. A shard whose result is unknown is made once more, alone, before the run is given up."""
    waiting, suspects, in_flight = deque(tasks), deque[ShardTask](), dict[int, ShardTask]()
    losses = Counter[int]()
    try:
        with (
            remembered_interrupts() as check_interrupt,
            show_progress(stage_label(tasks[0].job.stage), tally.planned, tally.options.progress) as progress,
        ):
            while waiting or suspects or in_flight:
                check_interrupt()
                check_lock()
                while waiting and len(in_flight) < client.capacity():
                    _submit(client, waiting.popleft(), in_flight)
                if suspects and not in_flight:
                    _submit(client, suspects.popleft(), in_flight)
                outcome = client.next_outcome(_TICK_S)
                progress.update(tally.done, tally.rejected, tally.kept)
                if outcome is None:
                    continue
                task = in_flight.pop(outcome.shard)
                if outcome.result is not None:
                    tally.add(outcome.result)
                    progress.update(tally.done, tally.rejected, tally.kept)
                    continue
                losses[outcome.shard] += 1
                if losses[outcome.shard] >= _LOSSES_ALLOWED:
                    raise _shard_lost(tally.folder, outcome)
                suspects.append(task)
    except BaseException as stop:
        if isinstance(stop, KeyboardInterrupt) and tally.options.progress:
            print("stopping; the workers are being closed", file=sys.stderr, flush=True)
        client.abandon()
        raise


def _submit(client: ShardClient, task: ShardTask, in_flight: dict[int, ShardTask]) -> None:
    in_flight[task.shard] = task
    client.submit(task)


def _shard_lost(folder: Location, outcome: Outcome) -> EngineError:
    return EngineError(
        f"shard {outcome.shard} of {folder} was lost {_LOSSES_ALLOWED} times, then alone ({outcome.lost}); its items run in processes "
        "of their own, so look at the workers (memory, disk, who kills them), then run the same command again: what was committed is kept"
    )


class _Tally:
    """Counts the results, and stops the run when it should not continue."""

    def __init__(self, folder: Location, planned: int, options: EngineOptions, accepted: int) -> None:
        self.folder, self.planned, self.options = folder, planned, options
        self.limit = max(options.reject_limit(planned), accepted)
        self.done = self.kept = 0
        self.reasons: Counter[str] = Counter()

    @property
    def rejected(self) -> int:
        return self.reasons.total()

    def add(self, result: ShardResult) -> None:
        """Raises EngineError when the shard reports that the run cannot continue, or when there are too many rejects."""
        if result.error is not None:
            raise self._failure(result)
        items = result.written + result.rejected
        self.done += items
        self.kept += items if result.kept else 0
        self.reasons.update(result.reasons)
        if self.rejected > self.limit:
            raise EngineError(
                f"{self.folder}: {self.rejected} of {self.planned} items rejected, more than the {self.limit} that --max-rejects "
                f"{self.options.max_rejects:g} allows ({_listed(self.reasons)}); see {self.folder / REJECT_FOLDER}; then run `facegraft retry`, "
                "or the same command with a higher --max-rejects: what was committed is kept"
            )

    def _failure(self, result: ShardResult) -> EngineError:
        if not result.defect:
            return EngineError(result.error)
        path = self.folder / LOG_FOLDER / f"shard-{result.shard:05d}-error.txt"
        write_bytes_atomic(path, result.defect.encode(errors="replace"))
        return EngineError(f"{result.error} (traceback in {path})")


def _listed(reasons: Counter[str]) -> str:
    parts = [f"{count} × {reason}" for reason, count in reasons.most_common(3)]
    return "; ".join([*parts, f"{len(reasons) - 3} other reasons"] if len(reasons) > 3 else parts)


@contextmanager
def _resumable(folder: Location) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise RunInterrupted(
            f"stopped; what was committed in {folder} is kept: run the same command again to go on"
        ) from None


def _rejected_in(commit: Mapping[str, Any]) -> int:
    return sum(row["status"] == "rejected" for row in commit["rows"])


def _left_if_whole(folder: Location, record: RunRecord, start: float) -> RunSummary | None:
    """The result of a finished run whose files are all there: every shard is committed, and index and attachments match dataset.json.
    None where they are not; a reader's message then asks to run the command again."""
    committed, reasons = _count_commits(folder, record)
    if committed != record.shards or sound_fingerprint(folder) is None:
        return None
    # A disconnected worker may have outlived the run that gave it up.
    sweep_shards(folder)
    return _summary_of_finished(folder, record, reasons, start)


def _count_commits(folder: Location, record: RunRecord) -> tuple[int, Counter[str]]:
    """How many shards are committed, and how many of their items were rejected for what."""
    committed, reasons = 0, Counter[str]()
    for _, commit in commit_records(folder, record):
        committed += 1
        reasons.update(row["reason"] for row in commit["rows"] if row["status"] == "rejected")
    return committed, reasons


def _summary_of_finished(folder: Location, record: RunRecord, reasons: Counter[str], start: float) -> RunSummary:
    written = record.planned - reasons.total()
    return RunSummary(
        folder, record.planned, written, reasons.total(), dict(reasons), record.planned, True, time.monotonic() - start
    )
