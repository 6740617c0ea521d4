"""Recipes and overrides: what is read, and how a slip of the pen is answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from facegraft.recipe import RecipeError, find_recipe, load_recipe, stage_settings
from facegraft.resources import resource_folder
from facegraft.settings import SettingError
from facegraft.stages.clean import CleanParameters
from facegraft.stages.graft import GraftParameters
from facegraft.stages.ingest import IngestParameters
from facegraft.stages.parameters import ParameterError
from facegraft.stages.sample import SampleParameters

PARAMETERS = {kind.STAGE: kind for kind in (IngestParameters, GraftParameters, CleanParameters, SampleParameters)}


@pytest.mark.parametrize("path", sorted(resource_folder("pipelines").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_recipe_is_valid(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.description
    for stage, kind in PARAMETERS.items():
        kind.parse(recipe.of(stage))


def test_shipped_recipes_are_found_by_name_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe("ict") == find_recipe("pipelines/ict.yaml") == find_recipe("ict.yaml")
    (tmp_path / "ict.yaml").write_text("graft: {donors: 1}")
    assert find_recipe("ict.yaml") == Path("ict.yaml")
    with pytest.raises(RecipeError, match="did you mean 'ict'"):
        find_recipe("itc")


def test_override_wins_and_is_read_as_yaml(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("ingest: {kind: synthetic}\nsample: {near: 1}\n")
    recipe = load_recipe(path).override(["sample.near=50000", "sample.near_sigmas=[1, 2.5]", "graft.stiffness=.inf"])
    sample = SampleParameters.parse(recipe.of("sample"))
    assert sample.near == 50000 and sample.near_sigmas == (1.0, 2.5)
    assert GraftParameters.parse(recipe.of("graft")).stiffness == float("inf")
    assert load_recipe(path).of("sample") == {"near": 1}


def test_presets_set_defaults_that_explicit_values_beat() -> None:
    paper = SampleParameters.parse({"preset": "paper", "free": 7})
    assert (paper.surface, paper.near, paper.free) == (235_000, 0, 7)
    assert GraftParameters.parse({"preset": "paper"}).seam == "hard"
    assert GraftParameters.parse({"preset": "similarity"}).as_json()["stiffness"] == "inf"
    assert GraftParameters.parse(GraftParameters.parse({"preset": "similarity"}).as_json()).stiffness == float("inf")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"neer": 5}, r"unknown parameter sample.neer \(did you mean 'sample.near'\?\)"),
        ({"surface": "many"}, "sample.surface='many': input should be a valid integer"),
        ({"surface": 0}, "sample.surface=0: input should be greater than or equal to 1"),
        ({"near_sigmas": [1, -2]}, "sample.near_sigmas=.*all above 0"),
        ({"preset": "papper"}, "there is no preset 'papper'; presets are facegraft, paper"),
        ({"backend": "igl"}, "sample.backend='igl': there is no distance backend 'igl'; there are auto, height_field, mesh-to-sdf, winding"),
    ],
)
def test_wrong_parameters_are_named_with_the_nearest_right_one(values: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        SampleParameters.parse(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sampel: {near: 1}", r"unknown stage 'sampel' \(did you mean 'sample'\?\)"),
        ("- a\n- b", "a recipe maps stage names to parameters"),
        ("sample: 3", "sample must map parameter names to values"),
        ("sample: {near: 1", "not a YAML file"),
        ("sample: !!python/object/apply:os.system ['true']", "not a YAML file"),
    ],
)
def test_damaged_recipes_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message) as error:
        load_recipe(path)
    assert "bad.yaml" in str(error.value) and "\n" not in str(error.value)


def test_settings_name_their_stage() -> None:
    assert stage_settings("sample", ["surface=20000", "sample.near=5"]) == {"surface": 20000, "near": 5}
    with pytest.raises(RecipeError, match="runs only stage sample"):
        stage_settings("sample", ["graft.donors=3"])
    with pytest.raises(SettingError, match="name=value"):
        stage_settings("sample", ["surface"])
    recipe = load_recipe(find_recipe("demo"))
    with pytest.raises(RecipeError, match=r"name the stage too, .* sample.near"):
        recipe.override(["near=5"])
    with pytest.raises(RecipeError, match="did you mean 'sample'"):
        recipe.override(["sampl.near=5"])
