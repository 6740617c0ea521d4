"""Whether the workers still move: a run in which nothing can happen any more ends with the cause, and a slow one goes on.

The workers are asked now and then which shards they are at. Each step of a shard has a time limit of its own (`facegraft.engine.signs`:
reading and writing files, setting up the stage, an item); a step that takes longer than that, shards that nobody has begun, and workers
that do not answer are what never happens to a healthy run. Time in which this process was itself stopped does not count.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from facegraft.engine.errors import EngineError
from facegraft.engine.signs import SIGNS

ASK_EVERY_S = 15.0
IDLE_S = 120.0
"""Shards are waiting, the workers are there, and none of them is at anything: their tasks or answers are lost."""
SILENT_S = 600.0
"""Workers count as there, and none answers; twice the time after which Dask itself gives a worker up."""
MARGIN_S = 60.0


@dataclass(frozen=True)
class WorkerSigns:
    """`steps`: by thread, (shard, number of the step, its limit in seconds). `engaged`: it does other work, or pauses for memory."""

    steps: dict[int, tuple[int, int, float]]
    engaged: bool


def ask_worker(dask_worker: Any) -> WorkerSigns:
    """Runs on a worker, in its event loop and not in the threads that make shards."""
    steps = SIGNS.all()
    # Tasks of others, or of ours before they begin; a worker that pauses for memory begins none.
    return WorkerSigns(
        steps,
        dask_worker.state.executing_count > len(steps) + _dead(dask_worker) or dask_worker.status.name == "paused",
    )


def _dead(dask_worker: Any) -> int:
    """Tasks that count as running, in an executor none of whose threads lives."""
    threads = getattr(dask_worker.executors["default"], "_threads", None)
    alive = threads is None or any(isinstance(thread, threading.Thread) and thread.is_alive() for thread in threads)
    return 0 if alive else int(dask_worker.state.executing_count)


Ask = Callable[[list[str]], "Future[dict[str, Any]]"]


class Watch:
    """Watches over submitted shards. `ask`: starts asking those workers and returns the future answers, by address."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._answers: Future[dict[str, Any]] | None = None
        self._last: float | None = None
        self._idle_s = self._silent_s = 0.0
        self._quiet: dict[tuple[str, int], tuple[tuple[int, int], float]] = {}

    def moved(self) -> None:
        """A shard has come back."""
        self._idle_s = self._silent_s = 0.0

    def check(self, now: float, workers: Iterable[str], waiting: bool) -> None:
        """To be called often. `waiting`: shards were submitted and have not come back. Raises EngineError where nothing moves."""
        workers = sorted(workers)
        since = 0.0 if self._last is None else now - self._last
        if self._last is not None and since < ASK_EVERY_S:
            return
        self._last = now
        since = min(since, 2 * ASK_EVERY_S)
        if not waiting or not workers:
            self._answers = None
            self._quiet.clear()
            self.moved()
            return
        answers = self._collected()
        if answers:
            self._judge(answers, since)
            self._silent_s = 0.0
        else:
            self._silent_s += since
            if self._silent_s > SILENT_S:
                raise EngineError(f"none of the {len(workers)} workers has answered for {self._silent_s:.0f} s")
        if self._answers is None:
            self._answers = self._ask(workers)

    def _collected(self) -> dict[str, WorkerSigns]:
        """The answers that have come; a question without any stays open for as long as `SILENT_S`."""
        if self._answers is None or not self._answers.done():
            return {}
        answers, self._answers = self._answers, None
        if answers.cancelled() or answers.exception() is not None:
            return {}
        return {address: answer for address, answer in answers.result().items() if isinstance(answer, WorkerSigns)}

    def _judge(self, answers: Mapping[str, WorkerSigns], since: float) -> None:
        before, self._quiet = self._quiet, {}
        for address, answer in answers.items():
            for thread, (shard, number, limit_s) in answer.steps.items():
                last, quiet_s = before.get((address, thread), (None, 0.0))
                quiet_s = quiet_s + since if last == (shard, number) else 0.0
                if quiet_s > limit_s + MARGIN_S:
                    raise EngineError(
                        f"shard {shard} has not moved for {quiet_s:.0f} s at {address}, where {limit_s:g} s is the limit of that step"
                    )
                self._quiet[address, thread] = ((shard, number), quiet_s)
        if any(answer.steps or answer.engaged for answer in answers.values()):
            self._idle_s = 0.0
            return
        self._idle_s += since
        if self._idle_s > IDLE_S:
            raise EngineError(
                f"{len(answers)} workers are there, but have not begun the waiting shards for {self._idle_s:.0f} s"
            )
