"""Generators of torch from the seeds of facegraft.seeds."""

from __future__ import annotations

import torch

from facegraft.seeds import derived_seed

__all__ = ["derived_seed", "generator"]


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose: the same numbers on every device."""
    return torch.Generator().manual_seed(derived_seed(seed, *purpose))
