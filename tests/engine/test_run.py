"""A run as a whole, undisturbed and refused: same bytes everywhere, counts that hold, errors that say what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_runs import STAGE, dataset_hash, options, run
from toy_stages import toy_plan

from facegraft.engine import EngineError, EngineOptions, StageSetupError, retry, start_client, status
from facegraft.engine.locks import locked
from facegraft.store import open_dataset, verify_dataset
from facegraft.store.atomic import temporary_name

POISON = {3: "segfault", 6: "memory", 9: "nameless", 12: "nan", 14: "hang", 17: "wrong_dtype", 19: "refuse"}
REASONS = {
    "item_003": "crashed: signal 11 (SIGSEGV)",
    "item_006": "killed: memory limit 1 GB",
    "item_009": "error: ValueError: bad object at 0x…",
    "item_012": "invalid output: field vertices: 1 of 12 values are NaN or infinite",
    "item_014": "timeout after 15 s",
    "item_017": "invalid output: field vertices: dtype float64 where the schema says float32",
    "item_019": "too few faces",
}


def test_the_same_bytes_in_process_and_with_one_and_two_workers(tmp_path: Path, cluster: Any) -> None:
    plan = toy_plan(21, 4, {5: "refuse"})
    hashes = []
    for name in ("sync", "one", "two"):
        (tmp_path / name).mkdir()
        output = tmp_path / name / "out"
        if name == "two":
            summary = run(plan, output, cluster)
        else:
            summary = run(plan, output, scheduler="sync" if name == "sync" else None, workers=1)
        assert (summary.planned, summary.written, summary.rejected, summary.kept) == (21, 20, 1, 0)
        hashes.append(dataset_hash(output))
    assert hashes[0] == hashes[1] == hashes[2]
    assert len([name for name in hashes[0] if name.endswith(".safetensors")]) == 6 + 1


def test_what_comes_out_is_a_dataset(tmp_path: Path, cluster: Any) -> None:
    run(toy_plan(10, 4, {7: "refuse"}), tmp_path / "out", cluster, scale=3.0)
    dataset = open_dataset(tmp_path / "out")
    assert len(dataset) == 9
    assert dataset.faces.shape == (2, 3)
    assert dataset.region_map == {"name": "toy"}
    assert dataset["item_004"]["extra"].shape == (4,)
    assert dataset.row("item_004")["subject"] == 4
    assert dataset.row("item_004")["mean"] == pytest.approx(float(dataset["item_004"]["vertices"].mean()))
    assert dataset.row("item_007")["reason"] == "too few faces"
    assert not verify_dataset(tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.tmp-*"))


def test_what_a_cut_off_worker_left_goes_when_a_finished_run_is_asked_for_again(tmp_path: Path) -> None:
    output, plan = tmp_path / "out", toy_plan(4, 2)
    run(plan, output, scheduler="sync")
    before = dataset_hash(output)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    shard = output / "shards" / "00001-of-00002.safetensors"
    ours = shard.with_name(temporary_name(shard.name))  # of this process, which lives
    ours.write_bytes(b"half")
    theirs = shard.with_name(ours.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-"))
    theirs.write_bytes(b"half")
    assert run(plan, output, scheduler="sync").kept == 4
    assert ours.exists() and not theirs.exists()
    ours.unlink()
    assert dataset_hash(output) == before


@pytest.mark.slow
def test_poison_items_are_rejected_with_the_right_reason_and_no_other(tmp_path: Path, cluster: Any) -> None:
    summary = run(
        toy_plan(24, 6, POISON), tmp_path / "out", cluster, item_timeout_s=15.0
    )  # the others take milliseconds
    dataset = open_dataset(tmp_path / "out")
    rows = {row["key"]: row["reason"] for row in dataset.index.to_pylist()}
    assert {key: reason for key, reason in rows.items() if reason is not None} == REASONS
    assert summary.reasons == dict.fromkeys(REASONS.values(), 1)
    assert len(dataset) == 24 - len(POISON)
    # The neighbours are what they are without poison.
    run(toy_plan(24, 6), tmp_path / "clean", cluster)
    clean = open_dataset(tmp_path / "clean")
    for key in rows.keys() - REASONS.keys():
        assert (dataset[key]["vertices"] == clean[key]["vertices"]).all()
    rejects = sorted(path.stem for path in (tmp_path / "out" / "rejects").glob("*.json"))
    assert rejects == sorted(REASONS)
    record = json.loads((tmp_path / "out" / "rejects" / "item_009.json").read_text())
    assert (
        record["reason"] == REASONS["item_009"]
        and "Traceback" in record["traceback"]
        and record["spec"]["fault"] == "nameless"
    )
    assert (tmp_path / "out" / "rejects" / "item_019.safetensors").is_file()


def test_a_complete_dataset_is_left_alone(tmp_path: Path, cluster: Any) -> None:
    run(toy_plan(9), tmp_path / "out", cluster)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.name != ".lock"}
    summary = run(toy_plan(9), tmp_path / "out", cluster)
    assert summary.already_complete and summary.written == 9
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.name != ".lock"} == before


def test_only_what_is_missing_or_damaged_is_made_again(tmp_path: Path, cluster: Any) -> None:
    run(toy_plan(20, 4), tmp_path / "out", cluster)
    before = dataset_hash(tmp_path / "out")
    shards = tmp_path / "out" / "shards"
    (tmp_path / "out" / "dataset.json").unlink()
    (shards / "00001-of-00005.json").unlink()
    (shards / "00002-of-00005.safetensors").unlink()
    flipped = bytearray((shards / "00003-of-00005.safetensors").read_bytes())
    flipped[-1] ^= 1
    (shards / "00003-of-00005.safetensors").write_bytes(flipped)
    (tmp_path / "out" / "plan.parquet").write_bytes(b"nonsense")
    (tmp_path / "out" / "shared.safetensors").unlink()
    summary = run(toy_plan(20, 4), tmp_path / "out", cluster)
    assert summary.kept == 8
    assert dataset_hash(tmp_path / "out") == before


def test_another_run_in_the_folder_is_refused_with_the_difference(tmp_path: Path) -> None:
    run(toy_plan(4), tmp_path / "out", scheduler="sync")
    before = dataset_hash(tmp_path / "out")
    with pytest.raises(
        EngineError,
        match=r"out holds a different run \(parameters.scale: 1.0 there, 2.0 now\); choose another output folder",
    ):
        run(toy_plan(4), tmp_path / "out", scheduler="sync", scale=2.0)
    with pytest.raises(EngineError, match=r"seed: 0 there, 7 now"):
        run(toy_plan(4), tmp_path / "out", scheduler="sync", seed=7)
    with pytest.raises(EngineError, match=r'input_fingerprint.toy: "1" there, "2" now'):
        run(replace(toy_plan(4), input_fingerprint={"toy": "2"}), tmp_path / "out", scheduler="sync")
    assert dataset_hash(tmp_path / "out") == before


def test_another_code_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(toy_plan(4), tmp_path / "out", scheduler="sync")
    monkeypatch.setattr("facegraft.__version__", "99.0")
    with pytest.raises(EngineError, match=r'code_version: "\S+" there, "99.0" now'):
        run(toy_plan(4), tmp_path / "out", scheduler="sync")


def test_folders_that_are_not_ours_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "holiday.jpg").touch()
    with pytest.raises(EngineError, match=r"out is not empty and holds no facegraft run \(there is holiday.jpg\)"):
        run(toy_plan(4), tmp_path / "out", scheduler="sync")
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match="file is a file; choose another output folder"):
        run(toy_plan(4), tmp_path / "file", scheduler="sync")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["holiday.jpg"]


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with (
        locked(tmp_path / "out"),
        pytest.raises(EngineError, match=r"out is in use by another run \(process \d+ on \S+\); wait for it"),
    ):
        run(toy_plan(4), tmp_path / "out", scheduler="sync")
    assert run(toy_plan(4), tmp_path / "out", scheduler="sync").written == 4


def test_too_many_rejects_stop_the_run_and_a_higher_limit_goes_on(tmp_path: Path, cluster: Any) -> None:
    plan = toy_plan(20, 4, {2: "refuse", 3: "refuse", 11: "exception"})
    with pytest.raises(
        EngineError,
        match=r"of 20 items rejected, more than the 1 that --max-rejects 0.02 allows .*× too few faces.*rejects",
    ):
        run(plan, tmp_path / "out", cluster, max_rejects=0.02)
    assert not (tmp_path / "out" / "dataset.json").exists()
    summary = run(plan, tmp_path / "out", cluster, max_rejects=0.2)
    assert summary.rejected == 3 and summary.kept > 0 and not summary.already_complete
    assert len(open_dataset(tmp_path / "out")) == 17


def test_one_reject_does_not_stop_a_small_run_unless_none_is_allowed(tmp_path: Path) -> None:
    assert run(toy_plan(4, 4, {1: "refuse"}), tmp_path / "a", scheduler="sync", max_rejects=0.02).rejected == 1
    with pytest.raises(EngineError, match="1 of 4 items rejected, more than the 0"):
        run(toy_plan(4, 4, {1: "refuse"}), tmp_path / "b", scheduler="sync", max_rejects=0.0)


@pytest.mark.parametrize(
    ("share", "planned", "limit"),
    [(0.02, 10, 1), (0.02, 100, 2), (0.02, 149, 2), (0.29, 100, 29), (1.0, 7, 7), (0.0, 7, 0)],
)
def test_reject_limit(share: float, planned: int, limit: int) -> None:
    assert EngineOptions(max_rejects=share).reject_limit(planned) == limit


def test_retry_makes_the_rejected_again(tmp_path: Path, cluster: Any) -> None:
    plan = toy_plan(12, 4, {2: "once", 3: "refuse", 9: "once"})
    assert run(plan, tmp_path / "out", cluster).rejected == 3
    untouched = (tmp_path / "out" / "shards" / "00001-of-00003.safetensors").stat().st_mtime_ns
    (tmp_path / "mended").touch()
    summary = retry(tmp_path / "out", STAGE, options(), client=cluster)
    assert (summary.written, summary.rejected, summary.kept) == (11, 1, 4)
    dataset = open_dataset(tmp_path / "out")
    assert len(dataset) == 11 and dataset.row("item_002")["reason"] is None
    assert not verify_dataset(tmp_path / "out")
    assert (tmp_path / "out" / "shards" / "00001-of-00003.safetensors").stat().st_mtime_ns == untouched
    assert [path.name for path in (tmp_path / "out" / "rejects").glob("*.json")] == ["item_003.json"]


def test_a_retry_in_vain_does_not_lose_the_dataset(tmp_path: Path) -> None:
    plan = toy_plan(12, 4, {2: "refuse", 3: "refuse", 9: "refuse"})
    run(plan, tmp_path / "out", scheduler="sync", max_rejects=0.5)
    before = dataset_hash(tmp_path / "out")
    assert retry(tmp_path / "out", STAGE, options(scheduler="sync", max_rejects=0.02)).rejected == 3
    assert dataset_hash(tmp_path / "out") == before


def test_retry_asks_for_the_stage(tmp_path: Path) -> None:
    run(toy_plan(4), tmp_path / "out", scheduler="sync")
    with pytest.raises(EngineError, match="was made by stage toy_stages:ToyStage, not os:system"):
        retry(tmp_path / "out", "os:system", options(scheduler="sync"))
    assert retry(tmp_path / "out", STAGE, options(scheduler="sync")).already_complete


def test_status_tells_from_the_folder_alone(tmp_path: Path) -> None:
    plan = toy_plan(12, 4, {2: "refuse", 9: "refuse"})
    run(plan, tmp_path / "out", scheduler="sync")
    now = status(tmp_path / "out")
    assert (now.planned, now.written, now.rejected, now.done) == (12, 10, 2, 12)
    assert (now.shards_done, now.shards, now.complete, now.running) == (3, 3, True, False)
    assert now.reasons == {"too few faces": 2}
    (tmp_path / "out" / "dataset.json").unlink()
    (tmp_path / "out" / "shards" / "00002-of-00003.json").unlink()
    with locked(tmp_path / "out"):
        now = status(tmp_path / "out")
    assert (now.written, now.rejected, now.shards_done, now.complete, now.running) == (7, 1, 2, False, True)
    with pytest.raises(EngineError, match="holds no facegraft run"):
        status(tmp_path)


def test_a_broken_stage_stops_the_run_at_once(tmp_path: Path, cluster: Any) -> None:
    with pytest.raises(
        EngineError, match="stage toy_stages:BrokenStage cannot be set up: RuntimeError: the template is missing"
    ):
        run(toy_plan(8), tmp_path / "out", cluster, stage="toy_stages:BrokenStage")
    with pytest.raises(StageSetupError, match=r"must be named as 'package\.module:Class'"):
        run(toy_plan(8), tmp_path / "other", cluster, stage="toy stages")
    assert not (tmp_path / "other").exists()


def test_a_full_disk_stops_the_run_and_it_goes_on_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import os

    real = os.write
    fail = [True]

    def full(descriptor: int, data: bytes) -> int:
        if fail[0] and "00001-of-00003" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(EngineError, match=r"disk full while writing .*00001-of-00003.safetensors"):
        run(toy_plan(12, 4), tmp_path / "out", scheduler="sync")
    assert sorted(path.name for path in (tmp_path / "out" / "shards").iterdir()) == [
        "00000-of-00003.json",
        "00000-of-00003.safetensors",
    ]
    fail[0] = False
    assert run(toy_plan(12, 4), tmp_path / "out", scheduler="sync").kept == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workers": 0}, "--workers must be at least 1"),
        ({"max_rejects": 2.0}, "--max-rejects is a share between 0 and 1"),
        ({"item_timeout_s": 0.0}, "time limit of an item must be positive"),
        ({"item_memory_gb": 0.1}, "memory limit of an item must be at least 0.25 GB"),
    ],
)
def test_options_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        EngineOptions(**changes)


def test_an_unreachable_scheduler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facegraft.engine.cluster.connect.CONNECT_S", 1.0)
    with (
        pytest.raises(EngineError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"),
        start_client(options(scheduler="tcp://127.0.0.1:9")),
    ):
        pass
    with pytest.raises(EngineError, match="neither an address"), start_client(options(scheduler="cluster.json")):
        pass


def test_dask_is_imported_only_when_it_is_needed() -> None:
    """A child that has to import Dask starts twice as slowly, and one is started after every crash."""
    code = "import sys, facegraft.engine, facegraft.engine.sandbox.child_main; sys.exit(any(m.split('.')[0] in ('dask', 'distributed') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_progress_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(toy_plan(8, 4, {1: "refuse"}), tmp_path / "out", scheduler="sync", progress=True)
    assert "toy: 8/8 items, 1 rejected" in capsys.readouterr().err


def test_shards_taken_away_from_a_finished_run_are_made_again(tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(toy_plan(6, 2), output, scheduler="sync")
    before = dataset_hash(output)
    for path in sorted((output / "shards").iterdir())[:2]:
        path.unlink()
    summary = run(toy_plan(6, 2), output, scheduler="sync")
    assert not summary.already_complete
    assert dataset_hash(output) == before
