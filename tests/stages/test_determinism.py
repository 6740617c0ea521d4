"""The same recipe gives the same bytes: with any number of workers, killed or not."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from facegraft.engine import EngineOptions
from facegraft.pipeline import run_recipe
from facegraft.recipe import Recipe
from facegraft.testing.killer import family, kill

COMMAND = [
    sys.executable, "-m", "facegraft", "run", "demo", "--seed", "3", "--quiet", "--workers", "2",
    "--set", "ingest.subjects=6", "--set", "ingest.expressions=2", "--set", "graft.donors=3", "--set", "graft.independent=0.7",
    "--set", "graft.stage_points=512", "--set", "sample.surface=3000", "--set", "sample.near=1500", "--set", "sample.free=1000",
    "--set", "sample.shard_items=8",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_bytes_do_not_depend_on_workers(
    workers: int, small_run: Path, small_recipe: Recipe, tmp_path: Path, content_hash: Callable[[Path], dict[str, str]]
) -> None:
    run_recipe(small_recipe, None, tmp_path / "out", seed=3, options=EngineOptions(workers=workers, progress=False))
    assert content_hash(tmp_path / "out") == content_hash(small_run)


@pytest.mark.slow
def test_killed_half_way_and_run_again(
    small_run: Path, tmp_path: Path, content_hash: Callable[[Path], dict[str, str]]
) -> None:
    """SIGKILL to the command and all that it started, at the start of several stages; the last run is left to finish."""
    output = tmp_path / "out"
    expected = content_hash(small_run)
    for stage in ("composites", "surfaces", "samples"):
        process = subprocess.Popen(
            [*COMMAND, "-o", str(output)], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not (output / stage / "run.json").exists():
            time.sleep(0.02)
        kill(family(process.pid))
        process.wait()
    done = subprocess.run([*COMMAND, "-o", str(output)], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    found = {name: value for name, value in content_hash(output).items() if not name.startswith("report/")}
    assert found == expected


def test_a_finished_run_is_left_alone(
    small_run: Path, small_recipe: Recipe, sync: EngineOptions, content_hash: Callable[[Path], dict[str, str]]
) -> None:
    before = content_hash(small_run)
    times = {path: path.stat().st_mtime_ns for path in small_run.rglob("shards/*")}
    summaries = run_recipe(small_recipe, None, small_run, seed=3, options=sync)
    assert all(summary.already_complete for summary in summaries)
    assert content_hash(small_run) == before
    assert {path: path.stat().st_mtime_ns for path in small_run.rglob("shards/*")} == times


def test_another_seed_is_refused_and_gives_other_heads(
    small_run: Path,
    small_recipe: Recipe,
    sync: EngineOptions,
    tmp_path: Path,
    content_hash: Callable[[Path], dict[str, str]],
) -> None:
    from facegraft.engine import EngineError

    before = content_hash(small_run)
    with pytest.raises(EngineError, match="seed"):
        run_recipe(small_recipe, None, small_run, seed=4, options=sync)
    with pytest.raises(EngineError, match=r"subjects|expressions|input"):
        run_recipe(small_recipe.override(["ingest.subjects=7"]), None, small_run, seed=3, options=sync)
    assert content_hash(small_run) == before
