"""The engine's tests: toy stages on the import path of workers, one cluster for all, scripts run as a user would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
# Test modules are imported by path, so this folder is on no import path; toy_stages has to be importable by name in every process.
sys.path.insert(0, str(HERE))

Script = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """One local cluster of two workers, for the tests that leave it whole."""
    from toy_runs import options

    from facegraft.engine import start_client

    with start_client(options(workers=2)) as client:
        yield client


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    """Start a Python script as a user would, in a process group of its own; what is left of it is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(body: str) -> subprocess.Popen[str]:
        path = tmp_path / f"script_{len(started)}.py"
        lines = "\n".join("        " + line for line in body.strip().splitlines())
        path.write_text(
            "import os\nimport sys\nfrom pathlib import Path\nfrom toy_runs import options, run\nfrom toy_stages import gate, toy_plan\n"
            "from facegraft.engine import EngineError\n\n"
            f"if __name__ == '__main__':\n    try:\n{lines}\n"
            "    except EngineError as error:\n        print(error, file=sys.stderr)\n        sys.exit(error.exit_code)\n"
        )
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        process = subprocess.Popen(
            [sys.executable, str(path)], stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
