"""Several processes, one per GPU, as started by torchrun."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from facegraft_model.devices import choose_device
from facegraft_model.errors import ModelError


@dataclass(frozen=True)
class Processes:
    """This process among those that train together. device: that of this process."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes checkpoints and logs."""
        return self.rank == 0

    def any(self, *wishes: bool) -> list[bool]:
        """For each wish whether any process has it: the same answer in every process."""
        if self.world == 1:
            return list(wishes)
        tensor = torch.tensor(wishes, dtype=torch.int32, device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return [bool(wish) for wish in tensor.tolist()]

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean of a tensor over all processes."""
        if self.world == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.world


START = "start training by torchrun, or unset WORLD_SIZE to train in one process"


def _count(variable: str, missing: int | None = None) -> int:
    """The value of one of torchrun's variables. Raises ModelError where it is no number."""
    value = os.environ.get(variable, "" if missing is None else str(missing))
    if not (value.isascii() and value.isdigit()):
        raise ModelError(f"the environment has {variable}={value!r}, where torchrun sets a number; {START}")
    return int(value)


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Join the other processes of torchrun, if this is one of them; leave them at the end.

    Raises ModelError for a GPU that this process cannot have, and where torchrun's variables are incomplete or lead to nobody.
    """
    world = _count("WORLD_SIZE", 1)
    if world == 1:
        chosen = choose_device(device)
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        yield Processes(0, 1, chosen)
        return
    rank = _count("RANK")
    chosen = choose_device(device, _count("LOCAL_RANK", 0))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    try:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"process {rank} of {world} cannot join the others: {reason}; {START}") from error
    try:
        yield Processes(rank, world, chosen)
    finally:
        dist.destroy_process_group()
