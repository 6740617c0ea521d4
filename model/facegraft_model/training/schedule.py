"""Learning rates by parameter and by step."""

from __future__ import annotations

from typing import Any

from torch import nn

from facegraft_model.config import TrainConfig
from facegraft_model.method import Field
from facegraft_model.rates import cosine, stepped


def parameter_groups(field: Field, train: TrainConfig) -> list[dict[str, Any]]:
    """Parameters by learning rate: networks, last layers of hyper-networks, latent codes."""
    rates = {"networks": train.lr, "heads": train.head_lr or train.lr, "codes": train.code_lr or train.lr}
    rates |= {prefix: train.lr * factor for prefix, factor in field.lr_factors.items()}
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in rates}
    for name, parameter in field.named_parameters():
        own = next((prefix for prefix in field.lr_factors if name.startswith(prefix)), None)
        kind = "codes" if name.startswith("tables.") else "heads" if ".heads." in name else "networks"
        groups[own or kind].append(parameter)
    return [{"params": parameters, "lr": rates[name]} for name, parameters in groups.items() if parameters]


def learning_rate_factor(train: TrainConfig, step: int, steps_per_epoch: float, total: int) -> float:
    """Learning rate of a step relative to the highest: a pure function, so that nothing has to be saved."""
    warmup = min(1.0, (step + 1) / (train.warmup_steps + 1))
    if train.schedule == "cosine":
        return warmup * cosine(step / total)
    return warmup * stepped(train.lr_factor, train.lr_every, train.lr_from, step / steps_per_epoch)
