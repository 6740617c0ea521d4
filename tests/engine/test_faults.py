"""What dies on the way must not change what comes out: kill -9 of everything, of workers, Ctrl-C, two runs at once."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_runs import dataset_hash, options, run
from toy_stages import toy_plan

from facegraft.engine import EngineError, start_client
from facegraft.testing.killer import family, kill

PLAN = "toy_plan(32, 2, {9: 'refuse'})"
# Only a run that will never end is ended by this.
HANGS_S = 600.0
Script = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, cluster: Any) -> dict[str, str]:
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    run(toy_plan(32, 2, {9: "refuse"}), output, cluster)
    return dataset_hash(output)


def commits(output: Path) -> list[Path]:
    return sorted((output / "shards").glob("*.json"))


def wait_for_commits(output: Path, count: int, process: subprocess.Popen[str]) -> None:
    while len(commits(output)) < count:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def half_way(output: Path, workers: int) -> str:
    """A run that makes the first 6 of its 16 shards and then waits, for as long as the test needs."""
    wait = f"os.environ.update(gate(Path({str(output.parent / 'gate')!r}), 12))"
    return f"{wait}\nrun({PLAN}, Path({str(output)!r}), workers={workers}, item_timeout_s={HANGS_S})"


def test_everything_killed_half_way(tmp_path: Path, script: Script, undisturbed: dict[str, str], cluster: Any) -> None:
    output = tmp_path / "out"
    process = script(half_way(output, 2))
    wait_for_commits(output, 5, process)
    kill(family(process.pid))
    process.wait()
    assert not (output / "dataset.json").exists()
    before = {path: path.stat().st_mtime_ns for path in commits(output)}
    assert 5 <= len(before) <= 6
    summary = run(toy_plan(32, 2, {9: "refuse"}), output, cluster)
    assert summary.kept == 2 * len(before)
    assert dataset_hash(output) == undisturbed
    assert {path: path.stat().st_mtime_ns for path in before} == before, "a committed shard was made again"


def test_ctrl_c_keeps_what_is_committed_and_says_how_to_go_on(
    tmp_path: Path, script: Script, undisturbed: dict[str, str], cluster: Any
) -> None:
    output = tmp_path / "out"
    process = script(half_way(output, 2))
    wait_for_commits(output, 4, process)
    # As a terminal does it: the whole foreground group gets the signal.
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=HANGS_S)
    assert process.returncode == 130
    assert errors.strip() == f"stopped; what was committed in {output} is kept: run the same command again to go on"
    assert len(commits(output)) >= 4 and not (output / "dataset.json").exists()
    assert run(toy_plan(32, 2, {9: "refuse"}), output, cluster).kept >= 8
    assert dataset_hash(output) == undisturbed


def test_a_second_run_on_the_folder_is_refused_while_the_first_is_at_work(tmp_path: Path, script: Script) -> None:
    output = tmp_path / "out"
    first = script(half_way(output, 1))
    wait_for_commits(output, 1, first)
    second = script(f"run({PLAN}, Path({str(output)!r}), workers=1)")
    _, errors = second.communicate(timeout=HANGS_S)
    assert second.returncode == 1
    assert f"{output} is in use by another run (process {first.pid} on " in errors
    assert first.poll() is None


def test_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    plan = toy_plan(24, 3, {4: "kill_worker"})
    run(plan, tmp_path / "out", workers=2)
    assert (tmp_path / "worker_killed").exists()
    # The mark is there now, so that the same plan runs undisturbed.
    run(plan, tmp_path / "again", scheduler="sync")
    assert dataset_hash(tmp_path / "out") == dataset_hash(tmp_path / "again")


@pytest.mark.slow
def test_ctrl_c_does_not_wait_for_a_hanging_item(tmp_path: Path, script: Script) -> None:
    output = tmp_path / "out"
    # It hangs for ever, and may do so for longer than this test waits: whoever waited for it would not come back.
    limit = 100 * HANGS_S
    process = script(f"run(toy_plan(8, 2, {{5: 'endless'}}), Path({str(output)!r}), workers=1, item_timeout_s={limit})")
    wait_for_commits(output, 2, process)
    while not (tmp_path / "endless").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=HANGS_S)
    assert process.returncode == 130


@pytest.mark.slow
def test_a_shard_that_kills_its_worker_every_time_ends_the_run(tmp_path: Path) -> None:
    with start_client(options(workers=2)) as client:
        with pytest.raises(EngineError, match=r"shard 1 of \S+ was lost 2 times.*run the same command again"):
            run(toy_plan(12, 3, {4: "kill_worker_always"}), tmp_path / "out", client)
        # Its neighbours are committed, and the cluster goes on to serve.
        assert len(commits(tmp_path / "out")) == 3
        assert run(toy_plan(4), tmp_path / "other", client).written == 4
