"""The published methods scaled down for hours on one CPU core: fewer and narrower layers, fewer points, faster rates.

A comparison names them with the suffix -small, never as the plain preset: their sizes and rates are ours, as in docs/model.md
"Measured". Losses, kinds of codes, warps, the identity code's length (ImFace) and which heads are learnt are each method's own, with one
exception in the baseline's favour: DeepSDF learns all expressions, not neutral heads alone, because the held-out heads have expressions.
All take the points near the surface that any samples have (1 and 5 mm), not the sets that DeepSDF and i3DMM were published with; other
settings, such as deepsdf-small@data.expressions=neutral, are rows of their own. Each sees the same number of heads a step.
"""

from __future__ import annotations

from dataclasses import replace

from facegraft_model.baselines.deepsdf import DeepSDFOptions
from facegraft_model.baselines.i3dmm import I3DMMOptions
from facegraft_model.config import Config, DataConfig, FitConfig, TrainConfig, own_options
from facegraft_model.presets import preset

SMALL = "-small"
"""Suffix of the name of a preset that is scaled down."""

ITEMS = 10
"""Heads of a step."""
_SINE = TrainConfig(
    lr=5e-4, head_lr=1e-4, code_lr=2e-3, schedule="cosine", warmup_steps=200, clip_grad=1e4, steps=6000
)
"""Rates of the sine networks under hyper-networks; the steps are about an hour on one core."""
_RELU = TrainConfig(lr=1e-3, code_lr=2e-3, schedule="cosine", warmup_steps=200, steps=10_000)
"""Rates of the ReLU networks, which are cheaper by the step."""


def _cascade(config: Config) -> Config:
    """paper and imface: width 96, 512 points of a head."""
    return replace(
        config,
        model=replace(config.model, width=96, hyper_width=64, blend_width=32, landmark_width=128, code_init=0.1),
        loss=replace(config.loss, code=100.0),
        data=replace(config.data, items=ITEMS, surface=480, near=0, free=32),
        train=_SINE,
        fit=FitConfig(
            steps=300,
            lr=1e-2,
            items=12,
            surface=512,
            near=192,
            free=64,
            init="mean",
            code=100.0,
            correction=config.fit.correction,
        ),
    )


def _near(data: DataConfig) -> DataConfig:
    return replace(data, items=ITEMS, surface=0, near=480, free=32, wide=0, poi=0, expressions=())


_NEAR_FIT = FitConfig(steps=300, lr=1e-2, items=12, surface=0, near=704, free=64, init="mean", code=1e-4)


def _deepsdf(config: Config) -> Config:
    """Width 256 instead of 512, codes of 128; no dropout, which a small net that underfits does not need."""
    own = replace(
        own_options(config, DeepSDFOptions),
        deepsdf_dim=128,
        deepsdf_width=256,
        deepsdf_dropout=0.0,
        deepsdf_code_init=128**-0.5,
        code_warmup_epochs=20.0,
    )
    return replace(config, baseline=own, data=_near(config.data), train=_RELU, fit=_NEAR_FIT)


def _i3dmm(config: Config) -> Config:
    """Deformation of width 256 instead of 1024, reference of 128 instead of 512; codes of 96 and 32."""
    own = replace(
        own_options(config, I3DMMOptions),
        i3dmm_id_dim=96,
        i3dmm_exp_dim=32,
        i3dmm_width=256,
        i3dmm_reference_width=128,
        i3dmm_code_init=128**-0.5,
        i3dmm_pretrain_epochs=300.0,
        code_warmup_epochs=20.0,
    )
    return replace(config, baseline=own, data=_near(config.data), train=_RELU, fit=_NEAR_FIT)


SMALL_PRESETS = {
    config.preset: replace(config, preset=config.preset + SMALL).checked()
    for config in (
        _cascade(preset("paper")),
        _cascade(preset("imface")),
        _deepsdf(preset("deepsdf")),
        _i3dmm(preset("i3dmm")),
    )
}
"""The scaled-down methods by the name of the preset that they follow; facegraft and tiny are made for a CPU as they are."""
