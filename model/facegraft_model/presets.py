"""Named configurations. Everything in them can be changed by `--set`."""

from __future__ import annotations

from dataclasses import replace

from facegraft_model.config import Config, DataConfig, FitConfig, LossConfig, ModelConfig, TrainConfig
from facegraft_model.errors import ModelError
from facegraft_model.methods import METHODS, field_class

PAPER = Config(preset="paper", fit=FitConfig(schedule="step"))
"""Gu and Pears (VISAPP 2024) as published, on FaceScape; details that the paper does not give follow ImFace, on which it builds."""

PAPER_HEADSPACE = replace(
    PAPER, preset="paper-headspace", data=DataConfig(items=120), train=TrainConfig(epochs=800.0)
)
"""The same with the paper's batch and epochs for Headspace."""

FACEGRAFT = Config(
    preset="facegraft",
    model=ModelConfig(nets="basis", features=640, part_features=192, exp_features=256, basis_omega=20.0, rem_dim=300, exp_dim=32),
    loss=LossConfig(code=1.0, dense=3e3, correction=0.0, landmark_generation=0.0, landmark_consistency=0.0, neutral=0.0),
    data=DataConfig(items=10, surface=256, near=112, free=32, stage=512, template=768),
    train=TrainConfig(
        lr=3e-5, code_lr=5e-4, schedule="cosine", epochs=60.0, warmup_steps=100, clip_grad=2e3, pretrain=600
    ),
    fit=FitConfig(
        solver="gauss-newton", steps=40, lr=1e-2, items=1, surface=2500, near=0, free=0, init="mean", code=1.0
    ),
)
"""Ours: neural bases of the template's displacements, with local modes of the registered heads; it needs no GPU."""

TINY = replace(
    FACEGRAFT,
    preset="tiny",
    model=ModelConfig(
        nets="basis", width=96, features=384, part_features=192, exp_features=96, part_dim=48, rem_dim=150, exp_dim=16, part_local_mm=40.0
    ),
    data=DataConfig(items=6, surface=160, near=64, free=16, stage=256, template=512),
    train=TrainConfig(
        steps=300,
        lr=3e-5,
        code_lr=5e-4,
        schedule="cosine",
        warmup_steps=50,
        clip_grad=2e3,
        pretrain=200,
        validate_steps=0,
    ),
)
"""The same for the demo, tests and first experiments: a minute or two on one core."""

IMFACE = replace(
    PAPER,
    preset="imface",
    model=ModelConfig(method="imface", warp="se3", id_dim=128, exp_dim=128),
    loss=LossConfig(eikonal_neutral=50.0),
    data=DataConfig(items=72, origins="scan"),
    train=TrainConfig(epochs=1500.0, lr_from=209.0),
    fit=FitConfig(steps=1500, schedule="step", lr_from=209.0, correction=0.0),
)
"""ImFace (Zheng et al. 2022): one identity net, trained on scans, with the warp of its training configuration (rigid motions).

Its code lets the scheduler count from epoch 200 on, so the rate first falls after epoch 209 (counted from 0), and then every 10 epochs; in a
fit it counts the passes over the scans, which are our iterations.
"""

BROUGHT = dict.fromkeys(config for name in METHODS for config in field_class(name).presets)
"""The presets that the methods define (`Field.presets`)."""

PRESETS = {config.preset: config for config in (PAPER, PAPER_HEADSPACE, FACEGRAFT, TINY, IMFACE, *BROUGHT)}


def preset(name: str) -> Config:
    """A named configuration. Raises ModelError for an unknown name."""
    if name not in PRESETS:
        raise ModelError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
