"""Whether the steps of a run are compiled; where they cannot be, one line says why."""

from __future__ import annotations

import sys
from typing import NamedTuple

import torch

from facegraft_model.compilers import missing_compiler
from facegraft_model.config import TrainConfig
from facegraft_model.errors import ModelError
from facegraft_model.training.parallel import Processes

WITHOUT = "steps are not compiled, so that they take more time and memory"


class Compiling(NamedTuple):
    """on: whether steps are compiled; note: why they are not where they should be, a line to show."""

    on: bool
    note: str = ""


def decided(train: TrainConfig, processes: Processes) -> Compiling:
    """Whether to compile, by `train.compile`: the same in each process.

    Raises ModelError where it must be and a compiler is missing.
    """
    device = processes.device.type
    if train.compile == "off" or (train.compile == "auto" and device != "cuda"):
        return Compiling(False)
    reason = missing_compiler(device)
    (anywhere,) = processes.any(reason is not None)
    if not anywhere:
        return Compiling(True)
    reason = reason or "another of the processes says what it lacks"
    if train.compile == "on":
        raise ModelError(f"train.compile=on: {reason}; or take train.compile=off")
    return Compiling(False, f"{WITHOUT}: {reason}")


def not_compiled(error: Exception, train: TrainConfig, processes: Processes) -> str | None:
    """The line to show before the first step is taken again without compiling, because of an error in its first, compiled call.

    None where the error has to be left as it is: too little memory, and where compiling is no choice of ours. Raises ModelError in
    its place where torch.compile itself failed: with train.compile=on, and with several processes, which wait for each other.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError | ModelError):
        return None
    lines = str(error).strip().splitlines() or [""]
    said = f"{type(error).__name__}: {lines[0][:200]}"
    if train.compile == "auto" and processes.world == 1:
        return f"{WITHOUT}: torch.compile failed ({said}); train.compile=off leaves it out"
    compiler_failed = "torch._dynamo" in sys.modules and isinstance(error, sys.modules["torch._dynamo.exc"].TorchDynamoException)
    if compiler_failed:
        raise ModelError(f"the step cannot be compiled here ({said}); take train.compile=off") from error
    return None
