"""Where shards are made: in this process, on a local Dask cluster, or on an existing one. Nothing else of the engine imports Dask."""

from __future__ import annotations

import importlib
import logging
import queue
import re
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from facegraft.engine.errors import EngineError
from facegraft.engine.options import EngineOptions
from facegraft.engine.order import StageOrder
from facegraft.engine.sandbox import InProcessRunner, ItemRunner, Limits
from facegraft.engine.shard_task import ShardResult, ShardTask, run_shard
from facegraft.engine.threads import SINGLE_THREAD

NO_WORKERS_S = 90.0
_CONNECT_S = 30.0
_ASK_S = 15.0
_ASK_EVERY_S = 2.0
# Shards in flight per worker thread: one being made, one waiting, so that no worker idles between two.
_IN_FLIGHT = 2


@dataclass(frozen=True)
class Outcome:
    """What came of a submitted shard: a result, or `lost`: why nobody knows what came of it."""

    shard: int
    result: ShardResult | None
    lost: str = ""


class ShardClient(Protocol):
    """Makes shards. At most `capacity()` should be in flight."""

    def capacity(self) -> int: ...

    def submit(self, task: ShardTask) -> None: ...

    def next_outcome(self, timeout_s: float) -> Outcome | None:
        """The next shard that is done or lost; None after the timeout. Raises EngineError when nobody is left to make any."""
        ...

    def abandon(self) -> None:
        """Forget what is in flight."""
        ...


class SyncClient:
    """One shard after another in this process, items included: for debugging."""

    def __init__(self) -> None:
        self._waiting: deque[ShardTask] = deque()
        self._order: StageOrder | None = None
        self._runner: ItemRunner | None = None

    def capacity(self) -> int:
        return 1

    def submit(self, task: ShardTask) -> None:
        self._waiting.append(task)

    def next_outcome(self, timeout_s: float) -> Outcome | None:
        if not self._waiting:
            return None
        task = self._waiting.popleft()
        return Outcome(task.shard, run_shard(task, self._runner_for))

    def abandon(self) -> None:
        self._waiting.clear()

    def _runner_for(self, order: StageOrder, limits: Limits) -> ItemRunner:
        if self._runner is None or self._order != order:
            self._runner, self._order = InProcessRunner(order), order
        return self._runner


class DaskClient:
    """Shards as tasks of a Dask cluster."""

    def __init__(self, client: Any, remedy: str) -> None:
        self._client = client
        self._remedy = remedy
        self._futures: dict[str, tuple[int, Any]] = {}
        self._done: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._threads = 1
        self._asked: float | None = None
        self._without_workers_s = 0.0

    def capacity(self) -> int:
        return _IN_FLIGHT * self._threads

    def submit(self, task: ShardTask) -> None:
        # A key of its own for every attempt: the scheduler must not answer with what it remembers of an earlier one.
        key = f"facegraft-{task.order.stage.partition(':')[2]}-{task.shard}-{uuid.uuid4().hex}"
        future = self._client.submit(run_shard, task, key=key, pure=False, retries=0)
        self._futures[key] = (task.shard, future)
        future.add_done_callback(lambda done: self._done.put(done.key))

    def next_outcome(self, timeout_s: float) -> Outcome | None:
        self._look_at_cluster()
        try:
            key = self._done.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if key not in self._futures:
            return None
        shard, future = self._futures.pop(key)
        try:
            return _outcome(shard, future)
        finally:
            future.release()

    def abandon(self) -> None:
        futures = [future for _, future in self._futures.values()]
        self._futures.clear()
        if futures and self._client.status == "running":
            self._client.cancel(futures, force=True)

    def _look_at_cluster(self) -> None:
        """Count the workers now and then. Raises EngineError when there have been none for a while, or no scheduler."""
        now = time.monotonic()
        since = 0.0 if self._asked is None else now - self._asked
        if self._asked is not None and since < _ASK_EVERY_S:
            return
        self._asked = now
        if self._client.status not in ("running", "connecting"):
            raise EngineError(
                f"the connection to the Dask scheduler is lost; what was committed is kept; {self._remedy}"
            )
        try:
            threads = self._client.sync(self._client.scheduler.ncores, callback_timeout=_ASK_S)
        except (OSError, TimeoutError):
            threads = {}
        # A pause of this very process (Ctrl-Z, a suspended machine) says nothing about the workers.
        self._without_workers_s = 0.0 if threads else self._without_workers_s + min(since, _ASK_S + _ASK_EVERY_S)
        self._threads = max(1, sum(threads.values()))
        if self._without_workers_s > NO_WORKERS_S:
            raise EngineError(
                f"no Dask worker has been there for {NO_WORKERS_S:g} s; what was committed is kept; {self._remedy}"
            )


def _outcome(shard: int, future: Any) -> Outcome:
    if future.status != "finished":
        error = future.exception(timeout=_CONNECT_S) if future.status == "error" else None
        # run_shard lets no exception out, so this one is Dask's: the network's, a dead worker's, or that of an import that fails.
        if error is not None and not isinstance(error, (_module("distributed").KilledWorker, OSError, TimeoutError)):
            return Outcome(
                shard, ShardResult(shard, error=f"a Dask worker cannot run facegraft: {type(error).__name__}: {error}")
            )
        return Outcome(shard, None, lost=f"Dask reports: {type(error).__name__ if error else future.status}")
    try:
        return Outcome(shard, future.result(timeout=_CONNECT_S))
    except (OSError, TimeoutError) as error:
        return Outcome(shard, None, lost=f"its result did not arrive ({type(error).__name__})")


@contextmanager
def start_client(options: EngineOptions) -> Iterator[ShardClient]:
    """The place to make shards that the options ask for; may serve several runs. Raises EngineError when it cannot be reached."""
    if options.scheduler == "sync":
        with _module("threadpoolctl").threadpool_limits(1):
            yield SyncClient()
        return
    dask, distributed = _module("dask"), _module("distributed")
    with dask.config.set(
        {"distributed.diagnostics.nvml": False, "distributed.comm.timeouts.connect": f"{_CONNECT_S:g}s"}
    ):
        if options.scheduler is None:
            count = options.workers or dask.system.CPU_COUNT
            with (
                distributed.LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    # Dask opens a port for its pages in any case: a free one, where nobody else can reach it.
                    dashboard_address=options.dashboard or "127.0.0.1:0",
                    silence_logs=logging.CRITICAL,
                    # Memory is the business of the child: Dask would pause or kill the worker for what the child does.
                    memory_limit=0,
                    env=SINGLE_THREAD,
                    preload=["facegraft.engine.worker_setup"],
                ) as cluster,
                distributed.Client(cluster, set_as_default=False) as client,
            ):
                yield DaskClient(client, "run the same command again to go on")
        else:
            with _connect(options.scheduler) as client:
                yield DaskClient(
                    client, f"look after the cluster at {options.scheduler}, then run the same command again to go on"
                )


def _connect(scheduler: str) -> Any:
    where: dict[str, str]
    if Path(scheduler).is_file():
        where = {"scheduler_file": scheduler}
    elif "://" in scheduler or re.fullmatch(r"[\w.-]+:\d+", scheduler):
        where = {"address": scheduler}
    else:
        raise EngineError(
            f"--scheduler {scheduler!r} is neither an address (tcp://host:8786), nor an existing scheduler file, nor 'sync'"
        )
    try:
        return _module("distributed").Client(**where, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        what = f"no Dask scheduler answers at {scheduler} ({type(error).__name__})"
        raise EngineError(f"{what}; check the address and that it is running") from error


def _module(name: str) -> Any:
    # Imported when needed: neither a worker's child nor `facegraft --help` should wait for Dask.
    return importlib.import_module(name)
