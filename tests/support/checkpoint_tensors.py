"""Tensors for checkpoints of tests, and what is common to these tests."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

STATE = {"config": {"lr": 1e-4, "betas": [0.9, 0.999]}, "mm_per_unit": 170.0, "fingerprint": "f" * 64, "names": ["Zoë"]}


def some_tensors(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "nets.nose.weight": torch.randn(5, 3, generator=generator),
        "nets.nose.bias": torch.randn(5, generator=generator, dtype=torch.float64),
        "count": torch.tensor(7 + seed),
        "mask": torch.tensor([True, False]),
        "half": torch.randn(4, generator=generator).to(torch.bfloat16),
        "empty": torch.zeros(0, 3),
    }


def moments(seed: int = 0) -> dict[str, Tensor]:
    return {f"exp_avg/{name}": tensor for name, tensor in some_tensors(seed + 100).items()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype and torch.equal(first[name], second[name]), name


def steps(run: Path) -> list[str]:
    return sorted(entry.name for entry in (run / "checkpoints").iterdir())
