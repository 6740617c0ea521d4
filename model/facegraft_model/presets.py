"""Named configurations. Everything in them can be changed by `--set`."""

from __future__ import annotations

from dataclasses import replace

from facegraft_model.config import Config, DataConfig, FitConfig, LossConfig, ModelConfig, TrainConfig
from facegraft_model.errors import ModelError
from facegraft_model.methods import METHODS, field_class

PAPER = Config(preset="paper")
"""Gu and Pears (VISAPP 2024) as published; details that the paper does not give follow ImFace, on which it builds."""

FACEGRAFT = Config(
    preset="facegraft",
    model=ModelConfig(window=True, hyper="low-rank", code_init=0.1),
    loss=LossConfig(eikonal_neutral=50.0, code=1e2, dense=3e3, locality=300.0),
    data=DataConfig(surface=9216, near=5120, free=2048, stage=512),
    train=TrainConfig(
        lr=5e-4, head_lr=5e-5, code_lr=1e-3, schedule="cosine", epochs=400.0, warmup_steps=200, clip_grad=2e3
    ),
    fit=FitConfig(lr=5e-3, surface=9216, near=5120, free=2048, init="mean", code=1e2, locality=300.0),
)
"""Ours: stage supervision at registered points, windows, near-surface bands, low-rank hyper-networks."""

TINY = replace(
    FACEGRAFT,
    preset="tiny",
    model=ModelConfig(
        width=64,
        hyper="low-rank",
        hyper_width=64,
        hyper_rank=4,
        blend_width=32,
        landmark_width=64,
        window=True,
        code_init=0.1,
    ),
    data=DataConfig(items=8, surface=192, near=96, free=32, stage=96),
    train=TrainConfig(
        steps=1000,
        lr=5e-4,
        head_lr=1e-4,
        code_lr=2e-3,
        schedule="cosine",
        warmup_steps=50,
        clip_grad=2e3,
        validate_steps=0,
    ),
    fit=FitConfig(steps=200, lr=1e-2, items=4, surface=512, near=256, free=128, init="mean", code=1e2, locality=300.0),
)
"""Small enough for a CPU: for tests, the demo and first experiments."""

IMFACE = replace(
    PAPER,
    preset="imface",
    model=ModelConfig(method="imface"),
    loss=LossConfig(eikonal_neutral=50.0),
    data=DataConfig(items=72, origins="scan"),
    train=TrainConfig(epochs=1500.0),
    fit=FitConfig(steps=1500),
)
"""ImFace (Zheng et al. 2022): one identity net, trained on scans; with the translation warp of its fit configuration."""

BROUGHT = dict.fromkeys(config for name in METHODS for config in field_class(name).presets)
"""The presets that the methods define (`Field.presets`)."""

PRESETS = {config.preset: config for config in (PAPER, FACEGRAFT, TINY, IMFACE, *BROUGHT)}


def preset(name: str) -> Config:
    """A named configuration. Raises ModelError for an unknown name."""
    if name not in PRESETS:
        raise ModelError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
