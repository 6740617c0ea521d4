"""A machine that starts no further thread, in one kind of process or in all: the run goes on or ends with one line, and never hangs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import fault_rows as rows
import pytest
from fault_checks import check_ends_in_one_line, check_resumed
from run_toys import command, toys

from facegraft.testing.inject import environment
from facegraft.testing.killer import committed
from facegraft.testing.threads import ThreadFault

pytestmark = [pytest.mark.row(rows.THREADS), pytest.mark.xdist_group("threads")]

# Far more than the bounds of the engine (120 s without any progress), and less than for ever.
HANGS_S = 900.0
OTHER_USER = 54321


def places(where: str, counts: list[int], in_ci: int) -> list[Any]:
    marks = {number: pytest.mark.slow if number < in_ci else pytest.mark.faults for number in range(len(counts))}
    return [
        pytest.param(ThreadFault(where, count), id=f"{where}-{count}", marks=marks[number])  # type: ignore[arg-type]
        for number, count in enumerate(counts)
    ]


@pytest.mark.parametrize(
    "fault",
    [
        *places("client", [9, 1, 2, 4, 6, 8, 10, 11, 12, 14], 1),
        *places("worker", [3, 1, 2, 4, 5, 6, 7, 8], 1),
        *places("item", [1], 0),
    ],
)
def test_no_thread_in(
    tmp_path: Path, toy_env: dict[str, str], undisturbed: dict[str, str], fault: ThreadFault
) -> None:
    output = tmp_path / "out"
    line = command(output, workers=2)
    ended = subprocess.run(
        line, env=environment(threads=fault, base=toy_env), capture_output=True, text=True, timeout=HANGS_S
    )
    before = committed(output)
    if ended.returncode:
        check_ends_in_one_line(ended.stderr, "ulimit -u")
    check_resumed(lambda: toys(output, scheduler="sync"), output, before, undisturbed)


def as_other_user() -> list[str]:
    """The start of a command as a user whose processes are only this run's; skips where the machine does not allow it."""
    caps = ["--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override", "--bounding-set=-all,+dac_override"]
    line = ["setpriv", f"--reuid={OTHER_USER}", f"--regid={OTHER_USER}", "--clear-groups", *caps]
    if not shutil.which("setpriv") or subprocess.run([*line, "true"], capture_output=True).returncode:
        pytest.skip("a limit on processes bites no root, and only root can start a command as another user (setpriv)")
    return line


@pytest.mark.parametrize(
    "processes",
    [
        pytest.param(count, marks=pytest.mark.slow if count == 24 else pytest.mark.faults)
        for count in (24, 2, 6, 10, 14, 18, 20, 22)
    ],
)
def test_no_thread_anywhere(
    tmp_path: Path, toy_env: dict[str, str], undisturbed: dict[str, str], processes: int
) -> None:
    output = tmp_path / "out"
    limited = ["bash", "-c", f'ulimit -u {processes} && exec "$@"', "_", *command(output, workers=2)]
    ended = subprocess.run(
        [*as_other_user(), *limited],
        env={**toy_env, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=HANGS_S,
    )
    before = committed(output)
    if ended.returncode:
        check_ends_in_one_line(ended.stderr, "ulimit -u")
    check_resumed(lambda: toys(output, scheduler="sync"), output, before, undisturbed)


def test_the_check_finds_a_hundred_lines() -> None:
    noise = "Traceback (most recent call last):\nRuntimeError: can't start new thread\nno further thread (ulimit -u)\n"
    with pytest.raises(AssertionError, match="one line"):
        check_ends_in_one_line(noise, "ulimit -u")
    with pytest.raises(AssertionError, match="ulimit -u"):
        check_ends_in_one_line("RuntimeError: can't start new thread\n", "ulimit -u")
