"""Several processes, one a GPU, as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from facegraft_model.errors import ModelError


@dataclass(frozen=True)
class Processes:
    """This process among those that train together. device: its own."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes checkpoints and logs."""
        return self.rank == 0

    def agreed(self, value: float) -> float:
        """The first process's value, in every process."""
        if self.world == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(tensor, 0)
        return float(tensor)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean of a tensor over all processes."""
        if self.world == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.world


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """auto: cuda where there is one. Raises ModelError for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        if not torch.cuda.is_available():
            raise ModelError(
                f"no CUDA device was found by torch {torch.__version__}; use --device cpu, or install torch for CUDA"
            )
        return torch.device("cuda", local_rank)
    if name != "cpu":
        raise ModelError(f"no device {name!r}; there are auto, cpu and cuda")
    return torch.device("cpu")


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Join the other processes of torchrun, if this is one of them; leave them at the end."""
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if world == 1:
        yield Processes(0, 1, chosen)
        return
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(rank, world, chosen)
    finally:
        dist.destroy_process_group()
