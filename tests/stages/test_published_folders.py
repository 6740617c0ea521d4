"""From the folders in which FaceScape and Headspace are published to samples, by the shipped recipes."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from published_folders import EXPRESSIONS, V10_VERTICES, facescape_archives, mica_root

from facegraft.engine import EngineOptions
from facegraft.errors import FacegraftError
from facegraft.pipeline import ingest, run_recipe
from facegraft.recipe import find_recipe, load_recipe
from facegraft.regions.regionmap import load_region_map
from facegraft.store import open_dataset

SMALL = ("sample.surface=2000", "sample.free=300", "sample.near=300", "sample.wide=300", "sample.poi=300")


@pytest.mark.slow
@pytest.mark.parametrize("vertex_count", [26278, V10_VERTICES])
def test_facescape_from_its_archives(vertex_count: int, data_dir: Path, tmp_path: Path, sync: EngineOptions, caplog: pytest.LogCaptureFixture) -> None:
    root = facescape_archives(tmp_path / "archives", data_dir, vertex_count)
    recipe = load_recipe(find_recipe("facescape_paper")).override(["ingest.expressions=4", "graft.donors=1", *SMALL])
    with caplog.at_level(logging.WARNING, "facegraft"):
        run_recipe(recipe, str(root), tmp_path / "out", 0, sync)
    heads, samples = (open_dataset(tmp_path / "out" / kind) for kind in ("heads", "samples"))
    assert {(row["subject"], row["split"]) for row in heads.index.to_pylist()} == {("1", "train"), ("2", "train"), ("122", "test")}
    assert len(heads) == 3 * len(EXPRESSIONS) and all(row["status"] == "written" for row in samples.index.to_pylist())
    assert heads[heads.keys()[0]]["vertices"].shape == (vertex_count, 3)
    if vertex_count != V10_VERTICES:
        assert "built the region map" not in caplog.text
        return
    assert "built the region map facescape_v10 (26317 vertices)" in caplog.text and "it is sound" in caplog.text
    # The stand-in has the vertices of the other topology first, so its parts can be compared with those of the shipped map.
    built, shipped = load_region_map(tmp_path / "out" / "heads"), load_region_map("facescape_v16")
    same = built.vertex_labels("eyes")[:26278] == shipped.vertex_labels("eyes")
    assert same.mean() > 0.999
    caplog.clear()
    (root / "landmark_indices.npz").unlink()
    ingest(str(root), tmp_path / "again", {"kind": "facescape", "region_map": str(tmp_path / "out" / "heads")}, options=sync)
    assert "built the region map" not in caplog.text
    np.savez(tmp_path / "landmarks.npz", v10=np.arange(68))  # of some other topology
    with pytest.raises(FacegraftError, match=r"landmark") as caught:
        ingest(str(root), tmp_path / "wrong", {"kind": "facescape", "landmarks": str(tmp_path / "landmarks.npz")}, options=sync)
    assert "\n" not in str(caught.value)


def test_headspace_from_micas_folder(data_dir: Path, tmp_path: Path, sync: EngineOptions) -> None:
    root = mica_root(tmp_path / "LYHM", data_dir)
    recipe = load_recipe(find_recipe("headspace_paper")).override(["graft.donors=2", *SMALL])
    run_recipe(recipe, str(root), tmp_path / "out", 0, sync)
    heads, samples = (open_dataset(tmp_path / "out" / kind) for kind in ("heads", "samples"))
    assert {row["expression"] for row in heads.index.to_pylist()} == {"neutral"} and len(heads) == 6
    assert [row["split"] for row in heads.index.to_pylist()].count("test") == 2
    assert all(row["status"] == "written" for row in samples.index.to_pylist())
    recorded = (tmp_path / "out" / "heads" / "run.json").read_text()
    assert all(f"{subject:05d}" in recorded for subject in range(1, 7)), "the subjects that were drawn are listed"
