"""From the folders in which FaceScape and Headspace are published to samples, by the shipped recipes."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pages import commands_on, parsed, tables_on
from published_folders import EXPRESSIONS, V10_VERTICES, facescape_archives, mica_root

from facegraft.cli.main import cli
from facegraft.cli.model.paper import QUICK
from facegraft.engine import EngineOptions
from facegraft.errors import FacegraftError
from facegraft.pipeline import ingest, run_recipe
from facegraft.recipe import find_recipe, load_recipe
from facegraft.regions.regionmap import load_region_map
from facegraft.store import open_dataset

SMALL = ("sample.surface=2000", "sample.free=300", "sample.near=300", "sample.wide=300", "sample.poi=300")
TO_LEARN = ("sample.surface=4000", "sample.free=1000", "sample.near=1000", "sample.wide=1000", "sample.poi=1000")
"""Points enough for the windows of every method."""


@pytest.mark.slow
@pytest.mark.parametrize("vertex_count", [26278, V10_VERTICES])
def test_facescape_from_its_archives(vertex_count: int, data_dir: Path, tmp_path: Path, sync: EngineOptions, caplog: pytest.LogCaptureFixture) -> None:
    root = facescape_archives(tmp_path / "archives", data_dir, vertex_count)
    recipe = load_recipe(find_recipe("facescape_paper")).override(["ingest.expressions=4", "graft.donors=1", *TO_LEARN])
    with caplog.at_level(logging.WARNING, "facegraft"):
        run_recipe(recipe, str(root), tmp_path / "out", 0, sync)
    heads, samples = (open_dataset(tmp_path / "out" / kind) for kind in ("heads", "samples"))
    assert {(row["subject"], row["split"]) for row in heads.index.to_pylist()} == {("1", "train"), ("2", "train"), ("122", "test")}
    assert len(heads) == 3 * len(EXPRESSIONS) and all(row["status"] == "written" for row in samples.index.to_pylist())
    assert heads[heads.keys()[0]]["vertices"].shape == (vertex_count, 3)
    if vertex_count != V10_VERTICES:
        page = paper_page(tmp_path / "out")
        assert "Table 2 and Figure 5" in page and "One held-out subject is not enough to interpolate" in page
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


@pytest.mark.slow
def test_the_papers_page_of_headspace(data_dir: Path, tmp_path: Path) -> None:
    """From the folder to the page in two commands."""
    root = mica_root(tmp_path / "LYHM", data_dir)
    settings = [word for setting in TO_LEARN for word in ("--set", setting)]
    arguments = ["run", "headspace_paper", "--input", str(root), "-o", str(tmp_path / "out"), "--set", "graft.donors=2", *settings, "--quiet"]
    assert CliRunner().invoke(cli, arguments, catch_exceptions=False).exit_code == 0
    page = paper_page(tmp_path / "out")
    assert "Table 1 and Figure 6" in page and "not enough" not in page


def paper_page(out: Path) -> str:
    """The text of the page that `facegraft paper OUT --quick` writes, after a look at its tables, pictures and commands."""
    result = CliRunner().invoke(cli, ["paper", str(out), "--quick", "--quiet"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    path = out / "paper" / "index.html"
    reconstruction, landmarks = tables_on(path)
    measured = {row[0]: row[1:] for row in (*reconstruction, *landmarks)}
    methods = [*str(QUICK["methods"]).split(","), "paper-small@model.landmarks=five"]
    assert set(methods) == {name for name in measured if not name.startswith("Gu & Pears")}, "every method is a row"
    for method, cells in measured.items():
        if method in methods and cells[0] != "✗":
            assert all(0 <= float(cell) < 200 for cell in cells), (method, cells)
        elif method in methods:  # so few steps that no head has a surface: the page says so
            assert method == "deepsdf-small" and "deepsdf-small: " in path.read_text(), (method, cells)
    assert all(float(measured[method][0]) < 8 for method in ("linear", "linear-parts", "tiny")), measured
    assert sum(name.startswith("Gu & Pears") for name in measured) >= 5
    for command in commands_on(path):
        assert parsed(command), command
    for name in ("methods.png", "landmarks.png", "components/sheet.png", "generated/sheet.png"):
        assert (out / "paper" / name).stat().st_size > 20_000, name
    return path.read_text()


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
