"""The client that gives shards to Dask, with a stand-in for Dask: what it makes of a cluster whose workers come and go."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from facegraft.engine.cluster.client import NO_WORKERS_S, DaskClient
from facegraft.engine.errors import EngineError
from facegraft.engine.shard_task import ShardResult
from facegraft.testing.clock import HeldClock


class Future:
    """A future of Dask, with its end decided beforehand: finished, or still pending."""

    def __init__(self, key: str, shard: int, status: str) -> None:
        self.key, self.shard, self.status = key, shard, status

    def add_done_callback(self, done: Callable[[Future], None]) -> None:
        if self.status != "pending":
            done(self)

    def result(self, timeout: float) -> ShardResult:
        return ShardResult(self.shard, written=1)

    def release(self) -> None:
        pass


class NoWorkersNow:
    """A cluster that has no worker whenever it is asked; whether shards are made all the same is `status` of their futures."""

    status = "running"
    scheduler = SimpleNamespace(ncores=None)

    def __init__(self, future_status: str) -> None:
        self.future_status = future_status

    def sync(self, function: Any, callback_timeout: float) -> dict[str, int]:
        return {}

    def submit(self, run: Any, task: Any, *, key: str, **how: Any) -> Future:
        return Future(key, task.shard, self.future_status)


def client_of(status: str) -> DaskClient:
    client = DaskClient(NoWorkersNow(status), own=True, remedy="run the same command again")
    client.clock = HeldClock(step_s=15.0)
    return client


def task(shard: int) -> Any:
    return SimpleNamespace(shard=shard, job=SimpleNamespace(stage="toy:Toy"))


def test_shards_that_come_back_prove_that_there_are_workers() -> None:
    """Workers may all be on their way back at each look, when a shard kills them one after the other."""
    client = client_of("finished")
    for shard in range(4 * int(NO_WORKERS_S / 15)):
        client.submit(task(shard))
        outcome = client.next_outcome(0.0)
        assert outcome is not None and outcome.result == ShardResult(shard, written=1)


def test_no_worker_and_no_shard_for_long_ends_the_run() -> None:
    client = client_of("pending")
    client.submit(task(0))
    with pytest.raises(EngineError, match="no Dask worker has been there for 90 s"):
        for _ in range(4 * int(NO_WORKERS_S / 15)):
            assert client.next_outcome(0.0) is None


def test_a_shard_is_noticed_even_if_nobody_calls_back() -> None:
    """Dask calls back from a thread, which may not have started."""
    client = client_of("pending")
    client.submit(task(5))
    assert client.next_outcome(0.0) is None
    (given,) = client._submitted.values()
    given.future.status = "finished"
    outcome = client.next_outcome(0.0)
    assert outcome is not None and outcome.result == ShardResult(5, written=1)
