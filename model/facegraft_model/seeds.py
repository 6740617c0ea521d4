"""Random numbers of torch, derived from seeds as in `facegraft.seeds`."""

from __future__ import annotations

import torch

from facegraft.seeds import derived_seed


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose: the same numbers on every device."""
    return torch.Generator().manual_seed(derived_seed(seed, *purpose))
