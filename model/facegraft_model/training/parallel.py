"""Several processes, one per GPU, as started by torchrun."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from facegraft_model.devices import choose_device
from facegraft_model.errors import ModelError


@dataclass(frozen=True)
class Processes:
    """This process among those that train together. device: that of this process; local_rank, local_world: its number among those of
    its machine, and how many these are."""

    rank: int
    world: int
    device: torch.device
    local_rank: int = 0
    local_world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes checkpoints and logs."""
        return self.rank == 0

    def any(self, *wishes: bool) -> list[bool]:
        """For each wish whether any process has it: the same answer in every process."""
        return [bool(wish) for wish in self.most(*wishes)]

    def most(self, *values: float) -> list[float]:
        """The largest of each value over all processes."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        largest: list[float] = tensor.tolist()
        return largest

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean of a tensor over all processes."""
        if self.world == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.world


AGREED_SECONDS = 2.0
"""Processes ask each other about this often: a signal ends all of them soon enough for a batch system, which kills after half a minute."""
MOST_STEPS = 100
"""They ask at least once in so many steps."""


class Agreements:
    """What processes that train together agree on now and then, since each of them would wait for all others: whether any wants to stop.

    They ask after steps that follow from the pace of the slowest one at the last agreement, which all of them know, so all ask after the
    same steps. One process alone asks itself after each step. step: finished steps; now: seconds, for tests.
    """

    def __init__(self, processes: Processes, step: int, now: Callable[[], float] = time.monotonic) -> None:
        self._processes, self._now = processes, now
        self._last, self._next, self._since = step, step + 1, now()

    def any(self, step: int, *wishes: bool) -> list[bool]:
        """For each wish whether any process has it, in every process the same answer; all False after a step without an agreement."""
        if self._processes.world == 1:
            return self._processes.any(*wishes)
        if step < self._next:
            return [False] * len(wishes)
        now = self._now()
        *found, pace = self._processes.most(*wishes, (now - self._since) / (step - self._last))
        self._last, self._since = step, now
        self._next = step + max(1, min(MOST_STEPS, int(AGREED_SECONDS / max(pace, 1e-9))))
        return [bool(wish) for wish in found]


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
    rank, local_rank, local_world = _count("RANK"), _count("LOCAL_RANK", 0), _count("LOCAL_WORLD_SIZE", 1)
    chosen = choose_device(device, local_rank)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    try:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"process {rank} of {world} cannot join the others: {reason}; {START}") from error
    try:
        yield Processes(rank, world, chosen, *((local_rank, local_world) if local_rank < local_world else (0, 1)))
    finally:
        dist.destroy_process_group()
