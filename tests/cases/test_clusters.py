"""Local clusters that cannot start where people reported it: an answer of one line, with the cause and the way out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from reported_cases import Cases

WAY_OUT = "--scheduler sync"


@pytest.mark.slow
def test_09_a_script_without_a_main_guard(cases: Cases, tmp_path: Path) -> None:
    """It ends in an exception of Python, whose last line says what to do, and not in those of every worker."""
    (script,) = cases.scripts.glob("09_*.py")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=cases.environment(), capture_output=True, text=True, timeout=300, check=False
    )
    lines = done.stderr.strip().splitlines()
    assert done.returncode != 0 and "END OF SCRIPT" not in done.stdout
    assert "__main__" in lines[-1] and 'scheduler="sync"' in lines[-1], lines[-1]
    assert done.stderr.count("Traceback") == 1


@pytest.mark.slow
def test_16_a_shared_memory_that_cannot_be_written(cases: Cases, tmp_path: Path) -> None:
    (script,) = cases.scripts.glob("16_*.sh")
    allowed = subprocess.run(["bash", str(script), "true"], capture_output=True, check=False)
    if allowed.returncode:
        pytest.skip("namespaces are not allowed here (they need root)")
    command = ["bash", str(script), sys.executable, "-m", "facegraft", "ingest", "--kind", "synthetic", "-o", "heads", "--workers", "2"]
    done = subprocess.run(command, cwd=tmp_path, env=cases.environment(), capture_output=True, text=True, timeout=300, check=False)
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("facegraft: error: "))
    assert done.returncode == 1 and "/dev/shm" in line and WAY_OUT in line, done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2 and "Traceback" not in done.stderr
