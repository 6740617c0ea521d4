"""The commands end to end: from a small dataset of synthetic heads to a model, its fits, meshes, scores and edits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from facegraft.cli.main import cli
from facegraft.errors import FacegraftError

SMALL = [
    "--set", "model.width=32", "--set", "model.hyper_width=32", "--set", "model.landmark_width=32", "--set", "data.surface=256",
    "--set", "data.near=128", "--set", "data.free=64", "--set", "data.stage=32", "--set", "train.log_every=20",
    "--set", "fit.surface=256", "--set", "fit.near=128", "--set", "fit.free=64",
]  # fmt: skip


def run(*arguments: object) -> str:
    """Output of a command; its errors are raised."""
    result = CliRunner().invoke(cli, ["model", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with heads, composites, surfaces, samples, a run and fits of four held-out scans."""
    folder = tmp_path_factory.mktemp("house")
    arguments = ["run", "demo", "-o", str(folder), "--scheduler", "sync", "--quiet"]
    for setting in (
        "ingest.subjects=6", "ingest.expressions=2", "graft.donors=2", "sample.surface=4000", "sample.near=2000", "sample.free=1000",
    ):  # fmt: skip
        arguments += ["--set", setting]
    assert CliRunner().invoke(cli, arguments, catch_exceptions=False).exit_code == 0
    run("train", folder / "samples", "-o", folder / "run", "--preset", "tiny", "--steps", 120, "--quiet", *SMALL)
    run("fit", folder / "run", folder / "samples", "-o", folder / "fits", "--steps", 30, "--quiet")
    return folder


@pytest.mark.slow
def test_training_leaves_what_was_promised(house: Path) -> None:
    records = [json.loads(line) for line in (house / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"step", "loss", "sdf", "points_per_s", "data_wait_ms"} <= records[0].keys()
    assert records[-1]["sdf"] < records[0]["sdf"] / 2
    latest = (house / "run" / "checkpoints" / "latest").read_text().strip()
    assert {path.name for path in (house / "run" / "checkpoints" / latest).iterdir()} == {
        "model.safetensors",
        "optim.safetensors",
        "state.json",
    }


@pytest.mark.slow
def test_extract_writes_meshes_in_the_heads_coordinates(house: Path, tmp_path: Path) -> None:
    import trimesh

    run("extract", house / "fits", "-o", tmp_path, "--resolution", 48, "--quiet")
    listed = json.loads((tmp_path / "meshes.json").read_text())
    for head in listed["heads"]:
        mesh = trimesh.load(tmp_path / head["file"], process=False)
        extent = np.ptp(mesh.vertices, axis=0)
        assert 100 < extent[1] < 400, "a head is some 25 cm tall"
        assert {"part", "tx", "ty", "tz"} <= set(mesh.metadata["_ply_raw"]["vertex"]["data"].dtype.names)


@pytest.mark.slow
def test_evaluate_scores_every_head_and_says_how(house: Path, tmp_path: Path) -> None:
    output = run(
        "evaluate", house / "fits", house / "samples", "-o", tmp_path, "--resolution", 48, "--points", 2000, "--part-points", 500, "--pairs", 2, "--quiet",
    )  # fmt: skip
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["counts"]["heads"] + scores["counts"]["failed"] == 4
    assert set(scores["summary"]["none"]) == {"full", "nose", "eyes", "mouth", "rem"}
    assert scores["disentanglement"]["leakage"]["parts"].keys() == {"nose", "eyes", "mouth"}
    assert "leakage" in output and "floor" in output
    assert (tmp_path / "scores.csv").read_text().count("\n") > 20
    assert (tmp_path / "fits.png").stat().st_size > 10_000


@pytest.mark.slow
def test_compare_puts_methods_side_by_side_and_resumes(house: Path, tmp_path: Path) -> None:
    """A linear model needs no training; the nets get a few steps. What is there already is not made again."""
    arguments = [
        "compare", house / "samples", "-o", tmp_path, "--methods", "linear,tiny,imface", "--steps", 60, "--fit-steps", 10, "--resolution", 48,
        "--points", 2000, "--pairs", 1, "--quiet", *SMALL, "--set", "data.items=4", "--set", "model.blend_width=32",
    ]  # fmt: skip
    table = run(*arguments)
    for method in ("linear", "tiny", "imface", "floor"):
        assert any(line.strip().startswith(method) for line in table.splitlines()), table
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    assert {"linear", "tiny", "imface"} <= set(json.dumps(comparison).replace('"', " ").split())
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    scores = {path: path.read_bytes() for path in tmp_path.rglob("scores.json")}
    assert len(scores) == 3
    (tmp_path / "imface" / "scores" / "scores.json").unlink()
    assert run(*arguments) == table
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")} == made
    assert {path: path.read_bytes() for path in scores} == scores


@pytest.mark.slow
@pytest.mark.parametrize("command", ["swap", "interpolate", "generate", "components"])
def test_edits_write_meshes_numbers_and_a_sheet(house: Path, tmp_path: Path, command: str) -> None:
    keys = [
        item["key"]
        for item in json.loads((house / "fits" / "fits.json").read_text())["items"]
        if item["expression"] == "neutral"
    ]
    arguments = {
        "swap": [house / "fits", "--host", keys[0], "--nose", keys[1]],
        "interpolate": [house / "fits", "--from", keys[0], "--to", keys[1], "--steps", 1],
        "generate": [house / "run", "--count", 2],
        "components": [house / "run", "--parts", "nose", "--components", 1],
    }[command]
    run(command, *arguments, "-o", tmp_path, "--resolution", 48, "--quiet")
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["command"] == command
    assert all((tmp_path / name).exists() for name in numbers["files"])
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


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
    run(
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
    run("extract", tmp_path / "fits", "-o", tmp_path / "meshes", "--resolution", 48, "--quiet")
    mesh = trimesh.load(tmp_path / "meshes" / "scan.ply", process=False)
    squared = igl.point_mesh_squared_distance(
        points[kept], np.asarray(mesh.vertices), np.asarray(mesh.faces, dtype=np.int64)
    )[0]
    assert np.median(np.sqrt(squared)) < 5.0, "120 steps make a coarse model, but it must lie on the scan"


def test_wrong_usage_is_answered_in_one_line(tmp_path: Path) -> None:
    runner = CliRunner()
    both = runner.invoke(cli, ["model", "fit", "run", "-o", str(tmp_path)])
    assert both.exit_code == 2 and "either SAMPLES or --points" in both.output
    with pytest.raises(FacegraftError, match="no preset 'tinny'"):
        runner.invoke(
            cli,
            ["model", "train", str(tmp_path), "-o", str(tmp_path / "run"), "--preset", "tinny"],
            catch_exceptions=False,
        )
    with pytest.raises(FacegraftError, match="holds no fits"):
        runner.invoke(cli, ["model", "extract", str(tmp_path), "-o", str(tmp_path / "meshes")], catch_exceptions=False)
    nobody = runner.invoke(cli, ["model", "swap", str(tmp_path), "--host", "a", "-o", str(tmp_path)])
    assert nobody.exit_code == 2 and "at least one donor" in nobody.output
