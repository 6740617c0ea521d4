"""The benchmark scripts run to their end at toy size, as users start them, and say what they should."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(line: str) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "model"), str(ROOT)]),
        "OMP_NUM_THREADS": "1",
    }
    script, *arguments = shlex.split(line)
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_gpu_benchmark_runs_on_a_cpu_and_writes_its_table(tmp_path: Path) -> None:
    output = tmp_path / "gpu.md"
    sizes = "--items 2 --points 64 --steps 1 --rounds 1 --loop-steps 2 --minutes 14 --arm-seconds 600"
    printed = run(f"gpu.py --device cpu --presets tiny-cascade {sizes} --no-compile --output '{output}'")
    text = output.read_text()
    assert text.strip() == printed.strip().replace("\n\n\n", "\n\n")
    assert "float64 agrees to 1e-10" in text
    arms = {line.split(":")[0][2:]: line for line in text.splitlines() if line[:4] in ("| A2", "| B:", "| C:", "| D:")}
    assert set(arms) == {"A2", "B", "C", "D"}
    assert "not compiled" in arms["C"] and "not compiled" in arms["D"]
    for name in ("A2", "B"):
        cells = [cell.strip() for cell in arms[name].split("|")]
        assert float(cells[2].split()[0]) > 0, "milliseconds a step"
        loss, gradient, worst = (float(value) for value in cells[10].split(","))
        assert max(loss, gradient, worst) < 1e-3
    assert "| resident |" in text and "| stream |" in text
    order = ["# Training step", "## Gradients of shared weights", "## Correctness", "points: C, B, A2", "| resident |", "points: D"]
    places = [text.index(words) for words in order]
    assert places == sorted(places), "what matters most comes first"
    sums = [line for line in text.splitlines() if line.startswith(("| fp32 |", "| bf16 |"))]
    assert len(sums) == 2 * 6 and all(float(line.split("|")[6]) < 1e-2 for line in sums)
