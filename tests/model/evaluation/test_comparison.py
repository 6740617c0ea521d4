"""Comparisons of methods: which there are, and that any object with a name and scores can be one of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytest
from facegraft_model.checkpoints.checkpoint import load
from facegraft_model.config import Config, windows
from facegraft_model.errors import ModelError
from facegraft_model.evaluation import budget, compared
from facegraft_model.evaluation.compared import COMPARED, Curve, FieldMethod, Task, method_named, named_methods
from facegraft_model.evaluation.comparison import compare_methods, comparison_table, verdicts
from facegraft_model.evaluation.evaluate import EvaluationSettings
from facegraft_model.evaluation.merging import merge_scores
from facegraft_model.evaluation.records import HeadScores, Reconstruction, Scores, ScoreSettings, regions_of
from facegraft_model.evaluation.scorefiles import read_scores
from facegraft_model.evaluation.small import SMALL_PRESETS
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

    def heads(self, folder: Path, task: Task, keys: Sequence[str]) -> list[Reconstruction]:
        return []

    def curve(self, folder: Path, task: Task) -> Curve | None:
        return None


@dataclass
class Broken(Toy):
    """A method that fails."""

    reason: BaseException = field(default_factory=Exception)

    def scores(self, folder: Path, task: Task) -> Scores:
        raise self.reason


def test_every_preset_is_a_method_and_once_more_with_five_landmarks() -> None:
    small = {"paper-small", "imface-small", "deepsdf-small", "i3dmm-small"}
    assert set(COMPARED) == {"linear", "linear-parts", *PRESETS, *(f"{name}-five" for name in PRESETS), *small}
    five = method_named("paper-five")
    assert isinstance(five, FieldMethod) and five.config.model.landmarks == "five"
    assert five.config.preset == "paper-five" and PRESETS["paper"].model.landmarks == "part"
    with pytest.raises(ModelError, match=r"no method 'deepfdf' \(did you mean 'deepsdf'\?\)"):
        method_named("deepfdf")
    with pytest.raises(ModelError, match=r"'xyz'; there are linear, .*, deepsdf, presets with -five, and paper, .* with -small"):
        method_named("xyz")


def test_a_method_with_other_settings_is_a_row_of_its_own() -> None:
    changed = method_named("facegraft@data.template=0@train.pretrain=7")
    plain = PRESETS["facegraft"]
    assert isinstance(changed, FieldMethod) and changed.name == "facegraft@data.template=0@train.pretrain=7"
    assert changed.config == replace(
        plain, preset=changed.name, data=replace(plain.data, template=0), train=replace(plain.train, pretrain=7)
    )
    with pytest.raises(ModelError, match=r"data has no setting 'templat' \(did you mean 'template'\?\)"):
        method_named("facegraft@data.templat=0")
    with pytest.raises(ModelError, match=r"linear has no settings that 'linear@data.template=0' could change"):
        method_named("linear@data.template=0")
    with pytest.raises(ModelError, match=r"no method 'facegarft' \(did you mean 'facegraft'"):
        method_named("facegarft@data.template=0")


@pytest.mark.parametrize("name", sorted(SMALL_PRESETS))
def test_a_small_preset_is_the_same_method_by_another_name(name: str) -> None:
    """Sizes, rates and numbers of points differ; which terms, codes and nets there are does not."""
    small, full = method_named(f"{name}-small"), PRESETS[name]
    assert isinstance(small, FieldMethod) and small.name == f"{name}-small"
    config = small.config
    assert (config.model.method, config.model.landmarks, config.model.window) == (full.model.method, full.model.landmarks, full.model.window)
    assert config.data.origins == full.data.origins and type(config.baseline) is type(full.baseline)
    points = [sum(windows(data).values()) for data in (config.data, full.data)]
    assert points[0] < points[1] / 10 and config.data.items == 10
    switched = [{term for term, weight in asdict(loss).items() if weight} for loss in (config.loss, full.loss)]
    assert switched[0] == switched[1]
    assert config.fit.init == "mean" and config.fit.steps == 300
    assert (config.model.warp, config.model.id_dim, config.model.exp_dim) == (full.model.warp, full.model.id_dim, full.model.exp_dim)
    assert config.fit.correction == full.fit.correction and not any(windows(config.fit)[each] for each in ("wide", "poi"))
    assert config.data.expressions == (), "held-out heads have all expressions"


def test_names_are_split_at_commas_but_not_within_a_list() -> None:
    several = "linear, deepsdf-small@data.expressions=[neutral,smile]@train.lr=1,,tiny"
    assert named_methods(several) == ["linear", "deepsdf-small@data.expressions=[neutral,smile]@train.lr=1", "tiny"]
    changed = method_named(named_methods(several)[1])
    assert isinstance(changed, FieldMethod) and changed.config.data.expressions == ("neutral", "smile")


def test_a_small_method_may_learn_fewer_expressions_in_a_row_of_its_own() -> None:
    changed = method_named("deepsdf-small@data.expressions=neutral")
    assert isinstance(changed, FieldMethod) and changed.config.data.expressions == ("neutral",)
    assert changed.config.data.origins == "scan"


def test_a_registered_method_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, other = Toy("facegraft", 1.0), Toy("rabbit", 1.5)
    monkeypatch.setattr(compared, "COMPARED", {method.name: method for method in (ours, other)})
    task = Task(tmp_path / "samples", EvaluationSettings(score=ScoreSettings(full_points=10)), steps=3, overrides=("a.b=1",))
    comparison = compare_methods(["rabbit", "facegraft"], tmp_path / "out", task)
    table = comparison.table
    assert [result.method for result in comparison.scores] == ["rabbit", "facegraft"] and not comparison.failed
    assert ours.asked == [(tmp_path / "out" / "facegraft", task)] and other.asked == [(tmp_path / "out" / "rabbit", task)]
    assert (tmp_path / "out" / "table.txt").read_text() == table
    lines = table.splitlines()
    assert lines[0].split() == ["full", *PARTS, "rem"]
    assert [line.split()[0] for line in lines[2:5]] == ["rabbit", "facegraft", "floor"]
    assert "facegraft - rabbit" in lines and "-0.5000" in table
    document = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert document["scores"]["rabbit"]["summary"]["none"]["full"]["scd_mm"]["mean"] == 1.5
    difference = document["differences"]["rabbit"]["none"][PARTS[0]]
    assert difference["scd_mm"]["mean"] == difference["p2s_mm"]["mean"] == -0.5
    assert document["methods"] == ["rabbit", "facegraft"] and document["steps"] == 3 and document["overrides"] == ["a.b=1"]
    with pytest.raises(ModelError, match="name each method once, not nothing"):
        compare_methods([], tmp_path / "out", task)


def test_a_method_that_fails_is_a_row_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toys = [Broken("mole", 0.0, reason=ModelError("the loss\nbecame nan")), Toy("hare", 1.0), Broken("vole", 0.0, reason=MemoryError())]
    monkeypatch.setattr(compared, "COMPARED", {method.name: method for method in toys})
    task = Task(tmp_path / "samples", EvaluationSettings())
    comparison = compare_methods(["mole", "hare", "vole"], tmp_path, task)
    assert comparison.failed == {"mole": "the loss became nan", "vole": "MemoryError"}
    lines = comparison.table.splitlines()
    assert "mole     FAILED: the loss became nan" in lines and lines[2].startswith("hare")
    assert json.loads((tmp_path / "comparison.json").read_text())["failed"] == comparison.failed
    assert compare_methods(["mole"], tmp_path, task).table == "mole   FAILED: the loss became nan\n"


@pytest.mark.parametrize("reason", [KeyboardInterrupt(), TypeError("a bug")])
def test_a_bug_or_the_users_signal_ends_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: BaseException
) -> None:
    monkeypatch.setattr(compared, "COMPARED", {"mole": Broken("mole", 0.0, reason=reason)})
    with pytest.raises(type(reason)):
        compare_methods(["mole"], tmp_path, Task(tmp_path, EvaluationSettings()))
    assert not (tmp_path / "table.txt").exists()


def test_seeds_are_a_row_of_means_and_one_of_spreads() -> None:
    runs = [replace(scores("rabbit", error), training_seeds=[seed]) for seed, error in enumerate((1.0, 1.2, 1.4))]
    table = comparison_table([merge_scores(runs), scores("facegraft", 1.0)]).splitlines()
    assert table[2].split()[:2] == ["rabbit", "1.200"] and table[3].split()[:4] == ["±", "3", "seeds", "0.200"]
    assert table[4].startswith("facegraft")


def test_verdicts_say_where_ours_is_better() -> None:
    def spread(method: str, errors: tuple[float, float]) -> Scores:
        heads = [head for error, head in zip(errors, (0, 1), strict=True) for head in [scores(method, error).heads[head]]]
        return replace(scores(method, 0.0), heads=heads)

    ours = spread("facegraft", (1.0, 1.0))
    worse, near, better = spread("worse", (1.5, 1.6)), spread("near", (0.9, 1.1)), spread("better", (0.5, 0.6))
    lines = verdicts(ours, [worse, near, better])
    assert len(lines) == 1 + len(ours.regions)
    assert lines[1].split(maxsplit=1)[1] == "SCD below worse; not apart from near; above better.  p2s below worse; not apart from near; above better"
    assert verdicts(ours, [worse])[1].split(maxsplit=1)[1] == "SCD below all.  p2s below all"


def test_a_task_takes_steps_or_seconds_and_each_seed_once(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="either a number of steps or a budget of seconds, not both"):
        Task(tmp_path, EvaluationSettings(), steps=3, seconds=1.0)
    with pytest.raises(ModelError, match="each training seed once, not 1, 1"):
        Task(tmp_path, EvaluationSettings(), seeds=(1, 1))


def test_a_field_is_trained_for_each_seed_with_one_pace_and_keeps_it(
    spheres: Path, tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of steps is seconds / pace in every seed, and that of the first call when the comparison is resumed."""
    monkeypatch.setattr(budget, "measured_pace", lambda *_, **__: budget.Pace(0.5, 1.0, 4.0))
    monkeypatch.setattr(compared, "evaluate_fits", lambda fits, *_, **__: replace(scores("toy", 1.0), training_seeds=[fits.field.provenance["seed"]]))
    monkeypatch.setattr(compared, "_kept_scores", lambda *_: None)
    method = FieldMethod(replace(tiny, preset="toy", fit=replace(tiny.fit, steps=2)))
    task = Task(spheres, EvaluationSettings(), seconds=5.0, fit_steps=2, seeds=(3, 4), device="cpu", show_training=False)
    merged = method.scores(tmp_path, task)
    assert merged.training_seeds == [3, 4] and read_scores(tmp_path / "scores").training_seeds == [3, 4]
    for seed in (3, 4):
        assert load(tmp_path / f"seed_{seed}" / "run").step == 8  # (5 - 1) / 0.5
    curve = method.curve(tmp_path, task)
    assert curve is not None and curve.moving and curve.seconds == [2.0, 3.0, 4.0, 5.0] and min(curve.errors_mm) > 0
    monkeypatch.setattr(budget, "measured_pace", lambda *_, **__: budget.Pace(0.1, 0.0, 4.0))
    method.scores(tmp_path, task)
    assert load(tmp_path / "seed_3" / "run").step == 8


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
