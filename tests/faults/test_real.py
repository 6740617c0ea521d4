"""The real pipeline, all four stages on synthetic heads, killed again and again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fault_rows as rows
import numpy as np
import pytest
from fault_checks import check_complete, check_final_names, check_not_made_again
from toy_runs import dataset_hash

from facegraft.testing.killer import committed, family, kill

pytestmark = pytest.mark.faults

STAGES = ("heads", "composites", "surfaces", "samples")
KILLS = 20
SETTINGS = [
    "ingest.subjects=6", "ingest.expressions=2", "ingest.shard_items=2",
    "graft.donors=2", "graft.stage_points=256", "graft.shard_items=2", "clean.shard_items=3",
    "sample.surface=2000", "sample.near=1000", "sample.free=500", "sample.shard_items=3",
]  # fmt: skip


def command(output: Path, *more: str) -> list[str]:
    chosen = [part for setting in SETTINGS for part in ("--set", setting)]
    return [
        sys.executable,
        "-m",
        "facegraft",
        "run",
        "demo",
        "--seed",
        "3",
        "--quiet",
        *chosen,
        *more,
        "-o",
        str(output),
    ]


def all_committed(output: Path) -> dict[str, dict[str, tuple[int, int]]]:
    return {stage: committed(output / stage) for stage in STAGES}


@pytest.mark.row(rows.KILL_REAL)
def test_killed_again_and_again(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    whole, output = tmp_path / "whole", tmp_path / "out"
    subprocess.run(command(whole, "--scheduler", "sync"), check=True, capture_output=True, timeout=900)
    undisturbed = {stage: dataset_hash(whole / stage) for stage in STAGES}
    shards = sum(len(marks) for marks in all_committed(whole).values())
    rng = np.random.default_rng(7)
    before, kills = all_committed(output), 0
    # Each time a few shards further, so that the kills are spread over all stages.
    for goal in np.linspace(0, shards - 1, KILLS).round().astype(int):
        process = subprocess.Popen(
            command(output, "--workers", "2"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while sum(len(marks) for marks in all_committed(output).values()) < goal and process.poll() is None:
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0, 1.5)))
        kills += process.poll() is None
        kill(family(process.pid))
        process.wait()
        for stage in STAGES:
            check_final_names(output / stage, undisturbed[stage])
            check_not_made_again(output / stage, before[stage])
        before = all_committed(output)
    done = subprocess.run(command(output, "--workers", "2"), capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    for stage in STAGES:
        check_complete(output / stage, undisturbed[stage])
        check_not_made_again(output / stage, before[stage])
    record_property("note", f"{kills} of {KILLS} kills in mid-run, {shards} shards")
    assert kills >= KILLS // 2
