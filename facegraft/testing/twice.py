"""Start several commands at the same instant, to test that they can share a folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Waits for a line on stdin, then becomes the command, so that different start-up times of the interpreters do not matter.
_GATE = "import os, sys; sys.stdin.readline(); os.execvp(sys.argv[1], sys.argv[1:])"


@dataclass(frozen=True)
class Ended:
    """The result of a command."""

    returncode: int
    stderr: str


def start_together(
    commands: Sequence[Sequence[str]], env: Mapping[str, str] | None = None, timeout_s: float = 900.0
) -> list[Ended]:
    """Run the commands at once and wait for all. Raises subprocess.TimeoutExpired after killing them all."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-S", "-c", _GATE, *command],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env,
        )
        for command in commands
    ]  # fmt: skip
    try:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return [Ended(process.wait(timeout_s), process.communicate()[1]) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()
