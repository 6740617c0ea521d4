"""SIGKILL and SIGSTOP, at 20 random moments of a run each: resumed, the same bytes, nothing made twice."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fault_rows as rows
import numpy as np
import psutil
import pytest
from fault_checks import check_complete, check_final_names, check_not_made_again
from run_toys import SHARDS, command, toys

from facegraft.engine import EngineError
from facegraft.testing.cluster import OwnCluster
from facegraft.testing.killer import (
    Moment,
    committed,
    dask_workers,
    end_chaos,
    family,
    kill,
    moments,
    stopped,
    unleash_chaos,
    wait_for,
)

Note = Callable[[str, object], None]


def random_moments(seed: int, count: int = 20, in_ci: int = 2) -> Any:
    """A test for every moment; all but the first few are for `make faults` alone."""
    chosen = moments(seed, count, SHARDS, shard_s=0.15)
    marks = [pytest.mark.slow if number < in_ci else pytest.mark.faults for number in range(count)]
    return pytest.mark.parametrize(
        "moment", [pytest.param(moment, id=str(number), marks=marks[number]) for number, moment in enumerate(chosen)]
    )


@pytest.fixture
def start(toy_env: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started = []

    def begin(line: list[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(line, env=toy_env, stderr=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        kill(family(process.pid))
        process.communicate()


def resumed(output: Path, undisturbed: dict[str, str], **how: Any) -> None:
    """Look at what is there, run the same command again, compare."""
    if output.exists():
        check_final_names(output, undisturbed)
    before = committed(output)
    toys(output, **how)
    check_complete(output, undisturbed)
    check_not_made_again(output, before)


@pytest.mark.row(rows.KILL_EVERYTHING)
@pytest.mark.xdist_group("everything")
@random_moments(1)
def test_everything(tmp_path: Path, start: Any, undisturbed: dict[str, str], moment: Moment) -> None:
    output = tmp_path / "out"
    process = start(command(output, workers=2))
    assert wait_for(moment, output, process) or process.returncode == 0, process.communicate()[1]
    kill(family(process.pid))
    resumed(output, undisturbed, scheduler="sync")


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory, toy_env: dict[str, str]) -> Iterator[OwnCluster]:
    with OwnCluster(tmp_path_factory.mktemp("dask"), toy_env) as made:
        made.worker("a")
        made.worker("b")
        made.wait_for_workers(2)
        yield made


@pytest.mark.row(rows.KILL_CLIENT)
@pytest.mark.xdist_group("dask")
@random_moments(2)
def test_client(tmp_path: Path, start: Any, dask: OwnCluster, undisturbed: dict[str, str], moment: Moment) -> None:
    output = tmp_path / "out"
    process = start(command(output, scheduler=dask.address))
    assert wait_for(moment, output, process) or process.returncode == 0, process.communicate()[1]
    process.kill()
    process.wait()
    # At once and on the same cluster, whose workers may still be making shards for the dead client.
    resumed(output, undisturbed, scheduler=dask.address)


def during(moment: Moment, output: Path, action: Callable[[], None]) -> threading.Thread:
    """Do something at a moment of the run that this process is about to start."""

    def wait_and_act() -> None:
        wait_for(moment, output)
        action()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread


@pytest.mark.row(rows.KILL_WORKER)
@pytest.mark.xdist_group("dask")
@random_moments(3)
def test_worker(tmp_path: Path, dask: OwnCluster, undisturbed: dict[str, str], moment: Moment) -> None:
    output = tmp_path / "out"
    before: dict[str, Any] = {}

    def strike() -> None:
        before.update(committed(output))
        dask.kill_worker("a")

    thread = during(moment, output, strike)
    toys(output, scheduler=dask.address)
    thread.join()
    check_complete(output, undisturbed)
    check_not_made_again(output, before)
    dask.wait_for_workers(2)


@pytest.mark.row(rows.KILL_NANNY)
@pytest.mark.xdist_group("dask")
@random_moments(4)
def test_nanny(tmp_path: Path, dask: OwnCluster, undisturbed: dict[str, str], moment: Moment) -> None:
    output = tmp_path / "out"
    before: dict[str, Any] = {}
    orphans: list[psutil.Process] = []

    def strike() -> None:
        before.update(committed(output))
        orphans.extend(dask.kill("b"))
        dask.worker("b")

    thread = during(moment, output, strike)
    toys(output, scheduler=dask.address)
    thread.join()
    check_final_names(output, undisturbed)
    # The worker may outlive the run and die in the middle of a file that nobody waits for: the same command takes that away.
    psutil.wait_procs(orphans, timeout=600)
    toys(output, scheduler=dask.address)
    check_complete(output, undisturbed)
    check_not_made_again(output, before)
    dask.wait_for_workers(2)


@pytest.mark.row(rows.KILL_SCHEDULER)
@pytest.mark.xdist_group("scheduler")
@random_moments(5, in_ci=1)
def test_scheduler(
    tmp_path: Path,
    toy_env: dict[str, str],
    undisturbed: dict[str, str],
    moment: Moment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # How long a result is waited for that will not come; to connect takes milliseconds.
    monkeypatch.setattr("facegraft.engine.cluster.client.CONNECT_S", 15.0)
    output = tmp_path / "out"
    with OwnCluster(tmp_path / "dask", toy_env) as own:
        own.worker("a", nanny=False)
        own.wait_for_workers(1)
        thread = during(moment, output, lambda: own.kill("scheduler"))
        try:
            toys(output, scheduler=own.address)
        except EngineError as error:
            assert "what was committed is kept" in str(error)
            assert not (output / "dataset.json").exists()
        else:
            check_complete(output, undisturbed)
        thread.join()
    resumed(output, undisturbed, scheduler="sync")


@pytest.mark.row(rows.STOP)
@pytest.mark.xdist_group("everything")
@pytest.mark.parametrize("who", ["everything", "worker"])
@random_moments(6, count=3, in_ci=1)
def test_stopped_for_a_while(tmp_path: Path, start: Any, undisturbed: dict[str, str], who: str, moment: Moment) -> None:
    output = tmp_path / "out"
    process = start(command(output, workers=2, item_timeout_s=5.0))
    assert wait_for(moment, output, process) or process.returncode == 0, process.communicate()[1]
    victims = family(process.pid) if who == "everything" else dask_workers(process.pid)[:1]
    before = committed(output)
    with stopped(victims):
        # Longer than an item may take: the stopped time must not count.
        time.sleep(8.0)
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    check_complete(output, undisturbed)
    check_not_made_again(output, before)


@contextmanager
def workers_replaced(own: OwnCluster) -> Iterator[None]:
    """Start another worker for each that has gone, as SLURM and Kubernetes do: one that exits with 0 takes its nanny along."""
    over = threading.Event()

    def replace() -> None:
        while not over.wait(0.5):
            for name in own.ended():
                own.worker(name)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.row(rows.CHAOS)
@pytest.mark.xdist_group("scheduler")
@pytest.mark.faults
@pytest.mark.parametrize("mode", ["sys.exit", "segfault", "graceful"])
def test_chaos(
    tmp_path: Path, toy_env: dict[str, str], undisturbed: dict[str, str], mode: str, record_property: Note
) -> None:
    output = tmp_path / "out"
    with OwnCluster(tmp_path / "dask", toy_env) as own:
        for name in "abc":
            own.worker(name)
        own.wait_for_workers(3)
        unleash_chaos(own.address, delay_s=3.0, mode=mode)
        runs = 0
        with workers_replaced(own):
            while not (output / "dataset.json").exists():
                before = committed(output)
                runs += 1
                assert runs <= 20, "no end in sight"
                try:
                    toys(output, scheduler=own.address)
                except EngineError as error:
                    assert "what was committed is kept" in str(error)
                check_not_made_again(output, before)
        end_chaos(own.address)
    check_complete(output, undisturbed)
    record_property("note", f"{mode}: {runs} run{'s' * (runs > 1)}")


def test_moments_are_spread_and_repeatable() -> None:
    chosen = moments(1, 20, SHARDS)
    assert chosen == moments(1, 20, SHARDS) != moments(2, 20, SHARDS)
    assert {moment.commits for moment in chosen} == set(range(SHARDS))
    assert np.ptp([moment.delay_s for moment in chosen]) > 0.1
