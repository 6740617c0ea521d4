"""Poison items and the child that takes them: right reasons, fair blame, nothing left running."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest
from toy_runs import STAGE
from toy_stages import toy_plan

from facegraft.engine.errors import EngineError, StageSetupError
from facegraft.engine.folder import write_attachments
from facegraft.engine.job import StageJob
from facegraft.engine.plan import shard_plan
from facegraft.engine.run_record import run_record, write_run
from facegraft.engine.sandbox import InProcessRunner, Limits, Sandbox
from facegraft.engine.sandbox.child import ChildTimeout, _TimeLimit
from facegraft.engine.stage import ItemResult, PlannedItem
from facegraft.testing.clock import HeldClock

HANGS_S = 600.0
Runner = Callable[..., list[ItemResult]]


def prepare(
    tmp_path: Path, faults: dict[int, str], count: int = 4, stage: str = STAGE
) -> tuple[StageJob, tuple[PlannedItem, ...]]:
    plan = toy_plan(count, count, faults)
    sharded = shard_plan(plan)
    record = run_record(stage, plan, sharded, [str(tmp_path)], {"scale": 2.0}, 0)
    output = tmp_path / "out"
    output.mkdir(exist_ok=True)
    write_run(output, record)
    write_attachments(output, plan)
    return StageJob(stage, str(output), record.inputs, record.commit_sha256(), record.code_version), sharded.items


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Runner]:
    """Run four items, some with faults, in one sandbox."""
    sandboxes = []

    def run(faults: dict[int, str], timeout_s: float = 30.0, memory_gb: float = 1.0) -> list[ItemResult]:
        job, items = prepare(tmp_path, faults)
        sandbox = Sandbox(job, Limits(timeout_s, int(memory_gb * 1e9)))
        sandboxes.append(sandbox)
        return [sandbox.run(item) for item in items]

    yield run
    for sandbox in sandboxes:
        sandbox.close()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("segfault", "crashed: signal 11 (SIGSEGV)"),
        ("exit", "crashed: exit code 3"),
        ("memory", "killed: memory limit 1 GB"),
        ("nameless", "error: ValueError: bad object at 0x…"),
        ("refuse", "too few faces"),
        ("killed", "killed: signal 9 (SIGKILL), most likely the machine's memory was full"),
    ],
)
def test_a_poison_item_is_rejected_with_its_reason_and_nobody_else(process: Runner, fault: str, reason: str) -> None:
    results = process({2: fault})
    assert [result.reason for result in results] == [None, None, reason, None]
    assert results[3].fields["vertices"].shape == (4, 3)


def test_a_hanging_item_is_killed_when_its_time_is_up(tmp_path: Path) -> None:
    """The time runs for the second item alone, so that the others are innocent on the slowest machine."""
    job, items = prepare(tmp_path, {1: "endless"})
    clock = HeldClock()
    with closing(Sandbox(job, Limits(2.0, 10**9), clock)) as sandbox:
        reasons = [sandbox.run(items[0]).reason]
        clock.step_s = 0.5
        reasons.append(sandbox.run(items[1]).reason)
        clock.step_s = 0.0
        reasons += [sandbox.run(item).reason for item in items[2:]]
    assert reasons == [None, "timeout after 2 s", None, None]
    # Four waits of half a second, two looks at the clock each: it is killed when its time is up, and not later.
    assert clock.monotonic() == 4 * 2 * 0.5


def test_an_item_killed_from_outside_is_not_blamed(process: Runner) -> None:
    assert [result.reason for result in process({2: "killed_once"})] == [None] * 4


def test_an_item_is_not_blamed_for_what_the_one_before_broke(process: Runner) -> None:
    assert [result.reason for result in process({1: "poisons_next"})] == [None] * 4


def test_a_child_that_has_grown_is_replaced_before_an_innocent_item_pays(process: Runner) -> None:
    assert [result.reason for result in process({0: "leak", 1: "leak", 2: "leak"})] == [None] * 4


def test_a_pause_of_the_worker_does_not_use_up_the_items_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-Z, a suspended laptop, a jump of the clock: every wait counts for a second at most."""
    monkeypatch.setattr("facegraft.engine.sandbox.child._SLICE_S", 0.01)
    clock = HeldClock(step_s=3600.0)
    receive, send = os.pipe()
    try:
        with pytest.raises(ChildTimeout):
            _TimeLimit(0.055, clock).wait(receive, select.POLLIN)
        assert clock.monotonic() == (2 * 6 + 1) * 3600
    finally:
        os.close(receive)
        os.close(send)


def test_noise_on_stdout_does_not_get_between_the_messages(process: Runner) -> None:
    assert [result.reason for result in process({1: "noise"})] == [None] * 4


def test_a_crash_leaves_its_last_words(process: Runner) -> None:
    # faulthandler in the child tells where in the stage it was.
    assert "in _segfault" in process({2: "segfault"})[2].traceback


def test_a_refusal_keeps_its_offending_arrays(process: Runner) -> None:
    result = process({0: "refuse"})[0]
    assert result.offending["vertices"].shape == (4, 3) and not result.fields


def test_child_and_process_give_the_same_values(process: Runner, tmp_path: Path) -> None:
    results = process({})
    job, items = prepare(tmp_path, {})
    runner = InProcessRunner(job)
    for item, result in zip(items, results, strict=True):
        here = runner.run(item)
        assert here.row == result.row
        for name in here.fields:
            np.testing.assert_array_equal(here.fields[name], result.fields[name])


def test_in_process_rejects_exceptions_too(tmp_path: Path) -> None:
    job, items = prepare(tmp_path, {1: "nameless", 2: "refuse"})
    runner = InProcessRunner(job)
    assert [runner.run(item).reason for item in items] == [
        None,
        "error: ValueError: bad object at 0x…",
        "too few faces",
        None,
    ]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (
            "toy_stages:BrokenStage",
            "stage toy_stages:BrokenStage cannot be set up: RuntimeError: the template is missing",
        ),
        ("toy_stages:NoStage", "AttributeError"),
        ("no_such_module:Stage", "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_a_stage_that_cannot_be_built_is_no_items_fault(tmp_path: Path, stage: str, message: str) -> None:
    job, items = prepare(tmp_path, {}, stage=stage)
    with pytest.raises(StageSetupError, match=message):
        Sandbox(job, Limits(30.0, 10**9)).run(items[0])


def test_a_worker_with_another_version_is_refused_by_name(tmp_path: Path) -> None:
    job, items = prepare(tmp_path, {})
    other = StageJob(**{**job.__dict__, "code_version": "99.0"})
    with pytest.raises(EngineError, match=r"worker on \S+ has facegraft \S+, this run needs 99.0"):
        Sandbox(other, Limits(30.0, 10**9)).run(items[0])


def test_damaged_shared_arrays_are_noticed(tmp_path: Path) -> None:
    job, items = prepare(tmp_path, {})
    shared = Path(job.output) / "shared.safetensors"
    raw = bytearray(shared.read_bytes())
    raw[-1] ^= 1
    shared.write_bytes(raw)
    with pytest.raises(EngineError, match=r"shared\.safetensors is damaged"):
        Sandbox(job, Limits(30.0, 10**9)).run(items[0])


def test_the_child_dies_with_its_worker(tmp_path: Path) -> None:
    """Also in the middle of an endless item, and when the worker is killed without a chance to tidy up."""
    job, items = prepare(tmp_path, {0: "endless"})
    code = f"""
import sys; sys.path[:0] = {sys.path!r}
from facegraft.engine.job import StageJob
from facegraft.engine.sandbox import Limits, Sandbox
from facegraft.engine.stage import PlannedItem
sandbox = Sandbox(StageJob(**{job.__dict__!r}), Limits({HANGS_S}, 10**9))
print(sandbox._ready_child().pid, flush=True)
sandbox.run(PlannedItem({items[0].key!r}, {items[0].row!r}, {items[0].spec!r}))
"""
    worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    child = int(worker.stdout.readline())
    while not (tmp_path / "endless").exists():
        assert worker.poll() is None
        time.sleep(0.01)
    assert is_running(child)
    worker.kill()
    worker.wait()
    psutil.wait_procs([psutil.Process(child)] if psutil.pid_exists(child) else [], timeout=HANGS_S)
    assert not is_running(child)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
