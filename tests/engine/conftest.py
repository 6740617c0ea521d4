"""The engine's tests: toy stages on the import path of workers, fingerprints of output folders, scripts run as a user would."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from facegraft.engine import EngineOptions, RunSummary, StagePlan, execute, start_client  # noqa: E402
from facegraft.engine.client import ShardClient  # noqa: E402

STAGE = "toy_stages:ToyStage"


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    inherited = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{inherited}" if inherited else str(HERE))


@pytest.fixture(scope="session")
def cluster() -> Iterator[ShardClient]:
    """One local cluster of two workers for the tests that do not kill it."""
    with start_client(options(workers=2)) as client:
        yield client


def options(**changes: Any) -> EngineOptions:
    return EngineOptions(**{"progress": False, "item_timeout_s": 30.0, "item_memory_gb": 1.0, "max_rejects": 1.0, **changes})


def run(plan: StagePlan, output: Path, client: ShardClient | None = None, scale: float = 1.0, seed: int = 0, **changes: Any) -> RunSummary:
    inputs = [str(output.parent)]
    return execute(STAGE, plan, inputs, output, {"scale": scale, "near": 3}, seed, options(**changes), client=client)


def dataset_hash(folder: Path) -> dict[str, str]:
    """Hash of every file that a dataset consists of (all but logs, lock and rejects' tracebacks)."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    kept = [path for path in files if path.relative_to(folder).parts[0] not in ("logs", "rejects", ".lock")]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start a Python script that runs a toy plan, in a process group of its own."""

    def start(body: str, **kwargs: Any) -> subprocess.Popen[str]:
        path = tmp_path / "script.py"
        lines = "\n".join("    " + line for line in body.strip().splitlines())
        path.write_text(
            "import sys\nfrom pathlib import Path\nfrom conftest import options, run\nfrom toy_stages import toy_plan\n"
            "from facegraft.engine import EngineError\n\n"
            f"def main():\n{lines}\n\n"
            "if __name__ == '__main__':\n"
            "    try:\n        main()\n"
            "    except EngineError as error:\n        print(error, file=sys.stderr)\n        sys.exit(error.exit_code)\n"
        )
        return subprocess.Popen([sys.executable, str(path)], stderr=subprocess.PIPE, text=True, start_new_session=True, **kwargs)

    return start
