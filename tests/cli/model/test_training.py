"""`facegraft model train` and `fit`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import refused, run_model
from facegraft_model.config import LossConfig
from facegraft_model.models import load_field
from facegraft_model.training.setup import open_source

from facegraft.errors import FacegraftError


@pytest.mark.slow
def test_training_leaves_what_was_promised(house: Path, small: list[str], tmp_path: Path) -> None:
    def records_of(run: Path) -> list[dict[str, float]]:
        return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]

    records = records_of(house / "run")
    assert {"step", "loss", "sdf", "points_per_s", "data_wait_ms"} <= records[0].keys()
    # The work before the first step has fitted nets and template to the heads: so half of what a model without it begins with.
    arguments = ["--preset", "tiny", "--steps", 1, "--quiet", *small, "--set", "train.pretrain=0"]
    run_model("train", house / "samples", "-o", tmp_path / "untrained", *arguments)
    assert records[-1]["sdf"] < records_of(tmp_path / "untrained")[0]["sdf"] / 2
    assert records[-1]["sdf"] < 1e-2 * LossConfig.sdf
    # The steps after it help too, on the same batches: those of the log are different heads each time.
    run_model("train", house / "samples", "-o", tmp_path / "first", "--preset", "tiny", "--steps", 1, "--quiet", *small)

    def error_of(run: Path) -> float:
        field = load_field(run)
        with open_source(house / "samples", field.config.data, torch.device("cpu"), seed=0) as source, torch.no_grad():
            batches = [source.batch(step) for step in range(500, 520)]
            terms = [field.training_terms(batch, field.codes_of(batch), torch.tensor(0.0)) for batch in batches]
        return sum(float(term["sdf"]) for term in terms) / len(terms)

    assert error_of(house / "run") < 0.98 * error_of(tmp_path / "first")
    latest = (house / "run" / "checkpoints" / "latest").read_text().strip()
    assert {path.name for path in (house / "run" / "checkpoints" / latest).iterdir()} == {
        "model.safetensors",
        "optim.safetensors",
        "state.json",
    }


@pytest.mark.slow
def test_a_scan_that_was_turned_and_moved_is_fitted_in_its_own_coordinates(house: Path, tmp_path: Path) -> None:
    import igl
    import trimesh

    from facegraft.store import open_dataset

    surfaces = open_dataset(house / "surfaces")
    key = next(row["key"] for row in surfaces.index.to_pylist() if row["split"] == "test" and row["origin"] == "scan")
    item = surfaces[key]
    angle = np.radians(12)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    points = surfaces.mm_per_unit * item["vertices"] @ turn.T + [30.0, -20.0, 50.0]
    kept = points[:, 2] > np.quantile(points[:, 2], 0.4)  # the front alone, as a scanner sees it
    trimesh.PointCloud(points[kept] / 1000).export(tmp_path / "scan.ply")
    run_model(
        "fit",
        house / "run",
        "--points",
        tmp_path / "scan.ply",
        "--unit-mm",
        1000,
        "-o",
        tmp_path / "fits",
        "--steps",
        40,
        "--quiet",
    )
    document = json.loads((tmp_path / "fits" / "fits.json").read_text())
    assert document["settings"]["alignment"] == "rigid" and document["settings"]["landmarks"] == "none"
    run_model("extract", tmp_path / "fits", "-o", tmp_path / "meshes", "--resolution", 48, "--quiet")
    mesh = trimesh.load(tmp_path / "meshes" / "scan.ply", process=False)
    squared = igl.point_mesh_squared_distance(
        points[kept], np.asarray(mesh.vertices), np.asarray(mesh.faces, dtype=np.int64)
    )[0]
    assert np.median(np.sqrt(squared)) < 5.0, "120 steps make a coarse model, but it must lie on the scan"


def test_wrong_usage_is_answered_in_one_line(tmp_path: Path) -> None:
    assert "either SAMPLES or --points" in refused("fit", "run", "-o", tmp_path)
    with pytest.raises(FacegraftError, match="no preset 'tinny'"):
        run_model("train", tmp_path, "-o", tmp_path / "run", "--preset", "tinny")
