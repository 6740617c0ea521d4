"""Comparisons of methods: which there are, and that any object with a name and scores can be one of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from facegraft_model.errors import ModelError
from facegraft_model.evaluation import compared
from facegraft_model.evaluation.compared import COMPARED, FieldMethod, Task, method_named
from facegraft_model.evaluation.comparison import compare_methods, comparison_table
from facegraft_model.evaluation.evaluate import EvaluationSettings
from facegraft_model.evaluation.records import HeadScores, Scores, ScoreSettings, regions_of
from facegraft_model.presets import PRESETS
from facegraft_model.testing import made_up_parts

PARTS = made_up_parts(2).names
SETTINGS = {
    "full_points": 10,
    "part_points": 5,
    "taus_mm": [0.5, 1.0, 2.0],
    "alignments": ["none"],
    "parts": list(PARTS),
    "labels": "truth",
    "seed": 0,
    "bootstrap_rounds": 50,
    "truth": {"mm_per_unit": 100.0},
}


def scores(method: str, error: float) -> Scores:
    """Two heads of two subjects, all distances `error`."""
    metrics = {"scd_mm": error, "f_1mm": 50.0, "p2s_mm": error, "normal_consistency": 0.9}
    regions = dict.fromkeys(regions_of(PARTS), metrics)
    floor = {region: {"scd_mm": 0.1, "f_1mm": 99.0} for region in regions_of(PARTS)}
    heads = [
        HeadScores({"key": name, "subject": name}, {"none": regions}, floor, {"none": 0.0}) for name in ("a", "b")
    ]
    return Scores(method, SETTINGS, {"resolution": 64, "landmarks": "none"}, [0], heads, [])


@dataclass
class Toy:
    """A method that was given its scores, and remembers where it was asked for them."""

    name: str
    error: float
    asked: list[tuple[Path, Task]] = field(default_factory=list)

    def scores(self, folder: Path, task: Task) -> Scores:
        self.asked.append((folder, task))
        return scores(self.name, self.error)


def test_every_preset_is_a_method_and_once_more_with_five_landmarks() -> None:
    assert set(COMPARED) == {"linear", *PRESETS, *(f"{name}-five" for name in PRESETS)}
    five = method_named("paper-five")
    assert isinstance(five, FieldMethod) and five.config.model.landmarks == "five"
    assert five.config.preset == "paper-five" and PRESETS["paper"].model.landmarks == "part"
    with pytest.raises(ModelError, match=r"no method 'deepfdf' \(did you mean 'deepsdf'\?\)"):
        method_named("deepfdf")
    with pytest.raises(ModelError, match=r"no method 'xyz'; there are linear, paper, .*, deepsdf, and presets with -five"):
        method_named("xyz")


def test_a_registered_method_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, other = Toy("facegraft", 1.0), Toy("rabbit", 1.5)
    monkeypatch.setattr(compared, "COMPARED", {method.name: method for method in (ours, other)})
    task = Task(tmp_path / "samples", EvaluationSettings(score=ScoreSettings(full_points=10)), steps=3, overrides=("a.b=1",))
    table = compare_methods(["rabbit", "facegraft"], tmp_path / "out", task)
    assert ours.asked == [(tmp_path / "out" / "facegraft", task)] and other.asked == [(tmp_path / "out" / "rabbit", task)]
    assert (tmp_path / "out" / "table.txt").read_text() == table
    lines = table.splitlines()
    assert lines[0].split() == ["full", *PARTS, "rem"]
    assert [line.split()[0] for line in lines[2:5]] == ["rabbit", "facegraft", "floor"]
    assert "facegraft - rabbit" in lines and "-0.5000" in table
    document = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert document["methods"] == ["rabbit", "facegraft"] and document["steps"] == 3 and document["overrides"] == ["a.b=1"]
    with pytest.raises(ModelError, match="name each method once, not nothing"):
        compare_methods([], tmp_path / "out", task)


def test_methods_without_ours_are_not_subtracted() -> None:
    table = comparison_table([scores("rabbit", 1.0), scores("hare", 2.0)])
    assert "rabbit" in table and "hare" in table
    assert "interval over subjects, *" not in table and not any(line.startswith("facegraft") for line in table.splitlines())


def test_progress_names_the_method(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    task = Task(tmp_path, EvaluationSettings(), progress=lambda *step: seen.append(step))
    report = task.report("paper")
    assert report is not None
    report("fit", 1, 2)
    assert seen == [("paper: fit", 1, 2)] and Task(tmp_path, EvaluationSettings()).report("paper") is None
