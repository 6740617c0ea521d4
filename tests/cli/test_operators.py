"""The commands of an operator: status, retry, verify --deep, doctor, on real stages and on a machine with limits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click.testing
import pytest

from facegraft import doctor as examination
from facegraft.cli.datasets import doctor, retry, status, verify
from facegraft.engine import EngineOptions, read_run
from facegraft.engine.run_record import write_run
from facegraft.errors import FacegraftError
from facegraft.pipeline import graft, ingest

SYNC = EngineOptions(scheduler="sync", progress=False)


def invoke(command: click.Command, *arguments: object) -> click.testing.Result:
    return click.testing.CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("operators") / "out"
    heads = {"kind": "synthetic", "subjects": 4, "expressions": 2, "shard_items": 3}
    ingest(None, folder / "heads", heads, seed=3, options=SYNC)
    graft(folder / "heads", folder / "composites", {"donors": 2}, seed=3, options=SYNC)
    return folder


def test_status_tells_every_stage(run_folder: Path) -> None:
    lines = invoke(status, run_folder).output.splitlines()
    assert lines[0].startswith(f"{run_folder / 'heads'}: complete, 8 of 8 items written, 0 rejected, 3 of 3 shards")
    assert lines[2] == f"{run_folder / 'surfaces'}: not started"
    told = [json.loads(line) for line in invoke(status, run_folder, "--json").output.splitlines()]
    assert [stage["state"] for stage in told] == ["complete", "complete", "not started", "not started"]
    assert (told[0]["planned"], told[0]["written"], told[0]["shards_done"]) == (8, 8, 3)


def test_status_of_a_stopped_run_says_how_to_go_on(tmp_path: Path, run_folder: Path) -> None:
    heads = tmp_path / "heads"
    ingest(None, heads, read_run(run_folder / "heads").parameters, seed=3, options=SYNC)
    (heads / "dataset.json").unlink()
    (heads / "shards" / "00001-of-00003.json").unlink()
    lines = invoke(status, heads).output.splitlines()
    assert lines[0].startswith(f"{heads}: stopped, 5 of 8 items written, 0 rejected, 2 of 3 shards")
    assert "left" not in lines[0] and "last shard " in lines[0]
    assert lines[1] == "  run the same command again to continue"


def test_verify_deep_makes_items_again(run_folder: Path) -> None:
    result = invoke(verify, run_folder / "heads", run_folder / "composites", "--deep", "--items", 3, "--seed", 7)
    assert result.exit_code == 0, result.output
    assert result.output.count("whole, and 3 items made again are the same bit by bit") == 2


def test_verify_deep_notices_other_inputs(tmp_path: Path, run_folder: Path) -> None:
    """Whole by every checksum, but not what its inputs make: the heads were made again with another seed."""
    heads, composites = tmp_path / "heads", tmp_path / "composites"
    ingest(None, heads, read_run(run_folder / "heads").parameters, seed=4, options=SYNC)
    graft(heads, composites, read_run(run_folder / "composites").parameters, seed=3, options=SYNC)
    record = read_run(composites)
    write_run(composites, replace(record, inputs=[str(run_folder / "heads")]))
    assert invoke(verify, composites).exit_code == 0
    result = invoke(verify, composites, "--deep")
    assert isinstance(result.exception, FacegraftError)
    assert "are not those it was made from (input_fingerprint.heads:" in str(result.exception)


def test_a_folder_does_not_decide_what_code_is_run(tmp_path: Path, run_folder: Path) -> None:
    heads = tmp_path / "heads"
    ingest(None, heads, read_run(run_folder / "heads").parameters, seed=3, options=SYNC)
    record = read_run(heads)
    write_run(heads, replace(record, stage="os:system"))
    for command, more in ((verify, ["--deep"]), (retry, ["--scheduler", "sync"])):
        result = invoke(command, heads, *more)
        assert "made by stage 'os:system', which is not one of facegraft's own" in str(result.exception)


def test_tls_options_belong_together(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    result = invoke(retry, tmp_path, "--scheduler", "tls://127.0.0.1:9", "--tls-ca", tmp_path / "ca.pem")
    assert result.exit_code == 2 and "--tls-ca and --tls-cert (and --tls-key) must be given together" in result.output


def test_doctor_knows_limits_of_cores_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, allowed[:1])
    try:
        assert examination.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    job = tmp_path / "groups" / "slurm" / "job"
    job.mkdir(parents=True)
    (tmp_path / "own").write_text("0::/slurm/job\n")
    (job / "memory.max").write_text("max\n")
    (job.parent / "memory.max").write_text("3000000000\n")
    monkeypatch.setattr(examination, "OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(examination, "GROUPS", tmp_path / "groups")
    assert examination.usable_memory() == 3_000_000_000
    monkeypatch.setattr(examination, "usable_cores", lambda: 2)
    monkeypatch.setattr(examination, "_rendering", lambda: examination.Finding("off-screen rendering", "works"))
    result = invoke(doctor)
    assert result.exit_code == 1
    assert "BAD  memory                 3 GB of " in result.output
    assert "→ use fewer --workers: each takes up to 2 GB" in result.output


def test_doctor_notices_dask_and_distributed_of_different_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "_version", {"dask": "2026.8.0", "distributed": "2026.7.1"}.get)
    finding = examination._dask()
    assert not finding.good and finding.found == "dask 2026.8.0, distributed 2026.7.1"
    assert finding.remedy.startswith("pip install dask==2026.7.1 distributed==2026.7.1")


def test_doctor_notices_a_driver_that_torch_cannot_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\n")
    monkeypatch.setattr(examination, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    finding = examination._cuda()
    assert not finding.good and finding.found.startswith("driver 550.54.15 is installed, but torch finds no GPU; torch ")
    monkeypatch.setattr(examination, "DRIVER", tmp_path / "none")
    assert examination._cuda().good


@pytest.mark.parametrize("gpu", [True, False])
def test_doctor_says_whether_training_can_be_compiled(gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr("facegraft_model.compilers.missing_compiler", lambda device: f"no compiler for {device}; install one")
    monkeypatch.setattr(examination, "examine", list)
    result = invoke(doctor)
    assert result.exit_code == (1 if gpu else 0)
    if gpu:
        assert "BAD  torch.compile          training is not compiled here: it takes more time and memory  → no compiler for cuda" in result.output
    else:
        assert "ok   torch.compile          no compiler for cpu; install one (only train.compile=on would need it)" in result.output


def test_doctor_names_a_scheduler_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facegraft.engine.cluster.connect.CONNECT_S", 1.0)
    findings = examination.examine_cluster("tcp://127.0.0.1:9", None)
    assert [finding.good for finding in findings] == [False]
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in findings[0].remedy


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["status", "{run}"], ["--help"], ["inspect", "{run}/heads"]])
def test_output_that_cannot_be_written_is_one_line(run_folder: Path, arguments: list[str], unbuffered: str) -> None:
    command = [sys.executable, "-m", "facegraft", *(text.format(run=run_folder) for text in arguments)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": unbuffered}, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "facegraft: error: cannot write to standard output (No space left on device); what was made is kept\n"
