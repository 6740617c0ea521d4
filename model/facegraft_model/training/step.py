"""One step of training: the loss of a batch, its gradient, and a step of the optimiser."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from facegraft_model.config import TrainConfig
from facegraft_model.errors import ModelError
from facegraft_model.method import SHARED, Batch, Field, Terms
from facegraft_model.training.parallel import Processes


class TrainingStep(nn.Module):
    """Loss of a batch: one module, so that one graph can be compiled and DDP sees every parameter."""

    def __init__(self, field: Field) -> None:
        super().__init__()
        self.field = field

    def forward(self, batch: Batch, epoch: Tensor) -> tuple[Tensor, Terms]:
        terms = self.field.training_terms(batch, self.field.codes_of(batch), epoch)
        return torch.stack(list(terms.values())).sum(), terms


class StepResult(NamedTuple):
    """Loss and its terms, and the norm of the gradient before clipping: scalars. The step was skipped where the norm is not finite."""

    loss: Tensor
    terms: Terms
    grad_norm: Tensor


def step_module(field: Field, processes: Processes, *, compiled: bool) -> nn.Module:
    """The loss module of a field, compiled or not, and wrapped in DDP if there are several processes."""
    step, device = TrainingStep(field), processes.device
    if compiled:
        step.compile(fullgraph=True, dynamic=False)
        if processes.world > 1:
            import torch._dynamo.config

            # The step stays one graph: cut into one for each bucket of gradients it would be launched in pieces, and no fusion crosses a cut.
            torch._dynamo.config.optimize_ddp = False
    if processes.world == 1:
        return step
    # No step changes a buffer that the others need; gradients live in the buckets that are sent, without a copy.
    return DistributedDataParallel(
        step,
        device_ids=[device] if device.type == "cuda" else None,
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
    )


def optimise(
    module: nn.Module, optimiser: torch.optim.Optimizer, batch: Batch, epoch: Tensor, train: TrainConfig
) -> StepResult:
    """One step of the optimiser. module: of `step_module`; epoch: number of epochs so far, a scalar.

    The batch is processed in `accumulate` equal parts, whose gradients add up to that of the batch. A gradient that is not finite
    changes nothing. Every process sees the same one, so all of them skip the same steps.
    """
    optimiser.zero_grad(set_to_none=True)
    terms: Terms = {}
    loss = torch.zeros((), device=epoch.device)
    parts = split_batch(batch, train.accumulate)
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        # Processes exchange gradients once per step: with the last part, when each has accumulated its own.
        quiet = module.no_sync() if isinstance(module, DistributedDataParallel) and not last else nullcontext()
        with quiet:
            part_loss, part_terms = module(part, epoch)
            (part_loss / len(parts)).backward()
        loss = loss + part_loss.detach() / len(parts)
        terms = {name: terms.get(name, 0) + value.detach() / len(parts) for name, value in part_terms.items()}
    norm = nn.utils.clip_grad_norm_(module.parameters(), train.clip_grad or math.inf)
    _apply(optimiser, norm)
    return StepResult(loss, terms, norm)


def _apply(optimiser: torch.optim.Optimizer, norm: Tensor) -> None:
    """The optimiser's step, unless the gradient's norm is not finite."""
    if optimiser.defaults.get("fused"):
        # A fused kernel is told on the device to leave everything as it is, so that the host need not wait for the norm.
        optimiser.grad_scale, optimiser.found_inf = None, (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
        optimiser.step()
    elif bool(torch.isfinite(norm)):
        optimiser.step()


def split_batch(batch: Batch, parts: int) -> list[Batch]:
    """A batch split into equal parts of its items. Raises ModelError when it cannot be split equally."""
    if parts == 1:
        return [batch]
    count = len(batch["item"])
    if count % parts:
        possible = ", ".join(str(number) for number in range(1, count + 1) if count % number == 0)
        raise ModelError(
            f"{count} items of a process cannot be split into train.accumulate={parts} equal parts; take one of {possible}"
        )
    size = count // parts
    return [
        {name: value if name in SHARED else value[index * size : (index + 1) * size] for name, value in batch.items()}
        for index in range(parts)
    ]
