"""Precision of matrix products."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from facegraft_model.config import TrainConfig


@contextmanager
def precision(train: TrainConfig, device: torch.device) -> Iterator[None]:
    """Set the precision of matrix products during training."""
    wanted = train.precision
    if wanted == "auto":
        wanted = "tf32" if device.type == "cuda" else "fp32"
    before = torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.set_float32_matmul_precision("highest" if wanted == "fp32" else "high")
    if train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.use_deterministic_algorithms(deterministic)
