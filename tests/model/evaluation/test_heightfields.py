"""Linear models of surfaces that are height fields: they learn from the registered heads, and decode height fields."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from facegraft_model.data.ids import DataError
from facegraft_model.data.items import select_rows
from facegraft_model.decoding.extract import Mesh
from facegraft_model.evaluation import compared
from facegraft_model.evaluation.compared import COMPARED, Task
from facegraft_model.evaluation.evaluate import EvaluationSettings
from facegraft_model.evaluation.heightfields import ClosedReader, height_field_of
from facegraft_model.evaluation.linear import LinearModel
from facegraft_model.evaluation.linearparts import part_displacements
from facegraft_model.evaluation.records import ScoreSettings
from facegraft_model.evaluation.trainingheads import TrainingHeads

from facegraft.engine import EngineOptions
from facegraft.pipeline import ingest, run_recipe
from facegraft.recipe import Recipe
from facegraft.store import open_dataset
from facegraft.surfaces.nearest import nearest_on_surface
from facegraft.vocabulary import NOSE_TIP

RECIPE = Recipe(
    "sheets",
    "",
    {
        "ingest": {"kind": "synthetic", "subjects": 5, "expressions": 2},
        "graft": {"donors": 1, "independent": 0.0, "stage_points": 512},
        "clean": {"preset": "paper"},
        "sample": {"preset": "paper", "surface": 3000, "free": 100},
    },
)

SYNC = EngineOptions(scheduler="sync", progress=False)


@pytest.fixture(scope="module")
def sheets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUT of a run whose surfaces are height fields: 3 training subjects and two for testing, neutral and smiling."""
    out = tmp_path_factory.mktemp("sheets")
    run_recipe(RECIPE, None, out, seed=1, options=SYNC)
    return out


def test_the_heads_are_those_that_the_sheets_show(sheets: Path) -> None:
    store = open_dataset(sheets / "surfaces")
    reader = ClosedReader(store)
    rows = select_rows(store, None)
    assert {row["origin"] for row in rows} == {"scan", "composite"} and not any(row["closed"] for row in rows)
    for row in (rows[0], rows[-1]):
        head = reader.vertices([row]).astype(np.float32).reshape(-1, 3)
        label = {tuple(vertex): part for vertex, part in zip(head.tolist(), reader.parts.tolist(), strict=True)}
        item = store[row["key"]]
        own = np.linalg.norm(item["vertices"], axis=1) < 1 - 1e-6  # the others were made where the ball cuts
        assert own.sum() > 4000
        shown = [tuple(vertex) for vertex in item["vertices"][own].tolist()]
        assert [label.get(vertex) for vertex in shown] == item["vertex_parts"][own].tolist()
        again = height_field_of(Mesh(head.astype(np.float64), reader.faces.astype(np.int64)))
        assert len(again.faces) == len(item["faces"])
        gap = nearest_on_surface(again.vertices, again.faces, item["vertices"].astype(np.float64)).distance
        assert gap.max() < 1e-6


def test_the_model_is_a_pca_of_registered_heads_about_their_own_nose_tips(sheets: Path) -> None:
    model = LinearModel.train(sheets / "surfaces")
    heads = open_dataset(sheets / "heads")
    rows = [row for row in heads.index.to_pylist() if row["split"] == "train"]
    units = {}
    for row in rows:
        item = heads[row["key"]]
        tip = item["landmarks"][NOSE_TIP].astype(np.float64)
        units[row["subject"], row["expression"]] = (item["vertices"].astype(np.float64) - tip + [0, 0, 40.0]) / 100.0
    source = ClosedReader(open_dataset(sheets / "surfaces"))._closer.source
    skin = source >= 0
    neutral = np.array([unit[source[skin]] for (_, name), unit in sorted(units.items()) if name == "neutral"])
    np.testing.assert_allclose(model.mean[skin], neutral.mean(0), atol=1e-6)
    assert model.code_dims == {"id": 2, "exp": 3}
    basis = np.concatenate([modes[:, skin].reshape(len(modes), -1) for modes in model.modes.values()])
    for (subject, name), unit in units.items():
        if name != "neutral":  # in the frame of its own nose tip, not of the neutral head's
            offset = (unit[source[skin]] - model.mean[skin]).ravel()
            code = np.linalg.lstsq(basis.T, offset, rcond=None)[0]
            assert np.abs(basis.T @ code - offset).max() < 1e-5, subject
    assert [entry["kind"] for entry in model.facts["registered"]] == ["heads"]
    assert model.facts["registered"][0]["fingerprint"] == heads.fingerprint
    grafted = LinearModel.train(sheets / "surfaces", origins=("scan", "composite"))
    assert [entry["kind"] for entry in grafted.facts["registered"]] == ["composites", "heads"]


def test_parts_add_up_to_the_heads(sheets: Path) -> None:
    heads = TrainingHeads.read(sheets / "surfaces", "train", ("scan",))
    moved = part_displacements(heads)
    np.testing.assert_allclose(sum(moved.values()), heads.neutral - heads.neutral.mean(0), atol=1e-12)
    for name in heads.reader.store.parts:
        own = heads.reader.parts == heads.reader.store.parts.label(name)
        shift = moved[name].reshape(len(heads.neutral), -1, 3)
        assert (shift[:, ~own] == 0).all() and np.abs(shift[:, own]).max() > 1e-3


@pytest.mark.parametrize("name", ["linear", "linear-parts"])
def test_compared_on_height_fields(
    sheets: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = compared._test_scans
    monkeypatch.setattr(compared, "_test_scans", lambda truth: every(truth)[-1:])  # fits take a second each
    settings = EvaluationSettings(score=ScoreSettings(full_points=1000, part_points=300), resolution=32, pairs=0)
    task = Task(sheets / "samples", settings)
    scores = COMPARED[name].scores(tmp_path, task)
    (head,) = scores.heads
    assert head.item["expression"] != "neutral"
    assert 0 < head.scores["none"]["full"]["p2s_mm"] < 3.0
    assert head.excluded_percent["none"] < 5.0  # the fit ends where the true sheet ends
    key = str(head.item["key"])
    found = COMPARED[name].heads(tmp_path, task, [key])[0]
    origin = open_dataset(sheets / "surfaces").read(key, "to_mm")[:3, 3]
    assert np.linalg.norm(found.vertices - origin, axis=1).max() < 100.0 + 1e-6
    again = COMPARED[name].scores(tmp_path, task)
    assert again.heads == scores.heads


def test_missing_or_other_heads_are_one_line(sheets: Path, tmp_path: Path) -> None:
    surfaces = tmp_path / "surfaces"
    shutil.copytree(sheets / "surfaces", surfaces)
    record = json.loads((surfaces / "run.json").read_text())
    record["inputs"] = [str(tmp_path / "gone"), "s3://bucket/heads"]
    (surfaces / "run.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match=r"height fields, .* learns from the heads .*gone \(no dataset\), .*heads \(no dataset\); put them into .*heads$") as caught:
        LinearModel.train(surfaces)
    assert "\n" not in str(caught.value) and "s3:" not in str(caught.value)
    shutil.copytree(sheets / "heads", tmp_path / "heads")
    assert LinearModel.train(surfaces).facts["registered"][0]["dataset"] == str((tmp_path / "heads").resolve())
    shutil.rmtree(tmp_path / "heads")
    ingest(None, tmp_path / "heads", RECIPE.of("ingest"), seed=9, options=SYNC)
    with pytest.raises(DataError, match=r"heads \(other heads\)"):
        LinearModel.train(surfaces)
    (surfaces / "run.json").unlink()
    with pytest.raises(DataError, match=r"the landmarks of .*heads are not those of .*surfaces"):
        LinearModel.train(surfaces)
