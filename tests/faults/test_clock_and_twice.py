"""Clocks that jump, and several runs on one folder."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import fault_rows as rows
import pytest
from fault_checks import check_complete, check_not_made_again, check_second_run_is_refused
from run_toys import command, plan, toys

from facegraft.engine import status
from facegraft.testing.clock import ClockJump, jumping_clock
from facegraft.testing.inject import environment
from facegraft.testing.killer import committed
from facegraft.testing.poison import attempts
from facegraft.testing.twice import start_together

DAY, YEAR = 86400.0, 365 * 86400.0
JUMPS = {
    "a day ahead": [ClockJump(2.0, DAY)],
    "a day back": [ClockJump(2.0, -DAY)],
    "to and fro": [ClockJump(1.5, 10 * YEAR), ClockJump(2.0, -60 * YEAR), ClockJump(2.5, 50 * YEAR)],
}


@pytest.mark.row(rows.CLOCK)
@pytest.mark.parametrize("jumps", [pytest.param(name, marks=pytest.mark.faults) for name in JUMPS])
def test_in_every_process(tmp_path: Path, toy_env: dict[str, str], undisturbed: dict[str, str], jumps: str) -> None:
    env = environment(jumps=JUMPS[jumps], base=toy_env)
    # One worker, so that the run is still going on when its processes are two seconds old.
    line = command(tmp_path / "out", workers=1, item_timeout_s=60.0)
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    check_complete(tmp_path / "out", undisturbed)


@pytest.mark.row(rows.CLOCK)
@pytest.mark.parametrize("by_s", [DAY, -DAY, 30 * YEAR, -50 * YEAR])
def test_between_two_runs(tmp_path: Path, quick: dict[str, str], by_s: float) -> None:
    """What an interrupted run left is dated in the future, or long ago."""
    output = tmp_path / "out"
    toys(output, of=plan(seconds=0.0), scheduler="sync")
    (output / "dataset.json").unlink()
    (output / "shards" / "00003-of-00016.json").unlink()
    before = committed(output)
    with jumping_clock([ClockJump(0.0, by_s)]):
        now = status(output)
        assert now.shards_done == 15 and (now.rate is None or now.rate > 0)
        toys(output, of=plan(seconds=0.0), scheduler="sync")
    check_complete(output, quick)
    check_not_made_again(output, before)


@pytest.mark.row(rows.KIT)
def test_a_jump_is_a_jump() -> None:
    before = time.time()
    with jumping_clock([ClockJump(0.0, -YEAR), ClockJump(3600.0, DAY)]):
        assert before - YEAR <= time.time() < before - YEAR + 3600
        assert time.time_ns() < (before - YEAR + 3600) * 1e9
    assert time.time() >= before


@pytest.mark.row(rows.TWICE)
@pytest.mark.parametrize(
    "round",
    [pytest.param(number, marks=pytest.mark.slow if number == 0 else pytest.mark.faults) for number in range(5)],
)
def test_three_runs_at_once(tmp_path: Path, toy_env: dict[str, str], undisturbed: dict[str, str], round: int) -> None:
    journal = tmp_path / "journal"
    lines = [command(tmp_path / "out", scheduler="sync", journal=str(journal))] * 3
    ended = start_together(lines, env=toy_env)
    codes = sorted(end.returncode for end in ended)
    assert codes[0] == 0 and set(codes) <= {0, 1}, ended
    for end in ended:
        assert end.returncode == 0 or "is in use by another run (process " in end.stderr
    assert set(attempts(journal).values()) == {1}
    toys(tmp_path / "again" / "out", scheduler="sync", journal=journal)
    assert (tmp_path / "out" / "shards" / "00000-of-00016.safetensors").read_bytes() == (
        tmp_path / "again" / "out" / "shards" / "00000-of-00016.safetensors"
    ).read_bytes()


@pytest.mark.row(rows.TWICE)
@pytest.mark.faults
def test_two_different_runs_at_once(tmp_path: Path, toy_env: dict[str, str]) -> None:
    ended = start_together([command(tmp_path / "out", scheduler="sync", seed=seed) for seed in (0, 1)], env=toy_env)
    winner, loser = sorted(ended, key=lambda end: end.returncode)
    assert (winner.returncode, loser.returncode) == (0, 1)
    assert "is in use by another run" in loser.stderr or "holds a different run (seed:" in loser.stderr


@pytest.mark.row(rows.TWICE)
def test_a_second_run_is_refused(tmp_path: Path) -> None:
    check_second_run_is_refused(lambda output: toys(output, of=plan(seconds=0.0), scheduler="sync"), tmp_path / "out")
