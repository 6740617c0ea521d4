"""The commands on URLs: meshes from a bucket, a whole recipe into one, training from one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import objects
import pytest
from toy_runs import dataset_hash

from facegraft.engine import EngineOptions
from facegraft.pipeline import ingest
from facegraft.store import open_dataset, verify_dataset

SETTINGS = [
    "--seed", "3", "--quiet", "--workers", "2",
    "--set", "ingest.subjects=6", "--set", "ingest.expressions=2", "--set", "graft.donors=3", "--set", "graft.independent=0.7",
    "--set", "graft.stage_points=512", "--set", "sample.surface=3000", "--set", "sample.near=1500", "--set", "sample.free=1000",
    "--set", "sample.shard_items=8",
]  # fmt: skip
STAGES = ("heads", "composites", "surfaces", "samples")


def facegraft(*arguments: str, code: int = 0) -> str:
    """Output of the command; its stderr where it is to fail."""
    command = [sys.executable, "-m", "facegraft", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_meshes_come_from_a_bucket_as_from_a_folder(bucket: str, tmp_path: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "heads"))
    import toy_head

    folder = tmp_path / "meshes"
    for name in ("ben.obj", "s10/1_neutral.obj", "s10/2_smile.obj", "s2/1_neutral.obj"):
        toy_head.write_obj(folder / name)
    (folder / "s2" / "2_smile.obj").write_text("not a mesh\n")
    for path in folder.rglob("*.obj"):
        objects.put(f"{bucket}/meshes/{path.relative_to(folder).as_posix()}", path.read_bytes())
    (tmp_path / "map.json").write_text(json.dumps(toy_head.region_map().to_json()))
    objects.put(f"{bucket}/map.json", (tmp_path / "map.json").read_bytes())
    options = EngineOptions(scheduler="sync", progress=False, max_rejects=1.0)
    parameters = {"kind": "meshes", "region_map": str(tmp_path / "map.json"), "shard_items": 2}
    here = ingest(str(folder), tmp_path / "heads", parameters, 0, options)
    remote = {**parameters, "region_map": f"{bucket}/map.json"}
    there = ingest(f"{bucket}/meshes", f"{bucket}/heads", remote, 0, options)  # type: ignore[arg-type]
    assert (there.written, there.rejected, there.reasons) == (here.written, here.rejected, here.reasons)
    assert (here.written, here.rejected) == (4, 1)
    mine, theirs = open_dataset(tmp_path / "heads"), open_dataset(f"{bucket}/heads")
    assert theirs.index.equals(mine.index)
    for key in mine:
        assert np.array_equal(theirs[key]["vertices"], mine[key]["vertices"])
    assert verify_dataset(f"{bucket}/heads") == []


def test_a_url_that_cannot_be_is_wrong_usage(bucket: str) -> None:
    for arguments in (
        ("run", "demo", "-o", "nosuch://a/b"),
        ("status", "s3://"),
        ("verify", f"{bucket}/../x"),
        ("model", "train", "nosuch://a", "-o", "run"),
    ):
        assert "Error: Invalid value" in facegraft(*arguments, code=2)
    assert "holds no facegraft run" in facegraft("status", f"{bucket}/nothing", code=1)
    assert "is no facegraft dataset" in facegraft("inspect", f"{bucket}/nothing", code=1)


@pytest.mark.slow
def test_a_recipe_into_a_bucket_and_training_from_it(bucket: str, tmp_path: Path) -> None:
    """Two workers; every stage reads the one before from the bucket."""
    facegraft("run", "demo", *SETTINGS, "-o", str(tmp_path / "out"))
    url = f"{bucket}/some/out"
    assert f"report: {url}/report/index.html" in facegraft("run", "demo", *SETTINGS, "-o", url)
    for stage in STAGES:
        assert objects.dataset_hash(f"{url}/{stage}") == dataset_hash(tmp_path / "out" / stage)
    assert facegraft("verify", url).count(": whole") == 4
    assert facegraft("status", url).count(": complete") == 4
    assert "kind samples" in facegraft("inspect", f"{url}/samples")
    assert "already complete" in facegraft("retry", f"{url}/surfaces", "--quiet")
    assert b"<html" in objects.get(f"{url}/report/index.html")[:200]

    pytest.importorskip("torch")
    from facegraft_model.data.batches import BatchSource

    sizes = {"items": 3, "surface": 40, "near": 20, "free": 10, "stage": 8}
    with BatchSource(tmp_path / "out" / "samples", backend="stream", **sizes) as local:  # type: ignore[arg-type]
        expected = [local.batch(step) for step in range(4)]
    for backend in ("stream", "resident"):
        with BatchSource(f"{url}/samples", backend=backend, **sizes) as source:  # type: ignore[arg-type]
            for step, batch in enumerate(expected):
                found = source.batch(step)
                assert all(bool((found[name] == batch[name]).all()) for name in batch)
    tiny = ["--preset", "tiny", "--steps", "2", "--device", "cpu", "--quiet", "--set", "train.validate_steps=1"]
    assert "trained" in facegraft("model", "train", f"{url}/samples", "-o", str(tmp_path / "run"), *tiny)
