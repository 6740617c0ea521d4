"""An existing Dask cluster: separately started scheduler and workers, some of which go away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_runs import dataset_hash, options, run
from toy_stages import toy_plan

from facegraft.engine import EngineError, start_client

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent


class Cluster:
    """A scheduler and workers in processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "scheduler.json"
        self.log = (folder / "cluster.log").open("wb")
        self.processes = {
            "scheduler": self.start(
                "dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"
            )
        }
        deadline = time.monotonic() + 60
        while not self.file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        self.address = json.loads(self.file.read_text())["address"]

    def start(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(HERE)}
        command = [sys.executable, "-m", f"distributed.cli.{program}", "--scheduler-file", str(self.file), *arguments]
        return subprocess.Popen(command, env=environment, stdout=self.log, stderr=self.log, start_new_session=True)

    def worker(self, name: str, threads: int = 1) -> None:
        self.processes[name] = self.start("dask_worker", "--no-nanny", "--nthreads", str(threads), "--name", name)

    def kill(self, name: str) -> None:
        os.killpg(self.processes[name].pid, signal.SIGKILL)
        self.processes.pop(name).wait()


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    for name in list(made.processes):
        made.kill(name)
    made.log.close()


PLAN = toy_plan(32, 2, {9: "refuse"}, seconds=0.1)


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


def test_workers_come_and_go(tmp_path: Path, dask: Cluster, undisturbed: dict[str, str]) -> None:
    dask.worker("a")
    with start_client(options(scheduler=dask.address)) as client:
        submit = client.submit
        calls = []

        def disturb(task: object) -> None:
            calls.append(task)
            if len(calls) == 4:
                dask.kill("a")
                dask.worker("b")
            submit(task)  # type: ignore[arg-type]

        client.submit = disturb  # type: ignore[method-assign]
        run(PLAN, tmp_path / "out", client)
    assert dataset_hash(tmp_path / "out") == undisturbed


def test_no_worker_left_is_an_error_and_not_an_end(
    tmp_path: Path, dask: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facegraft.engine.client.NO_WORKERS_S", 4.0)
    start = time.monotonic()
    with pytest.raises(
        EngineError,
        match=r"no Dask worker has been there for 4 s; what was committed is kept; look after the cluster at",
    ):
        run(PLAN, tmp_path / "out", scheduler=dask.address)
    assert 4 <= time.monotonic() - start < 30
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_a_killed_scheduler_is_an_error_and_the_run_goes_on_elsewhere(
    tmp_path: Path, dask: Cluster, undisturbed: dict[str, str]
) -> None:
    dask.worker("a")
    start = 0.0
    with (
        pytest.raises(
            EngineError, match="connection to the Dask scheduler is lost; what was committed is kept; look after"
        ),
        start_client(options(scheduler=dask.address)) as client,
    ):
        submit = client.submit
        calls = []

        def disturb(task: object) -> None:
            nonlocal start
            calls.append(task)
            if len(calls) == 4:
                dask.kill("scheduler")
                start = time.monotonic()
            submit(task)  # type: ignore[arg-type]

        client.submit = disturb  # type: ignore[method-assign]
        run(PLAN, tmp_path / "out", client)
    assert time.monotonic() - start < 60
    assert not (tmp_path / "out" / "dataset.json").exists()
    run(PLAN, tmp_path / "out", scheduler="sync")
    assert dataset_hash(tmp_path / "out") == undisturbed
