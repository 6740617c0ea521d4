"""Bad input and bad luck, at the command line: one clear line or a recorded reject, and nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from facegraft.heads import synthetic
from facegraft.store import open_dataset, verify_dataset
from facegraft.testing.disk import DiskFault
from facegraft.testing.inject import environment

RUN = [sys.executable, "-m", "facegraft"]


def facegraft(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, as a user does."""
    return subprocess.run(
        [*RUN, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False, **options
    )  # type: ignore[call-overload]


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str, code: int = 1) -> None:
    """The command failed with one line on stderr that holds these words, and no traceback."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    for word in words:
        assert word in line, line


def obj_text(vertices: np.ndarray, faces: np.ndarray) -> str:
    lines = [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in vertices]
    lines += [f"f {a} {b} {c}" for a, b, c in faces + 1]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def good_text() -> list[str]:
    """OBJ files of four synthetic heads."""
    template = synthetic.template()
    rng = np.random.default_rng(0)
    return [obj_text(synthetic.head(synthetic.sample_identity(rng)), template.faces) for _ in range(4)]


@pytest.fixture
def folder(tmp_path: Path, good_text: list[str]) -> Path:
    raw = tmp_path / "raw"
    raw.mkdir()
    for i, text in enumerate(good_text):
        (raw / f"anna{i}.obj").write_text(text)
    return raw


def ingest(raw: Path, output: Path, *more: object) -> subprocess.CompletedProcess[str]:
    return facegraft(
        "ingest",
        raw,
        "--kind",
        "meshes",
        "--region-map",
        "synthetic",
        "-o",
        output,
        "--scheduler",
        "sync",
        "--quiet",
        *more,
    )


def test_bad_meshes_are_rejected_one_by_one(folder: Path, tmp_path: Path, good_text: list[str]) -> None:
    lines = good_text[0].splitlines()
    vertices = [line for line in lines if line.startswith("v")]
    faces = [line for line in lines if line.startswith("f")]
    bad = {
        "nan": ["v nan 0 0", *vertices[1:], *faces],
        "short": [*vertices[:-5], *[f for f in faces if max(map(int, f.split()[1:])) <= len(vertices) - 5]],
        "shuffled": [*vertices, *[faces[i] for i in np.random.default_rng(0).permutation(len(faces))]],
    }
    for name, content in bad.items():
        (folder / f"{name}.obj").write_text("\n".join(content) + "\n")
    text = good_text[0]
    (folder / "truncated.obj").write_text(text[: len(text) // 3])
    (folder / "unreadable.obj").symlink_to(folder / "nowhere.obj")
    done = ingest(folder, tmp_path / "heads", "--max-rejects", "1")
    assert done.returncode == 0, done.stderr
    assert "4 items written, 5 rejected" in done.stdout
    heads = open_dataset(tmp_path / "heads")
    assert len(heads) == 4 and verify_dataset(tmp_path / "heads") == []
    reasons = {row["subject"]: row["reason"] for row in heads.index.to_pylist() if row["status"] == "rejected"}
    assert set(reasons) == {*bad, "truncated", "unreadable"}
    for name, word in {
        "nan": "nan",
        "short": "vertices",
        "shuffled": "faces",
        "truncated": "truncated",
        "unreadable": "cannot be read",
    }.items():
        assert word in reasons[name].lower(), reasons[name]
        assert f"{name}.obj" in reasons[name], reasons[name]
        record = json.loads(next((tmp_path / "heads" / "rejects").glob(f"{name}*.json")).read_text())
        assert record["reason"] == reasons[name]


def test_too_many_rejects_stop_the_run_and_say_so(folder: Path, tmp_path: Path) -> None:
    for i in range(3):
        (folder / f"bad{i}.obj").write_text("v 0 0 0\n")
    done = ingest(folder, tmp_path / "heads")
    assert_one_line(done, "rejected", "--max-rejects")
    assert not (tmp_path / "heads" / "dataset.json").exists()
    again = ingest(folder, tmp_path / "heads", "--max-rejects", "0.5")
    assert again.returncode == 0, again.stderr
    assert len(open_dataset(tmp_path / "heads")) == 4


def test_sources_that_are_none(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for kind in ("ict", "facescape", "flame"):
        done = facegraft("ingest", empty, "--kind", kind, "-o", tmp_path / "heads", "--scheduler", "sync")
        assert_one_line(done, "empty")
    assert_one_line(ingest(empty, tmp_path / "heads"), "empty")
    assert_one_line(ingest(tmp_path / "nowhere", tmp_path / "heads"), "nowhere")
    assert_one_line(facegraft("graft", empty, "-o", tmp_path / "c"), "empty")
    assert facegraft("verify", empty).returncode == 1
    assert not (tmp_path / "heads").exists() and not (tmp_path / "c").exists()


def test_wrong_usage_exits_with_2_and_names_the_nearest() -> None:
    done = facegraft("ingest", "--kind", "itc", "-o", "x")
    assert done.returncode == 2 and "itc" in done.stderr
    assert_one_line(
        facegraft("sample", "x", "-o", "y", "--set", "surfice=3"), "surfice", "(did you mean 'sample.surface'?)", code=2
    )
    assert_one_line(
        facegraft("run", "demo", "-o", "y", "--set", "sample.surfice=3"), "(did you mean 'sample.surface'?)", code=2
    )
    assert_one_line(facegraft("run", "dmo", "-o", "y"), "(did you mean 'demo'?)", code=2)


def test_a_folder_that_holds_something_else_is_left_alone(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "heads"
    assert ingest(folder, output).returncode == 0
    before = {
        p: p.read_bytes() for p in output.rglob("*") if p.is_file() and "logs" not in p.parts and p.name != ".lock"
    }
    done = ingest(folder, output, "--set", "test_fraction=0.5")
    assert_one_line(done, "test_fraction", "0.5")
    assert_one_line(ingest(folder, output, "--seed", "9"), "seed")
    assert all(path.read_bytes() == data for path, data in before.items())
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter1.tex").write_text("years of work")
    assert_one_line(ingest(folder, foreign), "thesis")
    assert [path.name for path in foreign.iterdir()] == ["chapter1.tex"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small filesystem needs root")
def test_full_disk_and_then_space(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", small], capture_output=True, check=False
        ).returncode
        != 0
    ):
        pytest.skip("this machine lets nobody mount a tmpfs")
    command = [
        "ingest",
        "--kind",
        "synthetic",
        "--subjects",
        "24",
        "--expressions",
        "1",
        "--set",
        "shard_items=4",
        "--scheduler",
        "sync",
        "--quiet",
    ]
    try:
        done = facegraft(*command, "-o", small / "heads")
        assert_one_line(done, "disk full")
        assert not (small / "heads" / "dataset.json").exists()
        assert not list((small / "heads").rglob("*.tmp*"))
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        assert facegraft(*command, "-o", small / "heads").returncode == 0
        assert verify_dataset(small / "heads") == []
        assert facegraft(*command, "-o", tmp_path / "elsewhere").returncode == 0
        assert (small / "heads" / "dataset.json").read_bytes() == (tmp_path / "elsewhere" / "dataset.json").read_bytes()
    finally:
        subprocess.run(["umount", "-l", small], check=False)


@pytest.mark.slow
def test_ctrl_c_and_the_same_command_again(tmp_path: Path) -> None:
    command = [
        *RUN,
        "ingest",
        "--kind",
        "synthetic",
        "--subjects",
        "60",
        "--expressions",
        "4",
        "--set",
        "shard_items=4",
        "--workers",
        "2",
        "-o",
        str(tmp_path / "heads"),
    ]
    shards = tmp_path / "heads" / "shards"
    # From the fifth on, no shard is committed until the end of the test: the run is half way for as long as that takes.
    half_way = DiskFault(
        str(shards),
        str(tmp_path / "ledger"),
        nth=5,
        operations=("replace",),
        match="*.json",
        gate=str(tmp_path / "gate"),
    )
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment(disk=half_way),
    )
    while not len(list(shards.glob("*.json"))) >= 2:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 130, stderr
    assert "same command" in stderr and "Traceback" not in stderr
    committed = {p.name: p.stat().st_mtime_ns for p in shards.glob("*.json")}
    assert committed and not (tmp_path / "heads" / "dataset.json").exists()
    assert subprocess.run([*command, "--quiet"], capture_output=True, check=False).returncode == 0
    assert verify_dataset(tmp_path / "heads") == []
    assert all((shards / name).stat().st_mtime_ns == when for name, when in committed.items()), "kept, not made again"


def test_damage_is_found_by_verify(folder: Path, tmp_path: Path) -> None:
    assert ingest(folder, tmp_path / "heads").returncode == 0
    assert facegraft("verify", tmp_path / "heads").returncode == 0
    shutil.copytree(tmp_path / "heads", tmp_path / "hurt")
    shard = next((tmp_path / "hurt" / "shards").glob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    done = facegraft("verify", tmp_path / "hurt")
    assert done.returncode == 1 and shard.name in done.stdout
