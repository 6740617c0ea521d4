"""Runners of items: in this process, or in a child process, where an item cannot do harm.

An item is blamed for the death of its child, or for running out of memory, only when the child had done nothing else before. Where the
child had made other items, or was killed from outside, it is replaced, and the item is run again in the new one.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from facegraft.engine.clock import SYSTEM_CLOCK, Clock
from facegraft.engine.errors import EngineError, StageSetupError
from facegraft.engine.job import StageJob, open_stage
from facegraft.engine.sandbox.child import Child, ChildDied, ChildTimeout
from facegraft.engine.stage import ItemResult, PlannedItem, process_item, stage_name
from facegraft.seeds import item_rng

_SETUP_LIMIT_S = 600.0
_ATTEMPTS = 2


@dataclass(frozen=True)
class Limits:
    """Limits of one item: seconds of wall time, bytes of memory."""

    item_timeout_s: float
    memory_bytes: int


class ItemRunner(Protocol):
    """Runs the items of one stage, one after another."""

    def run(self, item: PlannedItem) -> ItemResult:
        """Run one item. Errors of the item become its result; EngineError and the like are raised where no item can be run at all."""
        ...


class InProcessRunner:
    """Items in this process, for debugging: without limits, and a crash ends the run."""

    def __init__(self, job: StageJob) -> None:
        self._job = job
        self._stage, self._seed = open_stage(job)

    def run(self, item: PlannedItem) -> ItemResult:
        return process_item(self._stage, item, item_rng(self._seed, stage_name(self._job.stage), item.key))


class Sandbox:
    """Items in a child process, which is kept from item to item and replaced when it dies or has grown too large.

    `clock`: measures the time limit of an item.
    """

    def __init__(self, job: StageJob, limits: Limits, clock: Clock = SYSTEM_CLOCK) -> None:
        self._job = job
        self._limits = limits
        self._clock = clock
        self._child: Child | None = None
        _all_sandboxes.add(self)

    def run(self, item: PlannedItem) -> ItemResult:
        request = {"op": "item", "key": item.key, "row": item.row, "spec": item.spec}
        result = None
        for _ in range(_ATTEMPTS):
            child = self._ready_child()
            fresh = child.served == 0
            try:
                answer, arrays = child.exchange(request, self._limits.item_timeout_s, self._clock)
            except ChildTimeout:
                self.close()
                return ItemResult(
                    item.key, reason=f"timeout after {self._limits.item_timeout_s:g} s", traceback=child.last_output()
                )
            except ChildDied as death:
                self.close()
                result = ItemResult(item.key, reason=death.reason, traceback=child.last_output())
                if fresh and not death.outside:
                    return result
                continue
            result = _result(item, answer, arrays)
            if result.out_of_memory:
                self.close()
                if fresh:
                    return result
                continue
            child.served += 1
            self._replace_if_grown(child, answer["memory"])
            return result
        assert result is not None
        return result

    def close(self) -> None:
        """Kill the child, if there is one."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def serves(self, job: StageJob, limits: Limits) -> bool:
        return self._job == job and self._limits == limits

    def _ready_child(self) -> Child:
        if self._child is not None and not self._child.alive():
            self.close()
        if self._child is None:
            self._child = self._start()
        return self._child

    def _start(self) -> Child:
        for attempt in range(_ATTEMPTS):
            child = Child(self._limits.memory_bytes)
            try:
                answer, _ = child.exchange({"op": "open", "job": asdict(self._job)}, _SETUP_LIMIT_S, self._clock)
            except ChildTimeout as error:
                raise StageSetupError(f"stage {self._job.stage} was not set up within {_SETUP_LIMIT_S:g} s") from error
            except ChildDied as death:
                if attempt + 1 < _ATTEMPTS:
                    continue
                last_output = child.last_output().strip().splitlines()
                last = f"; its last output: {last_output[-1]}" if last_output else ""
                raise StageSetupError(
                    f"stage {self._job.stage} cannot be set up: its process {death.reason}{last}"
                ) from death
            if answer["status"] == "ready":
                child.base_memory = answer["memory"]
                return child
            child.kill()
            kind = EngineError if answer["known"] else StageSetupError
            raise kind(answer["message"]) from RuntimeError(answer["traceback"])
        raise AssertionError("unreachable")

    def _replace_if_grown(self, child: Child, memory: int) -> None:
        # A leak in native code would otherwise add up until an innocent item runs out of memory.
        if memory > child.base_memory + (self._limits.memory_bytes - child.base_memory) / 2:
            self.close()


def thread_sandbox(job: StageJob, limits: Limits) -> Sandbox:
    """The sandbox of this thread: the same one from shard to shard as long as job and limits stay."""
    sandbox: Sandbox | None = getattr(_of_thread, "sandbox", None)
    if sandbox is None or not sandbox.serves(job, limits):
        if sandbox is not None:
            sandbox.close()
        sandbox = _of_thread.sandbox = Sandbox(job, limits)
    return sandbox


def _result(item: PlannedItem, answer: dict[str, Any], arrays: dict[str, np.ndarray]) -> ItemResult:
    return ItemResult(
        item.key,
        fields={} if answer["offending"] else arrays,
        row=answer["row"],
        reason=answer["reason"],
        traceback=answer["traceback"],
        offending=arrays if answer["offending"] else {},
        out_of_memory=answer["out_of_memory"],
        unreachable=answer["unreachable"],
    )


# A worker process runs many independent tasks; the sandbox that they share is stored in the process.
_of_thread = threading.local()
_all_sandboxes: weakref.WeakSet[Sandbox] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for sandbox in list(_all_sandboxes):
        sandbox.close()
