"""Clients that make shards: in this process, on a local Dask cluster, or on an existing one."""

from __future__ import annotations

import asyncio
import queue
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from facegraft.engine.clock import SYSTEM_CLOCK, Clock
from facegraft.engine.cluster.connect import CONNECT_S, connect, dask_module
from facegraft.engine.cluster.local import SYNC, Troubles, local_cluster, refuse_second_import, settings
from facegraft.engine.cluster.watch import Watch, ask_worker
from facegraft.engine.cluster.workers import WorkerPool, scheduler_version
from facegraft.engine.errors import EngineError
from facegraft.engine.job import StageJob
from facegraft.engine.options import EngineOptions
from facegraft.engine.sandbox import InProcessRunner, ItemRunner, Limits
from facegraft.engine.shard_task import ShardResult, ShardTask, run_shard
from facegraft.engine.shortage import shortage

NO_WORKERS_S = 90.0
_ASK_S = 15.0
_ASK_EVERY_S = 2.0
# Submitted shards per worker thread: one being made, one waiting, so that no worker idles between two.
_IN_FLIGHT = 2
# Like Dask's own allowed-failures: how often all workers of a shard may disappear before the shard is suspected.
_MOVES_ALLOWED = 3
_WAKE = ""


@dataclass(frozen=True)
class Outcome:
    """The end of a submitted shard: its result, or in `lost` the reason why its result is unknown."""

    shard: int
    result: ShardResult | None
    lost: str = ""


class ShardClient(Protocol):
    """Makes shards. At most `capacity()` shards should be submitted at a time."""

    def capacity(self) -> int: ...

    def submit(self, task: ShardTask) -> None: ...

    def next_outcome(self, timeout_s: float) -> Outcome | None:
        """The next shard that is done or lost; None after the timeout. Raises EngineError when no worker is left."""
        ...

    def abandon(self) -> None:
        """Forget the submitted shards."""
        ...


class SyncClient:
    """One shard after another in this process, items included: for debugging."""

    def __init__(self) -> None:
        self._waiting: deque[ShardTask] = deque()
        self._job: StageJob | None = None
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

    def _runner_for(self, job: StageJob, limits: Limits) -> ItemRunner:
        if self._runner is None or self._job != job:
            self._runner, self._job = InProcessRunner(job), job
        return self._runner


@dataclass(frozen=True)
class _Submitted:
    """A task submitted to Dask. `workers`: the only workers that may run it; None for all."""

    task: ShardTask
    future: Any
    workers: frozenset[str] | None


class DaskClient:
    """Shards as tasks of a Dask cluster. `own`: the cluster was started for this client, so that its workers have the same facegraft;
    workers of any other cluster are asked before they get work. `remedy`: what a user should do when the cluster is gone. `troubles`: what
    the workers of an own cluster say of theirs."""

    def __init__(self, client: Any, own: bool, remedy: str, troubles: Troubles | None = None) -> None:
        self._client = client
        self._own = own
        self._remedy = remedy
        self._troubles = troubles
        self._watch = Watch(self._ask_workers)
        # Tests replace this clock by one that they move themselves.
        self.clock: Clock = SYSTEM_CLOCK
        self._waiting: deque[ShardTask] = deque()
        self._submitted: dict[str, _Submitted] = {}
        self._done: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._lost: deque[Outcome] = deque()
        self._moves: Counter[int] = Counter()
        self._threads: dict[str, int] = {}
        self._pool: WorkerPool | None = None
        self._warned: set[str] = set()
        self._checked_at: float | None = None
        self._without_workers_s = 0.0

    def capacity(self) -> int:
        threads = self._threads if self._pool is None else self._pool.fit
        return _IN_FLIGHT * max(1, sum(threads.values()))

    def submit(self, task: ShardTask) -> None:
        if not self._own and (self._pool is None or self._pool.job != task.job):
            self._end_job()
            self._pool = WorkerPool(self._client, task.job, lambda: self._done.put(_WAKE), self._warned)
            with self._connected():
                self._pool.update(self._threads)
        self._waiting.append(task)
        with self._connected():
            self._submit_waiting()

    def next_outcome(self, timeout_s: float) -> Outcome | None:
        with self._connected():
            self._check_cluster()
            self._submit_waiting()
        if self._lost:
            return self._lost.popleft()
        key: str | None
        try:
            key = self._done.get(timeout=timeout_s)
        except queue.Empty:
            # Dask calls back from a thread, which it may not have been able to start.
            key = next((key for key, given in self._submitted.items() if given.future.status != "pending"), None)
        if key == _WAKE and self._pool is not None:
            with self._connected():
                self._pool.update(self._threads)
        if key is None or key not in self._submitted:
            return None
        given = self._submitted.pop(key)
        if given.future.status in ("finished", "error"):
            # A worker made it, or died of it: there was one, even if none was there at the moments when they were counted.
            self._without_workers_s = 0.0
            self._watch.moved()
            if self._troubles is not None and given.future.status == "finished":
                self._troubles.moved()
        try:
            with self._connected():
                outcome = _outcome(given.task.shard, given.future)
        finally:
            given.future.release()
        del self._moves[outcome.shard]
        return outcome

    def abandon(self) -> None:
        futures = [given.future for given in self._submitted.values()]
        self._end_job()
        if futures and self._client.status == "running":
            # Without a scheduler no worker can still make them.
            with suppress(dask_module("distributed").client.ClosedClientError):
                self._client.cancel(futures, force=True)

    def _end_job(self) -> None:
        self._submitted.clear()
        self._waiting.clear()
        self._lost.clear()
        self._moves.clear()
        if self._pool is not None:
            self._pool.release()
            self._pool = None

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Turns a lost connection, which may happen at any call, into an EngineError."""
        try:
            yield
        except dask_module("distributed").client.ClosedClientError as error:
            raise self._connection_lost() from error

    def _connection_lost(self) -> EngineError:
        return EngineError(f"the connection to the Dask scheduler is lost; what was committed is kept; {self._remedy}")

    def _submit_waiting(self) -> None:
        """Submit the waiting tasks to Dask, as soon as there is a worker for them."""
        workers = None if self._pool is None else frozenset(self._pool.fit)
        while self._waiting and (workers is None or workers):
            task = self._waiting.popleft()
            # A new key for every attempt: the scheduler must not answer with the remembered result of an earlier one.
            key = f"facegraft-{task.job.stage.partition(':')[2]}-{task.shard}-{uuid.uuid4().hex}"
            where = None if workers is None else sorted(workers)
            future = self._client.submit(run_shard, task, key=key, pure=False, retries=0, workers=where)
            self._submitted[key] = _Submitted(task, future, workers)
            future.add_done_callback(lambda done: self._done.put(done.key))

    def _check_cluster(self) -> None:
        """Count the workers now and then. Raises EngineError when there was no worker for a while, or there is no scheduler."""
        now = self.clock.monotonic()
        if self._troubles is not None and (trouble := self._troubles.worst()) is not None:
            raise EngineError(
                f"the workers end by themselves: {trouble}; what was committed is kept; {self._remedy}, {SYNC}"
            )
        since = 0.0 if self._checked_at is None else now - self._checked_at
        if self._checked_at is not None and since < _ASK_EVERY_S:
            return
        self._checked_at = now
        if self._client.status not in ("running", "connecting"):
            raise self._connection_lost()
        try:
            self._threads = dict(self._client.sync(self._client.scheduler.ncores, callback_timeout=_ASK_S))
        except (OSError, TimeoutError):
            self._threads = {}
        else:
            if self._pool is not None:
                self._pool.update(self._threads)
                self._resubmit_orphans(self._pool.fit)
        there = self._threads if self._pool is None else self._pool.fit if self._threads else {}
        # A pause of this process itself (Ctrl-Z, a suspended machine) says nothing about the workers.
        self._without_workers_s = 0.0 if there else self._without_workers_s + min(since, _ASK_S + _ASK_EVERY_S)
        if self._without_workers_s > NO_WORKERS_S:
            who = f"none of the {len(self._threads)} Dask workers" if self._threads else "no Dask worker"
            what = "has been fit to work" if self._threads else "has been there"
            raise self._stuck(f"{who} {what} for {NO_WORKERS_S:g} s")
        try:
            self._watch.check(now, there, bool(self._submitted))
        except EngineError as stuck:
            raise self._stuck(str(stuck)) from None

    def _stuck(self, what: str) -> EngineError:
        cause = self._troubles.cause() if self._troubles is not None else ""
        known = f" ({cause})" if cause else ""
        return EngineError(f"{what}{known}; what was committed is kept; {self._remedy}")

    def _ask_workers(self, workers: list[str]) -> Future[dict[str, Any]]:
        asked = self._client._run(ask_worker, workers=workers, on_error="return")
        return asyncio.run_coroutine_threadsafe(asked, self._client.loop.asyncio_loop)

    def _resubmit_orphans(self, fit: Mapping[str, int]) -> None:
        """Submit shards again whose workers have all disappeared: Dask would keep them for workers of the same addresses."""
        for key, given in list(self._submitted.items()):
            if given.workers is None or given.workers & fit.keys() or given.future.status != "pending":
                continue
            del self._submitted[key]
            self._client.cancel([given.future], force=True)
            self._moves[given.task.shard] += 1
            if self._moves[given.task.shard] > _MOVES_ALLOWED:
                del self._moves[given.task.shard]
                self._lost.append(Outcome(given.task.shard, None, lost="all workers that it was given to went away"))
            else:
                self._waiting.append(given.task)


def _outcome(shard: int, future: Any) -> Outcome:
    if future.status != "finished":
        error = future.exception(timeout=CONNECT_S) if future.status == "error" else None
        # run_shard lets no exception out, so this one is Dask's: the network's, a dead worker's, or that of an import that fails.
        if error is not None and not isinstance(
            error, (dask_module("distributed").KilledWorker, OSError, TimeoutError)
        ):
            said = f"{type(error).__name__}: {error}"
            return Outcome(
                shard, ShardResult(shard, error=f"a Dask worker cannot run facegraft: {shortage(said) or said}")
            )
        return Outcome(shard, None, lost=f"Dask reports: {type(error).__name__ if error else future.status}")
    try:
        return Outcome(shard, future.result(timeout=CONNECT_S))
    except (OSError, TimeoutError, CancelledError) as error:  # cancelled: the scheduler ended after the shard was made
        return Outcome(shard, None, lost=f"its result did not arrive ({type(error).__name__})")


@contextmanager
def start_client(options: EngineOptions) -> Iterator[ShardClient]:
    """The client for these options; it may serve several runs. Raises EngineError when its cluster cannot be reached."""
    refuse_second_import()
    if options.scheduler == "sync":
        with dask_module("threadpoolctl").threadpool_limits(1):
            yield SyncClient()
        return
    with settings(CONNECT_S):
        if options.scheduler is None:
            with local_cluster(options.workers, options.dashboard) as (client, troubles):
                yield DaskClient(client, True, "run the same command again to go on", troubles)
        else:
            with connect(options.scheduler, options.tls) as client:
                _check_scheduler(client, options.scheduler)
                remedy = f"look after the cluster at {options.scheduler}, then run the same command again to go on"
                yield DaskClient(client, False, remedy)


def _check_scheduler(client: Any, scheduler: str) -> None:
    version, why = scheduler_version(client)
    if version is None:
        raise EngineError(f"the scheduler at {scheduler}: {why}; start it in an environment that has facegraft")
