"""`facegraft model extract`, `evaluate` and `compare`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import refused, run_model
from sphere_heads import scan, template_mesh, write_sphere_surfaces, write_spheres

from facegraft.errors import FacegraftError
from facegraft.meshfiles import read_points
from facegraft.modelresults import draw_fits
from facegraft.parts import Parts
from facegraft.store import open_dataset


@pytest.mark.slow
def test_extract_writes_meshes_in_the_heads_coordinates(house: Path, tmp_path: Path) -> None:
    import trimesh

    run_model("extract", house / "fits", "-o", tmp_path, "--resolution", 48, "--quiet")
    listed = json.loads((tmp_path / "meshes.json").read_text())
    for head in listed["heads"]:
        mesh = trimesh.load(tmp_path / head["file"], process=False)
        extent = np.ptp(mesh.vertices, axis=0)
        assert 100 < extent[1] < 400, "a head is some 25 cm tall"
        assert {"part", "tx", "ty", "tz"} <= set(mesh.metadata["_ply_raw"]["vertex"]["data"].dtype.names)


@pytest.mark.slow
def test_evaluate_scores_every_head_and_says_how(house: Path, tmp_path: Path) -> None:
    output = run_model(
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
def test_compare_puts_methods_side_by_side_and_resumes(house: Path, tmp_path: Path, small: list[str]) -> None:
    """A linear model needs no training; the nets get a few steps. What is there already is not made again."""
    arguments = [
        "compare", house / "samples", "-o", tmp_path, "--methods", "linear,tiny,imface", "--steps", 60, "--fit-steps", 10, "--resolution", 48,
        "--points", 2000, "--pairs", 1, "--quiet", *small, "--set", "data.items=4", "--set", "model.blend_width=32",
    ]  # fmt: skip
    table = run_model(*arguments)
    for method in ("linear", "tiny", "imface", "floor"):
        assert any(line.strip().startswith(method) for line in table.splitlines()), table
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    assert {"linear", "tiny", "imface"} <= set(json.dumps(comparison).replace('"', " ").split())
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    scores = {path: path.read_bytes() for path in tmp_path.rglob("scores.json")}
    assert len(scores) == 3
    (tmp_path / "imface" / "scores" / "scores.json").unlink()
    assert run_model(*arguments) == table
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")} == made
    assert {path: path.read_bytes() for path in scores} == scores


def test_extract_needs_fits(tmp_path: Path) -> None:
    with pytest.raises(FacegraftError, match="holds no fits"):
        run_model("extract", tmp_path, "-o", tmp_path / "meshes")


def test_heads_on_the_topology_are_written_beside_the_others(bears: Path, tmp_path: Path) -> None:
    run_model("extract", bears / "fits", "-o", tmp_path, "--resolution", 32, "--topology", "--key", "eve_neutral", "--quiet")
    mesh, heads = template_mesh(), json.loads((tmp_path / "meshes.json").read_text())["heads"]
    for head in heads:
        path = tmp_path / head["topology"]["file"]
        assert path.name == f"{head['key']}.topology.ply" and (tmp_path / head["file"]).exists()
        assert head["topology"]["largest_sdf_mm"] <= 0.02 and head["topology"]["vertices"] == 642
        read = read_points(path)
        assert np.array_equal(read.faces, mesh["template_faces"])
        assert 30 < np.linalg.norm(read.points, axis=1).mean() < 80
        assert b"property int vertex_id" in path.read_bytes()[:1000]


def test_meshes_and_scores_have_the_parts_of_the_model(bears: Path, tmp_path: Path) -> None:
    run_model("extract", bears / "fits", "-o", tmp_path / "ply", "--resolution", 32, "--quiet")
    header = (tmp_path / "ply" / "eve_neutral.ply").read_bytes().split(b"end_header")[0].decode()
    assert "comment part: 0 rem, 1 snout, 2 lobe_left, 3 beak" in header
    run_model("extract", bears / "fits", "-o", tmp_path / "obj", "--resolution", 32, "--format", "obj", "--quiet")
    groups = [line[2:] for line in (tmp_path / "obj" / "eve_neutral.obj").read_text().splitlines() if line[:2] == "g "]
    assert groups == ["rem", "snout", "lobe_left", "beak"]
    output = run_model(
        "evaluate", bears / "fits", bears / "samples", "-o", tmp_path / "scores", "--resolution", 48, "--points", 2000, "--part-points", 200,
        "--pairs", 1, "--quiet",
    )  # fmt: skip
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    regions = ["full", "snout", "lobe_left", "beak", "rem"]
    assert scores["counts"] == {"heads": 2, "subjects": 2, "failed": 0}
    assert scores["settings"]["parts"] == regions[1:-1]
    assert set(scores["summary"]["none"]) == set(scores["floor"]) == set(regions)
    assert set(scores["disentanglement"]["leakage"]["parts"]) == set(regions[1:-1])
    assert scores["disentanglement"]["swap_error"]["swapped"]["record"]["swap"]["parts"] == regions[1:-1]
    lines = output.splitlines()
    assert lines[0].split() == regions
    titles = next(line for line in lines if "leakage" in line).split("  ")
    assert [title.strip() for title in titles if title.strip()] == ["leakage", "swap error, p2s mm", "host unchanged"]
    heading, row = (line.split() for line in lines[lines.index(next(line for line in lines if "leakage" in line)) + 1 :][:2])
    assert heading == ["method", *regions[1:-1], "full", *regions[1:-1], *regions[1:-1]]
    assert row[0] == "tiny" and len(row) == len(heading)


def test_fits_are_scored_on_samples_with_the_parts_of_their_model(bears: Path, tmp_path: Path) -> None:
    others = write_spheres(tmp_path / "samples")
    write_sphere_surfaces(tmp_path / "surfaces")
    run_model("fit", bears / "run", bears / "samples", "-o", tmp_path / "fits", "--steps", 2, "--key", "eve_neutral", "--quiet")
    with pytest.raises(FacegraftError, match=r"its model has the parts snout, lobe_left, beak, .* nose, eyes, mouth"):
        run_model("evaluate", tmp_path / "fits", others, "-o", tmp_path / "scores", "--resolution", 32, "--quiet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"region_set": "polar"}, "its model has the parts of region set 'bear', .* those of 'polar'; score it"),
        ({"landmarks": (1, 2, 3, 4, 5)}, r"its model has landmarks \(.*\) for part snout, .* \(1, 2, 3, 4, 5\); score it"),
    ],
)
def test_parts_of_the_same_names_are_not_the_same_parts(bears: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    own = open_dataset(bears / "samples").parts
    first, *rest = own.entries
    others = Parts(change.get("region_set", own.region_set), (replace(first, landmarks=change.get("landmarks", first.landmarks)), *rest))
    rows = {"eve_neutral": scan("eve", "neutral", "test")}
    write_spheres(tmp_path / "samples", rows=rows, parts=others)
    write_sphere_surfaces(tmp_path / "surfaces", rows=rows, parts=others)
    run_model("fit", bears / "run", bears / "samples", "-o", tmp_path / "fits", "--steps", 2, "--key", "eve_neutral", "--quiet")
    with pytest.raises(FacegraftError, match=message):
        run_model("evaluate", tmp_path / "fits", tmp_path / "samples", "-o", tmp_path / "scores", "--resolution", 32, "--quiet")
    assert not (tmp_path / "scores").exists()


def test_compare_draws_pictures_and_ends_with_an_error_where_a_method_failed(bears: Path, tmp_path: Path) -> None:
    """linear-parts cannot learn from these spheres, which are no morph of one template; that is a row, and the exit code says so."""
    arguments = [
        "compare", bears / "samples", "-o", tmp_path, "--methods", "linear,linear-parts", "--points", 1000, "--part-points", 200,
        "--align", "icp", "--quiet",
    ]  # fmt: skip
    with pytest.raises(FacegraftError, match="1 of 2 methods failed"):
        run_model(*arguments)
    table = (tmp_path / "table.txt").read_text()
    assert any(line.startswith("linear-parts   FAILED: ") for line in table.splitlines()), table
    assert "alignment none" in table and "alignment icp" in table
    assert json.loads((tmp_path / "comparison.json").read_text())["scores"].keys() == {"linear"}
    assert (tmp_path / "figure.png").exists() and (tmp_path / "curves.png").exists()


def test_compare_takes_lists_of_seeds(tmp_path: Path) -> None:
    assert "write 0,1,2" in refused("compare", tmp_path, "-o", tmp_path / "out", "--seeds", "0;1")
    assert "0 or more" in refused("compare", tmp_path, "-o", tmp_path / "out", "--seeds", "0,-1")
    with pytest.raises(FacegraftError, match="not both"):
        run_model("compare", tmp_path, "-o", tmp_path / "out", "--steps", 3, "--seconds", 3)


def test_an_unknown_method_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(FacegraftError, match=r"no method 'papper' \(did you mean 'paper'\?\)"):
        run_model("compare", tmp_path, "-o", tmp_path / "out", "--methods", "linear,papper")
    with pytest.raises(FacegraftError, match="name each method once, not tiny, tiny"):
        run_model("compare", tmp_path, "-o", tmp_path / "out", "--methods", "tiny,tiny")
    assert not (tmp_path / "out").exists()


def test_heads_without_a_surface_have_no_picture_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("facegraft_model.evaluation.evaluate.fit_pictures", lambda *_, **__: [])
    assert draw_fits(tmp_path, None, tmp_path, 48) is None  # type: ignore[arg-type]
    assert "fits.png is not drawn: none of the first fitted heads has a surface" in caplog.text
    assert not list(tmp_path.iterdir())
