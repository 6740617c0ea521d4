"""Scores by part of small heads whose errors are known, and the files and tables made of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.merging import compare_scores, merge_scores
from facegraft_model.evaluation.records import Failure, Reconstruction, Scores, ScoreSettings
from facegraft_model.evaluation.score import decode_items, evaluate
from facegraft_model.evaluation.scorefiles import read_scores, to_json, write_scores
from facegraft_model.evaluation.scorehead import _ScoredReconstruction, score_head
from facegraft_model.evaluation.scoretable import difference_table, score_table
from facegraft_model.evaluation.truth import TrueHead, Truth, TruthError
from facegraft_model.testing import made_up_parts
from toy_parts import EYES

from facegraft.parts import Parts
from facegraft.store import (
    DatasetSchema,
    ShardItem,
    finish_dataset,
    open_dataset,
    samples_fields,
    shard_name,
    surfaces_fields,
    write_json_atomic,
    write_shard,
)
from facegraft.surfaces.nearest import Nearest
from facegraft.surfaces.sampling import sample_surface
from facegraft.surfaces.surface import Surface

COLUMNS = dict.fromkeys(("subject", "expression", "split", *EYES.head_columns, "origin"), "string")
REGIONS = ("full", "nose", "eyes", "mouth", "rem")
SUBJECTS = {"anna_n": "anna", "anna_s": "anna", "bert_n": "bert", "cleo_n": "cleo"}
MM = 100.0
SHIFT = np.array([5.0, -3.0, 2.0])
QUICK = ScoreSettings(full_points=4000, part_points=600, bootstrap_rounds=200)


def surface_item(number: int) -> dict[str, np.ndarray]:
    """A ball of about 0.8 units with a nose, eyes and a mouth as caps around directions, and a flat cut neck."""
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=0.8)
    v = np.asarray(mesh.vertices) * np.array([1.0, 1.1 + 0.02 * number, 1.0])
    parts = np.zeros(len(v), dtype=np.uint8)
    unit = np.asarray(mesh.vertices) / 0.8
    for label, x, y in ((1, 0.0, 0.0), (2, -0.4, 0.45), (2, 0.4, 0.45), (3, 0.0, -0.6)):
        direction = np.array([x, y, 1.0]) / np.linalg.norm([x, y, 1.0])
        parts[unit @ direction > np.cos(0.2)] = label
    faces = np.asarray(mesh.faces)
    below = v[:, 1] < -0.7
    v[below, 1] = -0.7
    return {
        "vertices": v.astype(np.float32),
        "faces": faces.astype(np.int32),
        "vertex_parts": parts,
        "face_cut": below[faces].all(axis=1).astype(np.uint8),
        "landmarks": np.full((1, 68, 3), number, np.float32),
        "stage_points": np.zeros((1, 7, 3), np.float32),
        "to_mm": np.block([[MM * np.eye(3), SHIFT[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]]),
    }


def row(subject: str) -> dict[str, str]:
    return {**dict.fromkeys(COLUMNS, subject), "expression": "neutral", "split": "test", "origin": "scan"}


def write_dataset(
    folder: Path, kind: str, items: Mapping[str, dict[str, np.ndarray]], parts: Parts = EYES
) -> Path:
    fields = surfaces_fields(parts) if kind == "surfaces" else samples_fields(parts)
    topology = {"name": "toy", "vertex_count": None, "faces_sha256": None}
    schema = DatasetSchema(kind, topology, MM, "unit ball", fields, COLUMNS, parts)
    plan = {shard_name(0, 1): sorted(items)}
    write_shard(
        folder,
        shard_name(0, 1),
        [ShardItem(key, items[key], row(SUBJECTS[key])) for key in sorted(items)],
        [],
        schema,
        "c" * 64,
    )
    finish_dataset(folder, schema, plan, "c" * 64)
    return folder


def samples_item(surface: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    points = {
        f"{name}_{what}": np.zeros((4, 3), np.float32)
        for name in ("surface", "near", "free")
        for what in ("points", "normals")
    }
    labels = {f"{name}_parts": np.zeros(4, np.uint8) for name in ("surface", "near")}
    distances = {f"{name}_sdf": np.zeros(4, np.float32) for name in ("near", "free")}
    return {**points, **labels, **distances, **{name: surface[name] for name in ("landmarks", "stage_points", "to_mm")}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `surfaces` and the `samples` made of them, without run.json."""
    folder = tmp_path_factory.mktemp("data")
    surfaces = {key: surface_item(i) for i, key in enumerate(SUBJECTS)}
    write_dataset(folder / "surfaces", "surfaces", surfaces)
    write_dataset(folder / "samples", "samples", {key: samples_item(item) for key, item in surfaces.items()})
    return folder


@pytest.fixture(scope="module")
def truth(data: Path) -> Truth:
    return Truth(data / "samples")


Change = Callable[[TrueHead], np.ndarray]


def run(truth: Truth, change: Change, settings: ScoreSettings = QUICK, method: str = "toy", seed: int = 0) -> Scores:
    def decoded() -> Any:
        for key in SUBJECTS:
            head = truth.head(key)
            yield {"key": key, "subject": head.subject}, change(head), head.faces

    return evaluate(decoded(), truth, settings, method=method, landmarks="none", resolution=64, training_seed=seed)


def grown(mm: float) -> Change:
    """Every vertex moved outward along its normal."""
    return lambda head: (
        head.vertices + mm * np.asarray(trimesh.Trimesh(head.vertices, head.faces, process=False).vertex_normals)
    )


# The truth


def test_true_heads_come_in_mm_with_part_labels(truth: Truth, data: Path) -> None:
    head = truth.head("bert_n")
    stored = open_dataset(data / "surfaces")["bert_n"]
    np.testing.assert_allclose(head.vertices, stored["vertices"].astype(np.float64) * MM + SHIFT)
    np.testing.assert_allclose(truth.in_mm("bert_n", stored["vertices"]), head.vertices)
    assert set(np.unique(head.parts)) == {0, 1, 2, 3}
    assert (head.cut == stored["face_cut"].astype(bool)).all() and head.cut.any()
    assert head.subject == "bert"
    assert truth.mm_per_unit == MM and truth.matched_by == "items"


def test_surfaces_are_found_by_the_run_record_and_must_be_the_recorded_ones(data: Path, tmp_path: Path) -> None:
    surfaces = {key: surface_item(i) for i, key in enumerate(SUBJECTS)}
    samples = write_dataset(
        tmp_path / "elsewhere" / "samples", "samples", {key: samples_item(item) for key, item in surfaces.items()}
    )
    with pytest.raises(
        TruthError, match=r"not found: looked in .*elsewhere/surfaces \(no dataset\); pass --surfaces DIR"
    ):
        Truth(samples)
    assert Truth(samples, data / "surfaces").matched_by == "items"
    fingerprint = open_dataset(data / "surfaces").fingerprint
    write_json_atomic(
        samples / "run.json", {"input_fingerprint": {"surfaces": fingerprint}, "inputs": [str(data / "surfaces")]}
    )
    assert Truth(samples).matched_by == "fingerprint"
    other = write_dataset(
        tmp_path / "elsewhere" / "surfaces", "surfaces", {key: surface_item(i + 1) for i, key in enumerate(SUBJECTS)}
    )
    assert Truth(samples).store.path == data / "surfaces"
    with pytest.raises(TruthError, match="are not the surfaces that"):
        Truth(samples, other)
    write_json_atomic(
        samples / "run.json", {"input_fingerprint": {"surfaces": fingerprint}, "inputs": [str(tmp_path / "gone")]}
    )
    with pytest.raises(TruthError, match=r"surfaces \(other surfaces\)"):
        Truth(samples)
    (samples / "run.json").write_text("{}")
    with pytest.raises(TruthError, match="does not record what the samples were made from"):
        Truth(samples)
    (samples / "run.json").unlink()
    with pytest.raises(TruthError, match=r"landmarks of .* differ"):
        Truth(samples, other).head("anna_n")
    with pytest.raises(TruthError, match="holds samples, not surfaces"):
        Truth(samples, samples)
    with pytest.raises(TruthError, match="holds surfaces"):
        Truth(other)
    with pytest.raises(TruthError, match="no item 'nobody'"):
        Truth(samples, other).head("nobody")


def test_surfaces_with_other_parts_are_not_the_truth(data: Path, tmp_path: Path) -> None:
    surfaces = {key: surface_item(i) for i, key in enumerate(SUBJECTS)}
    others = write_dataset(tmp_path / "others", "surfaces", surfaces, made_up_parts(3))
    with pytest.raises(TruthError, match=r"others has the parts patch_a, patch_b, patch_c, .*samples nose, eyes, mouth"):
        Truth(data / "samples", others)


def test_an_open_sheet_ends_at_its_rim() -> None:
    grid = np.stack(np.meshgrid(np.arange(6.0), np.arange(6.0), indexing="ij"), axis=-1).reshape(-1, 2)
    vertices = np.column_stack([grid, np.zeros(len(grid))])
    corner = np.array([6 * i + j for i in range(5) for j in range(5)])
    faces = np.concatenate(
        [np.stack([corner, corner + 6, corner + 7], 1), np.stack([corner, corner + 7, corner + 1], 1)]
    )
    head = TrueHead("sheet", {"subject": "s"}, vertices, faces, np.zeros(50, np.uint8), np.zeros(50, bool), EYES)
    points = np.random.default_rng(0).uniform([-2, -2, -1], [7, 7, 1], (4000, 3))
    inside = ((points[:, :2] > 0) & (points[:, :2] < 5)).all(axis=1)
    np.testing.assert_array_equal(head.is_real(head.surface.nearest(points)), inside)


# Scores of one head


def test_a_perfect_reconstruction_scores_the_floor(truth: Truth) -> None:
    head = truth.head("anna_n")
    result = score_head(
        head,
        Reconstruction({"key": "anna_n"}, head.vertices, head.faces),
        replace(QUICK, full_points=20_000, part_points=4000),
    )
    assert tuple(result.scores["none"]) == tuple(result.floor) == REGIONS
    for region in REGIONS:
        got, floor = result.scores["none"][region], result.floor[region]
        assert got["p2s_mm"] < 1e-9 and got["f_surface_0.5mm"] == 100.0 and got["normal_consistency"] > 1 - 1e-9
        assert got["scd_mm"] == pytest.approx(floor["scd_mm"], rel=0.04)
        assert got["f_1mm"] == pytest.approx(floor["f_1mm"], rel=0.06)
    area = head.surface.areas[~head.cut].sum()
    assert result.floor["full"]["scd_mm"] == pytest.approx(0.5 * np.sqrt(area / 20_000), rel=0.03)
    cut_share = 100.0 * head.surface.areas[head.cut].sum() / head.surface.areas.sum()
    assert result.excluded_percent["none"] == pytest.approx(cut_share, abs=1.0)
    assert result.item == {
        "key": "anna_n",
        "subject": "anna",
        "expression": "neutral",
        "split": "test",
        "origin": "scan",
    }


def test_an_offset_is_measured_in_every_region(truth: Truth) -> None:
    head = truth.head("anna_n")
    result = score_head(head, Reconstruction({"key": "anna_n"}, grown(1.5)(head), head.faces), QUICK)
    for region in REGIONS:
        assert result.scores["none"][region]["p2s_mm"] == pytest.approx(1.5, rel=0.02), region
        assert result.scores["none"][region]["f_surface_1mm"] < 1.0
        assert result.scores["none"][region]["f_surface_2mm"] == 100.0


def test_an_error_of_one_part_shows_in_that_part(truth: Truth) -> None:
    head = truth.head("anna_n")
    nose = np.unique(head.faces[head.parts == EYES.label("nose")])
    vertices = head.vertices.copy()
    vertices[nose] += 3.0 * (vertices[nose] - SHIFT) / np.linalg.norm(vertices[nose] - SHIFT, axis=1, keepdims=True)
    result = score_head(head, Reconstruction({"key": "anna_n"}, vertices, head.faces), QUICK).scores["none"]
    assert result["nose"]["p2s_mm"] > 2.0
    assert result["eyes"]["p2s_mm"] < 1e-6 and result["mouth"]["p2s_mm"] < 1e-6
    assert result["rem"]["p2s_mm"] < 0.1  # the ring around the nose


def test_the_cut_is_not_scored(truth: Truth) -> None:
    """A neck that ends 3 mm lower is nobody's error, but for the thin wall that it adds."""
    head = truth.head("anna_n")
    cap = np.unique(head.faces[head.cut])
    inner = np.setdiff1d(cap, np.unique(head.faces[~head.cut]))
    vertices = head.vertices.copy()
    vertices[inner, 1] -= 3.0
    result = score_head(head, Reconstruction({"key": "anna_n"}, vertices, head.faces), QUICK)
    assert result.scores["none"]["full"]["p2s_mm"] < 1e-6
    assert result.excluded_percent["none"] > 2.0


def test_no_face_with_points_of_a_part_is_missed(truth: Truth) -> None:
    """Rejection from the candidate faces draws from all points of the part, on a mesh whose faces are as large as a part."""
    head = truth.head("anna_n")
    coarse = trimesh.creation.icosphere(subdivisions=1, radius=83.0)
    surface = Surface(np.asarray(coarse.vertices) + SHIFT, coarse.faces)
    scored = _ScoredReconstruction(head, surface, None, QUICK)
    points = sample_surface(surface.vertices, surface.faces, 20_000, np.random.default_rng(0))
    labels = head.parts[head.surface.nearest(points.points).face]
    for label, name in enumerate(EYES.labelled):
        chosen = scored._candidates(name)
        assert chosen[points.face_index[labels == label]].all(), name
    assert scored._candidates("nose").sum() < 0.7 * len(surface.faces)


def test_points_of_a_part_are_uniform_over_it(truth: Truth) -> None:
    head = truth.head("anna_n")
    surface = Surface(grown(1.0)(head), head.faces)
    scored = _ScoredReconstruction(head, surface, None, replace(QUICK, part_points=5000))
    drawn, nearest = scored.part("eyes")
    assert (head.parts[nearest.face] == 2).all() and len(drawn) == 5000
    many = sample_surface(surface.vertices, surface.faces, 200_000, np.random.default_rng(1)).points
    many = many[head.parts[head.surface.nearest(many).face] == 2]
    for axis in range(3):
        assert abs(drawn.points[:, axis].mean() - many[:, axis].mean()) < 5 * many[:, axis].std() / np.sqrt(5000)


def test_own_labels_of_the_model_can_be_used(truth: Truth) -> None:
    head = truth.head("anna_n")
    settings = replace(QUICK, labels="model")
    own = np.zeros(len(head.vertices), np.uint8)
    for label in (1, 2, 3):
        own[np.unique(head.faces[head.parts == label])] = label
    vertices = grown(1.0)(head)
    result = score_head(head, Reconstruction({"key": "anna_n"}, vertices, head.faces, own), settings)
    assert result.scores["none"]["nose"]["p2s_mm"] == pytest.approx(1.0, rel=0.03)
    with pytest.raises(ModelError, match="has no part labels"):
        score_head(head, Reconstruction({"key": "anna_n"}, vertices, head.faces), settings)


def test_icp_is_reported_beside_the_score_without(truth: Truth) -> None:
    head = truth.head("cleo_n")
    settings = replace(QUICK, alignment="icp", icp_points=2000)
    result = score_head(
        head, Reconstruction({"key": "cleo_n"}, head.vertices + np.array([0.0, 0.5, 3.0]), head.faces), settings
    )
    assert result.scores["none"]["full"]["p2s_mm"] > 1.0
    assert result.scores["icp"]["full"]["p2s_mm"] < 0.05
    assert result.icp is not None
    assert result.icp["rms_after_mm"] < 0.05 and result.icp["iterations"] <= 20
    np.testing.assert_allclose(np.array(result.icp["matrix"])[:3, 3][2], -3.0, atol=0.2)


def test_scores_are_the_same_whatever_else_is_scored_and_with_threads(truth: Truth) -> None:
    head = truth.head("bert_n")
    alone = score_head(head, Reconstruction({"key": "bert_n"}, grown(0.5)(head), head.faces), replace(QUICK, workers=2))
    among = run(truth, grown(0.5))
    assert among.heads[2] == alone


# Many heads


def test_a_result_states_what_it_is(truth: Truth, tmp_path: Path) -> None:
    result = run(truth, grown(0.7))
    write_scores(tmp_path / "SCORES", result)
    document = json.loads((tmp_path / "SCORES" / "scores.json").read_text())
    settings = document["settings"]
    assert settings["full_points"] == 4000 and settings["part_points"] == 600 and settings["taus_mm"] == [0.5, 1.0, 2.0]
    assert settings["truth"]["mm_per_unit"] == MM and settings["alignment"] == "none" and settings["seed"] == 0
    assert document["record"] == {"landmarks": "none", "resolution": 64}
    assert document["counts"] == {"heads": 4, "subjects": 3, "failed": 0}
    assert document["disentanglement"] is None and document["definitions"]["scd_mm"]
    summary = document["summary"]["none"]["full"]["p2s_mm"]
    assert summary["low"] <= summary["mean"] <= summary["high"] and summary["mean"] == pytest.approx(0.7, rel=0.02)
    values = [head["scores"]["none"]["full"]["p2s_mm"] for head in document["heads"]]
    assert summary["mean"] == pytest.approx(np.mean(values))
    assert read_scores(tmp_path / "SCORES") == result
    assert to_json(read_scores(tmp_path / "SCORES" / "scores.json")) == to_json(result)
    with (tmp_path / "SCORES" / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2 * len(REGIONS)
    nose = next(r for r in rows if (r["key"], r["alignment"], r["region"]) == ("bert_n", "none", "nose"))
    assert float(nose["scd_mm"]) == result.heads[2].scores["none"]["nose"]["scd_mm"] and nose["subject"] == "bert"
    assert all(r["p2s_mm"] == "" for r in rows if r["alignment"] == "floor")


def test_a_head_that_cannot_be_scored_is_counted(truth: Truth) -> None:
    def decoded() -> Any:
        head = truth.head("anna_n")
        yield Reconstruction({"key": "anna_n"}, head.vertices, head.faces)
        yield Reconstruction({"key": "anna_s"}, np.zeros((0, 3)), np.zeros((0, 3), int))
        yield Failure("bert_n", "bert", "no surface")
        far = trimesh.creation.icosphere(radius=5.0)  # a small ball below the neck: its truth is the cut
        yield Reconstruction({"key": "cleo_n"}, np.asarray(far.vertices) + np.array([5.0, -95.0, 2.0]), far.faces)

    said: list[Any] = []
    result = evaluate(
        decoded(),
        truth,
        QUICK,
        method="toy",
        landmarks="none",
        resolution=None,
        training_seed=None,
        on_head=said.append,
    )
    assert [failure.key for failure in result.failures] == ["anna_s", "bert_n", "cleo_n"]
    assert "no faces" in result.failures[0].reason and "'full'" in result.failures[2].reason
    assert len(said) == 4 and len(result.heads) == 1
    assert "3 FAILED and left out (anna_s: the mesh has no faces)" in score_table([result])
    with pytest.raises(ModelError, match="no reconstructions"):
        evaluate([], truth, QUICK, method="toy", landmarks="none", resolution=None, training_seed=None)
    twice = [Failure("bert_n", "bert", "x")] * 2
    with pytest.raises(ModelError, match="bert_n of toy is given twice"):
        evaluate(twice, truth, QUICK, method="toy", landmarks="none", resolution=None, training_seed=None)


def test_methods_are_compared_on_the_same_heads(truth: Truth) -> None:
    worse, better = run(truth, grown(1.0), method="paper"), run(truth, grown(0.4), method="facegraft")
    difference = compare_scores(worse, better)["nose"]["p2s_mm"]
    assert difference.mean == pytest.approx(-0.6, rel=0.05)
    assert difference.high is not None and difference.high < 0.0
    text = difference_table(worse, better)
    assert "facegraft − paper" in text and " *" in text
    table = score_table([worse, better])
    lines = table.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["method", "paper", "facegraft", "floor"]
    assert len(lines[2].split()) == 1 + 4 * len(REGIONS)
    assert f"{worse.summary()['full']['scd_mm'].mean:.3f}" in lines[2]
    assert "4 heads of 3 subjects" in table and "100 mm per unit" in table and "landmarks none" in table
    with pytest.raises(ModelError, match="seed is 0 and 1"):
        compare_scores(worse, run(truth, grown(0.4), replace(QUICK, seed=1), "facegraft"))
    with pytest.raises(ModelError, match="not scored with alignment 'icp'"):
        compare_scores(worse, better, "icp")
    with pytest.raises(ModelError, match=r"0\.5, 1, 2 mm"):
        score_table([worse], tau_mm=3.0)


def test_runs_of_several_seeds_are_merged(truth: Truth, tmp_path: Path) -> None:
    runs = [run(truth, grown(mm), seed=seed) for seed, mm in enumerate((0.5, 0.7, 1.2))]
    merged = merge_scores(runs)
    assert merged.training_seeds == [0, 1, 2] and len(merged.heads) == 4
    assert merged.summary()["full"]["p2s_mm"].mean == pytest.approx(0.8, rel=0.02)
    over = merged.over_seeds["none"]["full"]["p2s_mm"]  # type: ignore[index]
    assert over["means"] == pytest.approx([0.5, 0.7, 1.2], rel=0.02)
    assert over["std_seeds"] == pytest.approx(np.std(over["means"], ddof=1))
    write_scores(tmp_path, merged)
    assert read_scores(tmp_path) == merged
    assert "training seed 0, 1, 2" in score_table([merged]) and "sd over seeds" in score_table([merged])
    failed = replace(runs[1], heads=runs[1].heads[1:], failures=[Failure("anna_n", "anna", "empty")])
    assert [head.item["key"] for head in merge_scores([runs[0], failed]).heads] == ["anna_s", "bert_n", "cleo_n"]
    assert [failure.key for failure in merge_scores([runs[0], failed]).failures] == ["anna_n"]
    for others, message in (
        ([runs[0]], "same training seed twice"),
        ([replace(runs[1], method="other")], "different methods"),
        ([replace(runs[1], heads=runs[1].heads[1:])], "different heads"),
        ([replace(runs[1], settings={**runs[1].settings, "part_points": 5})], "part_points is 600 and 5"),
    ):
        with pytest.raises(ModelError, match=message):
            merge_scores([runs[0], *others])
    with pytest.raises(ModelError, match="no scores to merge"):
        merge_scores([])


class BallField:
    """Signed distance of a ball whose radius is its code."""

    has_warp = False

    def sdf(self, points: torch.Tensor, codes: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return points.norm(dim=-1) - codes["radius"]


def test_fitted_codes_are_decoded_into_mm(truth: Truth) -> None:
    items = [{"key": key, "subject": subject} for key, subject in SUBJECTS.items()][:2]
    to_model = np.stack([np.eye(4)] * 2)
    to_model[:, 0, 3] = 0.1  # the fit moved the head by 0.1 units to the model's frame
    radii = torch.tensor([[0.7], [-1.0]])
    field: Any = SimpleNamespace(has_warp=False, has_unwarp=False, sdf=BallField().sdf)
    got = list(
        decode_items(field, items, lambda i: {"radius": radii[i : i + 1]}, truth, resolution=48, to_model=to_model)
    )
    assert isinstance(got[0], Reconstruction) and isinstance(got[1], Failure)
    centre = SHIFT - np.array([0.1 * MM, 0.0, 0.0])
    np.testing.assert_allclose(np.linalg.norm(got[0].vertices - centre, axis=1), 70.0, atol=0.05)
    assert got[1].key == "anna_s"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"part_points": 0}, "part_points"),
        ({"taus_mm": ()}, "taus_mm"),
        ({"alignment": "affine"}, "alignment"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_are_checked(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ScoreSettings(**change)


def test_a_file_that_is_no_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no scores at"):
        read_scores(tmp_path)
    (tmp_path / "scores.json").write_text('{"format": "other"}')
    with pytest.raises(ModelError, match="is no facegraft-scores"):
        read_scores(tmp_path)
    (tmp_path / "scores.json").write_text('{"format": "facegraft-scores", "version": 1}')
    with pytest.raises(ModelError, match="of version 2; make it with `facegraft model evaluate`"):
        read_scores(tmp_path)
    (tmp_path / "scores.json").write_text('{"format": "facegraft-scores", "version": 2}')
    with pytest.raises(ModelError, match="damaged"):
        read_scores(tmp_path)


def test_a_nearest_point_is_real_off_the_cut(truth: Truth) -> None:
    head = truth.head("anna_n")
    face = np.array([np.flatnonzero(head.cut)[0], np.flatnonzero(~head.cut)[0]])
    assert head.is_real(Nearest(np.zeros(2), face, np.zeros((2, 3)))).tolist() == [False, True]
