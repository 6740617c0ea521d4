"""An existing Dask cluster: separately started scheduler and workers, some of which go away."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
from dask_cluster import Cluster, Place
from distributed import Future
from toy_runs import dataset_hash, options, run
from toy_stages import gate, toy_plan

import facegraft
from facegraft.engine import EngineError, start_client
from facegraft.engine.cluster.workers import WorkerPool
from facegraft.testing.clock import HeldClock

pytestmark = pytest.mark.slow


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.close()


PLAN = toy_plan(32, 2, {9: "refuse"})
HANGS_S = 600.0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    run(PLAN, output, scheduler="sync")
    return dataset_hash(output)


def test_address_and_scheduler_file_and_workers_with_several_threads(
    tmp_path: Path, dask: Cluster, undisturbed: dict[str, str]
) -> None:
    dask.worker("a", threads=3)
    run(PLAN, tmp_path / "by_file", scheduler=str(dask.file))
    run(PLAN, tmp_path / "by_address", scheduler=dask.address)
    assert dataset_hash(tmp_path / "by_file") == dataset_hash(tmp_path / "by_address") == undisturbed


def at_submit(client: Any, number: int, act: Callable[[], None]) -> None:
    """Do something when the shard of that number is submitted."""
    submit, calls = client.submit, []

    def disturbed(task: object) -> None:
        calls.append(task)
        if len(calls) == number:
            act()
        submit(task)

    client.submit = disturbed


def other_facegraft(folder: Path, version: str) -> Place:
    """Where a worker imports a copy of facegraft that calls itself another version."""
    shutil.copytree(Path(facegraft.__file__).parent, folder / "facegraft")
    init = folder / "facegraft" / "__init__.py"
    text, count = re.subn(r'__version__ = "[^"]+"', f'__version__ = "{version}"', init.read_text())
    assert count == 1
    init.write_text(text)
    return Place(environment={"PYTHONPATH": str(folder)})


def no_facegraft(folder: Path) -> Place:
    """Where importing facegraft fails as if it were not installed."""
    (folder / "facegraft").mkdir(parents=True)
    (folder / "facegraft" / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'facegraft'\")\n")
    return Place(environment={"PYTHONPATH": str(folder)})


def made_by(output: Path) -> set[int]:
    """The processes that made the shards."""
    return {json.loads(path.read_text())["pid"] for path in (output / "logs").glob("*-of-*.json")}


def test_a_worker_with_another_version_is_named_and_gets_nothing(
    tmp_path: Path, dask: Cluster, undisturbed: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    dask.worker("old", threads=4, place=other_facegraft(tmp_path / "old_code", "0.0.9"))
    dask.worker("none", threads=4, place=no_facegraft(tmp_path / "no_code"))
    dask.worker("good")
    with start_client(options(scheduler=dask.address)) as client:
        wait_for_workers(client, 3)
        with caplog.at_level(logging.WARNING, logger="facegraft"):
            summary = run(PLAN, tmp_path / "out", client)
    assert dataset_hash(tmp_path / "out") == undisturbed
    assert summary.reasons == {"too few faces": 1}
    assert made_by(tmp_path / "out") == {dask.processes["good"].pid}
    lines = sorted(record.getMessage() for record in caplog.records)
    assert len(lines) == 2
    assert re.fullmatch(
        r"worker none at tcp://127.0.0.1:\d+ gets no work: facegraft cannot be imported there "
        rf"\(ModuleNotFoundError: No module named 'facegraft'\); install facegraft {facegraft.__version__} there",
        lines[0],
    )
    assert re.fullmatch(
        rf"worker old at tcp://127.0.0.1:\d+ gets no work: it has facegraft 0.0.9, this run needs {facegraft.__version__}; "
        "install the same version there",
        lines[1],
    )


def test_only_unfit_workers_end_the_run_before_anything_is_made(tmp_path: Path, dask: Cluster) -> None:
    dask.worker("old", place=other_facegraft(tmp_path / "old_code", "0.0.9"))
    with pytest.raises(
        EngineError,
        match=r"none of the 1 Dask workers can make this run: old at tcp://\S+: it has facegraft 0.0.9, this run needs",
    ):
        run(PLAN, tmp_path / "out", scheduler=dask.address)
    assert not list((tmp_path / "out").glob("shards/*")) and not list((tmp_path / "out").glob("rejects/*"))


def test_a_worker_with_another_version_that_joins_in_mid_run_gets_nothing(
    tmp_path: Path, dask: Cluster, undisturbed: dict[str, str]
) -> None:
    """The run is not over before the newcomer has been turned away: the last items wait for that."""
    turned_away = tmp_path / "gate"
    dask.worker("good", place=Place(environment=gate(turned_away, 16)))
    old = other_facegraft(tmp_path / "old_code", "0.0.9")

    class OpenGate(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("worker old at "):
                turned_away.touch()

    handler, log = OpenGate(), logging.getLogger("facegraft")
    log.addHandler(handler)
    try:
        with start_client(options(scheduler=dask.address)) as client:
            at_submit(client, 4, lambda: dask.worker("old", threads=8, place=old))
            run(PLAN, tmp_path / "out", client, item_timeout_s=HANGS_S)
    finally:
        log.removeHandler(handler)
    assert turned_away.exists()
    assert made_by(tmp_path / "out") == {dask.processes["good"].pid}
    assert dataset_hash(tmp_path / "out") == undisturbed


def shards_of(hashes: dict[str, str]) -> dict[str, str]:
    return {name: sha256 for name, sha256 in hashes.items() if name.endswith(".safetensors")}


def wait_for_workers(client: Any, count: int) -> None:
    client._client.wait_for_workers(count, timeout=HANGS_S)


def test_a_scheduler_without_facegraft_is_named(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, no_facegraft(tmp_path / "no_code"))
    try:
        with pytest.raises(
            EngineError,
            match=r"the scheduler at tcp://\S+: facegraft cannot be imported there .* start it in an environment that has",
        ):
            run(PLAN, tmp_path / "out", scheduler=cluster.address)
    finally:
        cluster.close()


def test_a_worker_that_restarts_under_its_nanny_goes_on(
    tmp_path: Path, dask: Cluster, undisturbed: dict[str, str]
) -> None:
    """It has another address then, and must be asked anew; the shards it was given are given to it again."""
    dask.worker("a", nanny=True)
    plan = toy_plan(32, 2, {4: "kill_worker", 9: "refuse"})
    run(plan, tmp_path / "out", scheduler=dask.address)
    assert (tmp_path / "worker_killed").exists()
    assert shards_of(dataset_hash(tmp_path / "out")) == shards_of(undisturbed)


def test_a_shard_that_kills_its_worker_every_time_is_named_and_ends_the_run(
    tmp_path: Path, dask: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facegraft.engine.cluster.client._MOVES_ALLOWED", 1)
    dask.worker("a", nanny=True)
    with pytest.raises(EngineError, match=r"shard 1 of \S+ was lost 2 times.*run the same command again"):
        run(toy_plan(12, 3, {4: "kill_worker_always"}), tmp_path / "out", scheduler=dask.address)
    assert not (tmp_path / "out" / "shards" / "00001-of-00004.json").exists()


def test_workers_come_and_go(tmp_path: Path, dask: Cluster, undisturbed: dict[str, str]) -> None:
    dask.worker("a")
    with start_client(options(scheduler=dask.address)) as client:

        def change_the_guard() -> None:
            dask.kill("a")
            dask.worker("b")

        at_submit(client, 4, change_the_guard)
        run(PLAN, tmp_path / "out", client)
    assert dataset_hash(tmp_path / "out") == undisturbed


def test_no_worker_left_is_an_error_and_not_an_end(tmp_path: Path, dask: Cluster) -> None:
    with start_client(options(scheduler=dask.address)) as client:
        clock = client.clock = HeldClock(step_s=15.0)  # type: ignore[attr-defined]
        with pytest.raises(
            EngineError,
            match=r"no Dask worker has been there for 90 s; what was committed is kept; look after the cluster at",
        ):
            run(PLAN, tmp_path / "out", client)
    assert clock.monotonic() == 15 + 7 * 15 + 15, "at the first look after more than 90 s without workers"
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_a_killed_scheduler_is_an_error_and_the_run_goes_on_elsewhere(
    tmp_path: Path, dask: Cluster, undisturbed: dict[str, str]
) -> None:
    dask.worker("a")
    with (
        pytest.raises(
            EngineError, match="connection to the Dask scheduler is lost; what was committed is kept; look after"
        ),
        start_client(options(scheduler=dask.address)) as client,
    ):
        at_submit(client, 4, lambda: dask.kill("scheduler"))
        # Nothing else ends it: a run that did not notice would wait for its shards for ever.
        run(PLAN, tmp_path / "out", client)
    assert not (tmp_path / "out" / "dataset.json").exists()
    run(PLAN, tmp_path / "out", scheduler="sync")
    assert dataset_hash(tmp_path / "out") == undisturbed


def test_a_connection_that_is_lost_just_before_a_shard_is_submitted_is_the_same_error(
    tmp_path: Path, dask: Cluster, undisturbed: dict[str, str]
) -> None:
    dask.worker("a")
    with (
        pytest.raises(EngineError, match="connection to the Dask scheduler is lost; what was committed is kept"),
        start_client(options(scheduler=dask.address)) as client,
    ):
        at_submit(client, 4, client._client.close)  # type: ignore[attr-defined]
        run(PLAN, tmp_path / "out", client)
    run(PLAN, tmp_path / "out", scheduler="sync")
    assert dataset_hash(tmp_path / "out") == undisturbed


def test_a_question_that_is_cancelled_says_nothing_about_the_worker(
    tmp_path: Path, dask: Cluster, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the worker or the scheduler goes before it has answered: asked again, and not taken for unfit."""
    dask.worker("a")
    ask, asked = WorkerPool._ask, []

    def cancelled_twice(staff: WorkerPool, address: str, *question: Any) -> Any:
        future = ask(staff, address, *question)
        asked.append(question)
        if len(asked) in (1, 3):  # for the version, and for the folder
            future.cancel(force=True)
        return future

    monkeypatch.setattr(WorkerPool, "_ask", cancelled_twice)
    run(PLAN, tmp_path / "out", scheduler=dask.address)
    assert len(asked) == 5
    assert dataset_hash(tmp_path / "out") == undisturbed


def test_a_result_that_is_cancelled_is_a_lost_shard(
    tmp_path: Path, dask: Cluster, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the scheduler goes after a shard was made and before its result was fetched: no exception of Dask comes out."""
    dask.worker("a")
    result, cancelled = Future.result, []

    def cancelled_once(future: Future, timeout: float | None = None) -> Any:
        if future.key.startswith("facegraft-") and not cancelled:
            cancelled.append(future.key)
            raise CancelledError(future.key)
        return result(future, timeout)

    monkeypatch.setattr(Future, "result", cancelled_once)
    run(PLAN, tmp_path / "out", scheduler=dask.address)
    assert len(cancelled) == 1
    assert dataset_hash(tmp_path / "out") == undisturbed
