"""Disks that refuse: on every single operation of a run, in worker processes, and for real."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import fault_rows as rows
import numpy as np
import pytest
from fault_checks import check_complete, check_each_failing_write, check_final_names, check_synced
from run_toys import command, plan, toys
from toy_runs import dataset_hash

from facegraft.testing.disk import DiskFault, SmallDiskUnavailable, recorded, small_disk
from facegraft.testing.inject import environment

Note = Callable[[str, object], None]
SMALL = plan(5, 3, seconds=0.0)


def small_run(output: Path) -> None:
    """Two shards, one reject."""
    toys(output, of=SMALL, faults={"item_002": "refusal"}, scheduler="sync")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    output = tmp_path_factory.mktemp("small") / "out"
    small_run(output)
    return dataset_hash(output)


@pytest.mark.row(rows.DISK_EACH)
@pytest.mark.parametrize(
    ("error", "lasting"),
    [
        pytest.param("ENOSPC", True, marks=pytest.mark.slow),
        pytest.param("ENOSPC", False, marks=pytest.mark.faults),
        pytest.param("EIO", False, marks=pytest.mark.faults),
        pytest.param("EACCES", True, marks=pytest.mark.faults),
    ],
)
def test_every_operation_fails_once(
    tmp_path: Path, small: dict[str, str], error: str, lasting: bool, record_property: Note
) -> None:
    count = check_each_failing_write(small_run, tmp_path, error, lasting, small)
    assert count > 50
    record_property("note", f"{count} operations each")


@pytest.mark.row(rows.DISK_EACH)
def test_the_last_steps_fail(tmp_path: Path, small: dict[str, str]) -> None:
    """A quick part of the above: everything that has to do with index and dataset.json."""
    check_each_failing_write(
        small_run, tmp_path, "ENOSPC", True, small, lambda path: path.name.startswith(("index.parquet", "dataset.json"))
    )


@pytest.mark.row(rows.DISK_WORKERS)
@pytest.mark.parametrize(
    ("error", "seed"),
    [
        pytest.param("ENOSPC", 0, marks=pytest.mark.slow),
        *[
            pytest.param(error, seed, marks=pytest.mark.faults)
            for error in ("ENOSPC", "EIO", "EACCES")
            for seed in (1, 2)
        ],
    ],
)
def test_in_workers(
    tmp_path: Path, toy_env: dict[str, str], undisturbed: dict[str, str], error: str, seed: int
) -> None:
    output = tmp_path / "out"
    # Only what lies in shards/ is written by workers.
    nth = int(np.random.default_rng(seed).integers(1, 16 * 2 * 4))
    fault = DiskFault(str(output / "shards"), str(tmp_path / "ledger"), error, nth)
    line = command(output, workers=2)
    done = subprocess.run(
        line, env=environment(fault, base=toy_env), capture_output=True, text=True, timeout=900, check=False
    )
    assert len(recorded(tmp_path / "ledger")) >= nth
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr and f"{output}/shards" in done.stderr
    check_final_names(output, undisturbed)
    toys(output, scheduler="sync")
    check_complete(output, undisturbed)


@pytest.mark.faults
@pytest.mark.row(rows.DISK_SMALL)
def test_a_real_small_disk(tmp_path: Path, toy_env: dict[str, str]) -> None:
    line = [
        "ingest",
        "--kind",
        "synthetic",
        "--subjects",
        "6",
        "--set",
        "shard_items=2",
        "--scheduler",
        "sync",
        "--quiet",
    ]

    def ingest(output: Path) -> subprocess.CompletedProcess[str]:
        program = [command(output)[0], "-m", "facegraft", *line, "-o", str(output)]
        return subprocess.run(program, env=toy_env, capture_output=True, text=True, timeout=900, check=False)

    assert ingest(tmp_path / "whole").returncode == 0
    whole = dataset_hash(tmp_path / "whole")
    size = sum(path.stat().st_size for path in (tmp_path / "whole").rglob("*") if path.is_file())
    for number, share in enumerate((0.1, 0.5, 0.9)):
        try:
            with small_disk(tmp_path / f"disk{number}", int(share * size)) as disk:
                output = disk.path / "out"
                done = ingest(output)
                assert done.returncode == 1, done.stdout
                assert "disk full while writing" in done.stderr and "Traceback" not in done.stderr
                check_final_names(output, whole)
                disk.resize(4 * size)
                assert ingest(output).returncode == 0
                check_complete(output, whole)
        except SmallDiskUnavailable as reason:
            pytest.skip(str(reason))


@pytest.mark.row(rows.POWER)
def test_synced_before_renamed(tmp_path: Path) -> None:
    check_synced(small_run, tmp_path / "run" / "out")
