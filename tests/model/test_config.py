"""Configurations survive JSON, settings are checked one by one, and presets are valid."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from facegraft_model.baselines.deepsdf import DeepSDFOptions
from facegraft_model.config import SETS, Config, LossConfig, windows
from facegraft_model.data.items import POINT_SETS
from facegraft_model.errors import ModelError
from facegraft_model.methods import METHODS, field_class
from facegraft_model.presets import PRESETS, preset
from facegraft_model.seeds import generator

from facegraft.seeds import derived_seed

# -- JSON ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_valid_and_survives_json(name: str) -> None:
    config = preset(name)
    assert config.preset == name
    assert config.checked() == config
    assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_an_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(ModelError, match="no preset 'papre'; there are paper, paper-headspace, facegraft, tiny"):
        preset("papre")


def test_json_refuses_unknown_missing_and_wrong_settings() -> None:
    document = Config().to_json()
    with pytest.raises(ModelError, match=r"state: config\.model: unknown setting 'widht' \(did you mean 'width'\?\)"):
        Config.from_json({**document, "model": {**document["model"], "widht": 1}}, "state: config")
    short = {name: value for name, value in document["loss"].items() if name != "sdf"}
    with pytest.raises(ModelError, match=r"configuration\.loss: setting 'sdf' is missing"):
        Config.from_json({**document, "loss": short})
    with pytest.raises(ModelError, match=r"configuration\.data\.items: expected int, found '36'"):
        Config.from_json({**document, "data": {**document["data"], "items": "36"}})
    with pytest.raises(ModelError, match=r"configuration\.fit: expected a JSON object, found list"):
        Config.from_json({**document, "fit": []})
    with pytest.raises(ModelError, match="configuration: setting 'train' is missing"):
        Config.from_json({name: value for name, value in document.items() if name != "train"})


def test_a_configuration_from_before_a_setting_was_added_means_what_it_did() -> None:
    """Such as those in checkpoints; a setting that there always was must be there."""
    document = json.loads(json.dumps(Config().to_json()))
    added = {"model": ("warp", "id_dim"), "data": ("wide", "poi", "expressions"), "fit": ("schedule", "lr_from", "wide", "correction")}
    for group, names in added.items():
        for name in names:
            del document[group][name]
    assert Config.from_json(document) == Config()
    config = Config()
    assert (config.model.warp, config.model.id_dim, config.data.expressions) == ("translation", None, ())
    assert (config.data.wide, config.fit.schedule, config.fit.correction) == (0, "cosine", None)


def test_names_are_a_list_or_one() -> None:
    names = Config().with_settings(["data.expressions=[neutral, smile]"]).data.expressions
    assert names == ("neutral", "smile")
    assert Config().with_settings(["data.expressions=neutral"]).data.expressions == ("neutral",)
    assert Config().with_settings(["data.expressions=[]"]).data.expressions == ()
    with pytest.raises(ModelError, match=r"data\.expressions=\[1\]: expected a list of str, such as \[a, b\], found \[1\]"):
        Config().with_settings(["data.expressions=[1]"])


def test_every_set_of_points_has_its_count() -> None:
    assert set(SETS) == set(POINT_SETS)
    config = Config().with_settings(["data.surface=0", "data.free=0", "data.wide=5", "loss.neutral=0"])
    assert windows(config.data) == {"surface": 0, "near": 0, "free": 0, "wide": 5, "poi": 0}


# -- settings ------------------------------------------------------------------------------------------------------------


def test_settings_are_read_as_the_type_of_their_field() -> None:
    config = Config().with_settings(
        [
            "train.lr=1e-3",
            "train.steps=500",
            "train.code_lr=2",
            " model.window = true ",
            "model.hyper=film",
            "data.items=8.0",
            "loss.sdf=0",
        ]
    )
    assert (config.train.lr, config.train.steps, config.data.items, config.loss.sdf) == (1e-3, 500, 8, 0.0)
    assert config.model.window is True and config.model.hyper == "film"
    assert isinstance(config.train.code_lr, float) and isinstance(config.data.items, int)
    assert config.with_settings(["train.steps=none", "model.window=FALSE"]).train.steps is None
    assert Config().with_settings([]) == Config()


def test_the_last_of_repeated_settings_counts() -> None:
    assert Config().with_settings(["train.lr=1", "train.lr=2"]).train.lr == 2.0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.lr", r"--set train\.lr: write group\.name=value"),
        ("lr=1e-3", r"--set lr=1e-3: write group\.name=value"),
        ("trian.lr=1", "no group 'trian'; the groups are model, loss, baseline, data, train, fit"),
        ("preset.x=1", "no group 'preset'"),
        ("train.lrr=1", r"train has no setting 'lrr' \(did you mean 'lr'\?\)"),
        ("train.zzz=1", "train has no setting 'zzz'; there are accumulate,"),
        ("train.lr=fast", "expected float, found 'fast'"),
        ("train.lr=true", "expected float, found True"),
        ("train.lr=null", "expected float, found None"),
        ("train.steps=1.5", r"expected int, found 1\.5"),
        ("model.window=1", "expected bool, found 1"),
        ("model.width=true", "expected int, found True"),
        ("model.method=nerf", "'nerf' is none of parts, imface, i3dmm, deepsdf"),
        ("model.method=[1]", r"\[1\] is none of parts"),
    ],
)
def test_a_setting_that_is_none_says_why(setting: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Config().with_settings([setting])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.width=0"], "width must be positive, but is 0"),
        (["model.omega=NaN"], "omega must not be negative or infinite, but is nan"),
        (["model.code_init=-1"], "code_init must not be negative"),
        (["train.lr=-1"], "lr must be positive"),
        (["train.lr=Infinity"], "lr must not be negative or infinite"),
        (["train.steps=0"], "steps must be positive, but is 0"),
        (["train.code_lr=0"], "code_lr must be positive, but is 0"),
        (["loss.sdf=-1"], "sdf must not be negative"),
        (["data.surface=-1"], "surface must not be negative"),
        (["data.surface=0", "data.near=0", "data.free=0"], "a step needs points"),
        (["fit.surface=0", "fit.near=0", "fit.free=0"], "a fit needs points"),
        (["data.surface=0"], "loss.neutral is measured at surface points"),
        (["loss.dense=1"], r"loss\.dense needs registered points: set data\.stage"),
        (["data.items=4", "train.accumulate=3"], r"data\.items 4 cannot be split into train\.accumulate=3"),
        (["model.nets=basis", "model.warp=se3", "loss.neutral=0"], r"model\.warp=se3 is for model\.nets=hyper"),
        (["model.id_dim=0"], "id_dim must be positive"),
        (["model.window_inner=2"], "window_outer must be larger than"),
        (["model.method=deepsdf", "baseline.deepsdf_dropout=1"], "deepsdf_dropout must be below 1"),
    ],
)
def test_values_that_cannot_work_are_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Config().with_settings(settings)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_brings_its_options_and_presets(method: str) -> None:
    config = Config().of_method(method)
    assert type(config.baseline) is field_class(method).Options
    assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config
    for brought in field_class(method).presets:
        assert brought.model.method == method == brought.preset and preset(method) == brought


def test_the_method_decides_which_options_there_are_whatever_comes_first() -> None:
    config = Config().with_settings(["baseline.deepsdf_dim=8", "loss.neutral=0", "model.method=deepsdf"])
    assert isinstance(config.baseline, DeepSDFOptions) and config.baseline.deepsdf_dim == 8
    assert config.with_settings(["model.method=deepsdf"]) == config
    with pytest.raises(ModelError, match="baseline, with method i3dmm, has no setting 'deepsdf_dim'"):
        config.with_settings(["model.method=i3dmm", "baseline.deepsdf_dim=9"])
    with pytest.raises(ModelError, match="baseline, with method parts, has no setting 'clamp'; there are none"):
        Config().with_settings(["baseline.clamp=1"])
    document = config.to_json()
    with pytest.raises(ModelError, match=r"configuration\.baseline: unknown setting 'clamp'"):
        Config.from_json({**document, "model": {**document["model"], "method": "parts"}})
    with pytest.raises(ModelError, match="method i3dmm needs the options of I3DMMOptions, not of DeepSDFOptions"):
        replace(config, model=replace(config.model, method="i3dmm")).checked()


def test_yaml_takes_some_values_for_others_than_they_are() -> None:
    config = Config().with_settings(
        ["train.lr=1e-3", "train.compile=on", "train.steps=None", "loss.sdf=.5", "model.window=yes", "train.code_lr=~"]
    )
    assert (config.train.lr, config.train.compile, config.train.steps, config.loss.sdf) == (1e-3, "on", None, 0.5)
    assert config.model.window is True and config.train.code_lr is None
    assert Config().with_settings(["train.compile=off"]).train.compile == "off"
    with pytest.raises(ModelError, match=r"--set train\.lr=…: cannot read the value"):
        Config().with_settings(["train.lr=[1"])
    with pytest.raises(ModelError, match=r"train\.lr=on: expected float, found True"):
        Config().with_settings(["train.lr=on"])


# -- weights, seeds --------------------------------------------------------------------------------------------


def test_the_loss_of_the_paper_has_the_weights_of_the_paper() -> None:
    published = {"sdf": 3e3, "eikonal": 50, "normal": 100, "correction": 100, "landmark_generation": 1e3}
    published |= {"landmark_consistency": 100, "code": 1e6, "neutral": 1e4}
    assert preset("paper").loss == replace(LossConfig(), **published)
    others = set(preset("paper").to_json()["loss"]) - set(published)
    assert all(getattr(preset("paper").loss, name) == 0 for name in others)


def test_seeds_differ_by_purpose_and_repeat() -> None:
    seeds = {derived_seed(seed, *purpose) for seed in (0, 1) for purpose in ((), ("a",), ("a", 1), ("a", 2), ("b",))}
    assert len(seeds) == 10 and all(0 <= seed < 2**63 for seed in seeds)
    assert generator(3, "x").initial_seed() == derived_seed(3, "x")
