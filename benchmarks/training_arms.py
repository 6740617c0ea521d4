"""The arms of the speed benchmarks: one training step of the same model with the same weights, computed in different ways."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
from facegraft_model.config import Config, DataConfig, FitConfig, LossConfig, ModelConfig, TrainConfig
from facegraft_model.data.batches import BatchSource
from facegraft_model.field import CascadeField
from facegraft_model.method import Batch, TemplateFacts
from facegraft_model.models import build_field
from facegraft_model.nets.hyper import HyperNet
from facegraft_model.nets.siren import Matmul
from facegraft_model.presets import PRESETS
from facegraft_model.reference import DoubleBackwardField
from facegraft_model.training.schedule import parameter_groups
from facegraft_model.training.setup import template_facts
from facegraft_model.training.step import TrainingStep, split_batch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

Backend = Literal["resident", "stream"]
Gradients = tuple[Tensor, dict[str, Tensor]]
"""A loss and its gradient by parameter name."""
DISPLACED = 10.0
"""Factor on the last layers of the hyper-networks: fresh ones displace by about 1e-3 units, trained ones by some 1e-2."""

CASCADE = Config(
    preset="cascade",
    model=ModelConfig(window=True, hyper="low-rank", code_init=0.1),
    loss=LossConfig(eikonal_neutral=50.0, code=1e2, dense=3e3, locality=300.0),
    data=DataConfig(surface=9216, near=5120, free=2048, stage=512),
    train=TrainConfig(lr=5e-4, head_lr=5e-5, code_lr=1e-3, schedule="cosine", warmup_steps=200, clip_grad=2e3),
    fit=FitConfig(lr=5e-3, surface=9216, near=5120, free=2048, init="mean", code=1e2, locality=300.0),
)
"""A cascade with everything that an option can add to it: stage supervision, windows, points off the surface, low-rank hyper-networks."""
TINY_CASCADE = replace(
    CASCADE,
    preset="tiny-cascade",
    model=replace(CASCADE.model, width=64, hyper_width=64, hyper_rank=4, blend_width=32, landmark_width=64),
    data=DataConfig(items=8, surface=192, near=96, free=32, stage=96),
)
"""The same for a CPU."""
CONFIGURATIONS = {
    config.preset: config
    for config in (*PRESETS.values(), CASCADE, TINY_CASCADE)
    if config.model.nets == "hyper" and config.model.method in CascadeField.METHODS
}
"""Cascades by name: the arms are ways to their gradient at a point; neural bases have one way alone."""


@dataclass(frozen=True)
class ArmSpec:
    """How a step is computed. double: gradients with respect to the points by autograd (`reference.py`), not by the adjoint."""

    name: str
    title: str
    double: bool = False
    compiled: bool = False
    half: bool = False


class Arm:
    """One way of computing the step, with weights and an optimiser of its own, and what was measured of it."""

    def __init__(self, spec: ArmSpec, start: CascadeField, device: torch.device) -> None:
        """start: the model that all arms begin with."""
        self.spec, self.device = spec, device
        kind = DoubleBackwardField if spec.double else CascadeField
        facts = TemplateFacts(start.template_landmarks, start.template_points, start.template_parts)
        self.field = kind(start.config, start.id_table, facts, start.mm_per_unit)
        self.field.load_state_dict(start.state_dict())
        self.field.to(device)
        self.field.matmul = Matmul(spec.half)
        train = start.config.train
        self.clip = train.clip_grad
        self.optimiser = torch.optim.Adam(parameter_groups(self.field, train), fused=device.type == "cuda")
        self.module: nn.Module = TrainingStep(self.field)
        if spec.compiled:
            self.module.compile(fullgraph=True, dynamic=False)
        self.epoch = torch.zeros((), device=device)

    def loss_and_gradients(self, batch: Batch) -> Gradients:
        """The loss and its gradient by parameter name; the weights stay as they are."""
        self.optimiser.zero_grad(set_to_none=True)
        loss, _ = self.module(batch, self.epoch.to(batch["surface_points"].dtype))
        loss.backward()
        gradients = {name: p.grad for name, p in self.field.named_parameters() if p.grad is not None}
        self.optimiser.zero_grad(set_to_none=True)
        return loss.detach(), gradients

    def step(self, batch: Batch) -> Tensor:
        """One optimiser step as the training loop takes it; the loss."""
        self.optimiser.zero_grad(set_to_none=True)
        loss, _ = self.module(batch, self.epoch)
        loss.backward()
        if self.clip > 0:
            nn.utils.clip_grad_norm_(self.field.parameters(), self.clip)
        self.optimiser.step()
        return loss.detach()

    def state_bytes(self) -> int:
        """Weights and Adam's two moments."""
        return 3 * sum(p.numel() * p.element_size() for p in self.field.parameters())


def configuration(name: str, items: int, points: int | None = None) -> Config:
    """A cascade (`CONFIGURATIONS`) at `items` heads a step; points: points a head, in its own proportions (default: its own number)."""
    config = CONFIGURATIONS[name]
    data = config.data
    whole = points_of(config)
    points = whole if points is None else points
    near, free = round(points * data.near / whole), round(points * data.free / whole)
    return replace(
        config, data=replace(data, items=items, surface=points - near - free, near=near, free=free)
    ).checked()


def points_of(config: Config) -> int:
    """Points a head and step."""
    return config.data.surface + config.data.near + config.data.free


def start_model(config: Config, source: BatchSource, seed: int = 0) -> CascadeField:
    """The model that all arms begin with, on the CPU; its nets displace as trained ones do, so that no gradient is trivially right."""
    model = build_field(config, source.id_table, template_facts(source), source.mm_per_unit, seed)
    assert isinstance(model, CascadeField)
    with torch.no_grad():
        for hyper in model.hyper.values():
            assert isinstance(hyper, HyperNet)
            for head in list(hyper.heads)[-2:]:  # weight and bias of the last layer, which start near zero
                head.mul_(DISPLACED)
    return model


def exact_gradients(start: CascadeField, batch: Batch, device: torch.device, double: bool = False) -> Gradients:
    """Loss and gradients in float64, item by item (all terms are means over items), which needs little memory."""
    arm = Arm(ArmSpec("", "", double=double), start, torch.device("cpu"))
    arm.device = device
    arm.field.double().to(device)
    arm.epoch = torch.zeros((), dtype=torch.float64, device=device)
    parts = split_batch(as_double(batch), len(batch["item"]))
    total = torch.zeros((), dtype=torch.float64, device=device)
    gradients: dict[str, Tensor] = {}
    for part in parts:
        loss, found = arm.loss_and_gradients(part)
        total = total + loss / len(parts)
        for name, gradient in found.items():
            gradients[name] = gradients.get(name, 0) + gradient / len(parts)
    return total, gradients


def as_double(batch: Batch) -> dict[str, Tensor]:
    return {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}


def first_points(batch: Batch, items: int, points: int) -> dict[str, Tensor]:
    """A small batch: the first `items` items, and of each about `points` points in the proportions of the batch."""
    sets = {"surface": "surface_points", "near": "near_points", "free": "free_points"}
    whole = sum(batch[field].shape[1] for field in sets.values())
    counts = {name: math.ceil(points * batch[field].shape[1] / whole) for name, field in sets.items()}
    small = {}
    for name, value in batch.items():
        kind = name.split("_")[0]
        if name in ("stage_part_labels", "stage_rows"):
            small[name] = value
        else:
            small[name] = value[:items, : counts[kind]] if kind in sets else value[:items]
    return small


class Errors(NamedTuple):
    """|loss - exact| / |exact|; || gradient - exact || / || exact || of all weights together, and of the worst tensor."""

    loss: float
    gradient: float
    worst: float

    def __str__(self) -> str:
        return f"{self.loss:.0e}, {self.gradient:.0e}, {self.worst:.0e}"


def relative_error(found: Gradients, exact: Gradients) -> Errors:
    """Of a loss and its gradients. Raises AssertionError when the gradients are not of the same tensors."""
    loss = float(abs(found[0].double().cpu() - exact[0].double().cpu()) / abs(exact[0].double().cpu()))
    if set(found[1]) != set(exact[1]):
        raise AssertionError(f"tensors with a gradient differ: {sorted(set(found[1]) ^ set(exact[1]))}")
    differences = torch.stack([(found[1][name].to(g.device, g.dtype) - g).norm() for name, g in exact[1].items()]).cpu()
    norms = torch.stack([g.norm() for g in exact[1].values()]).cpu()
    worst = (differences / norms.clamp_min(1e-300)).max()
    return Errors(loss, float(differences.norm() / norms.norm()), float(worst))


class OperationCounter(TorchDispatchMode):
    """FLOP of the matrix products, and bytes that all operations read and write, each tensor once an operation; views cost nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        written = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        storages = {tensor.untyped_storage().data_ptr() for tensor in read}
        is_view = bool(written) and all(tensor.untyped_storage().data_ptr() in storages for tensor in written)
        if func._schema.is_mutable or not is_view:
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in (*read, *written))
        return out


def counted(arm: Arm, batch: Batch) -> tuple[int, int]:
    """FLOP and bytes of one forward and backward pass, counted operation by operation (eager)."""
    with OperationCounter() as count:
        arm.loss_and_gradients(batch)
    return count.flops, count.bytes


@dataclass
class Times:
    """Step times in seconds, one list a round."""

    rounds: list[list[float]] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(time for one in self.rounds for time in one)

    @property
    def spread(self) -> tuple[float, float]:
        """Least and largest median of a round."""
        medians = [statistics.median(one) for one in self.rounds]
        return min(medians), max(medians)


class StepTimer:
    """Times between marks: by events of the device on CUDA, else by a clock (default: wall-clock)."""

    def __init__(self, device: torch.device, clock: Any = time.perf_counter) -> None:
        self.cuda, self.clock = device.type == "cuda", clock
        self.marks: list[Any] = []

    def mark(self) -> None:
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(self.clock())

    def seconds(self) -> list[float]:
        """Time between each mark and the next."""
        if self.cuda:
            torch.cuda.synchronize()
            return [a.elapsed_time(b) / 1e3 for a, b in zip(self.marks, self.marks[1:], strict=False)]
        return [b - a for a, b in zip(self.marks, self.marks[1:], strict=False)]


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
