"""The host must not wait for the device within a step: no value is read, and nothing is copied there from ordinary memory.

A step on torch's meta device shows it without a GPU: its operations are the same as on CUDA, and there are no values to read.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from facegraft_model.config import Config, TrainConfig
from facegraft_model.data.ids import IdTable
from facegraft_model.field import CascadeField
from facegraft_model.livebytes import META, on_meta
from facegraft_model.method import Field, TemplateFacts
from facegraft_model.models import build_field
from facegraft_model.morph.morph import Morph
from facegraft_model.training import parallel
from facegraft_model.training.parallel import Agreements, Processes
from facegraft_model.training.skips import Skips
from facegraft_model.training.step import TrainingStep, optimise
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Batch = dict[str, Tensor]
READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim")


class Waits(TorchDispatchMode):
    """Names of the operations for which the host would wait: those that read values, and those that meet a tensor of host memory."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if name in READS:
            self.found.append(name)
        result = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        # A number in a tensor without axes travels with the kernel, but not where it is copied as a tensor.
        host = [t for t in tensors if t.device.type == "cpu" and (t.ndim > 0 or name in ("_to_copy", "copy_"))]
        if host and any(t.device == META for t in (*tensors, *made)):
            self.found.append(f"{name} from host memory")
        return result


class Copies(TorchFunctionMode):
    """The same of what torch copies before it dispatches: lists that choose rows, and tensors made of numbers."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.__getitem__ and args[0].device == META:
            chosen = args[1] if isinstance(args[1], tuple) else (args[1],)
            self.found += ["rows chosen by a list" for index in chosen if isinstance(index, list)]
        if func is Tensor.__setitem__ or (func in (torch.tensor, torch.as_tensor, Tensor.new_tensor) and "device" in kwargs):
            self.found.append(func.__name__)
        return func(*args, **kwargs)


class FusedOptimiser:
    """Stands for a fused Adam, which has no kernel for the meta device."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.defaults, self.module = {"fused": True}, module

    def zero_grad(self, set_to_none: bool) -> None:
        self.module.zero_grad(set_to_none)

    def step(self) -> None:
        assert self.found_inf.device == META


def waits_of(field: Field, batch: Batch, train: TrainConfig) -> list[str]:
    """The waits of a whole step: loss, gradient, clipping, optimiser, and the count of bad steps."""
    module = TrainingStep(on_meta(field).train())
    there = {name: torch.empty_like(value, device=META) for name, value in batch.items()}
    skips = Skips(META)
    with Waits() as waits, Copies(waits.found):
        epoch = torch.full((), 0.5, device=META)
        result = optimise(module, FusedOptimiser(module), there, epoch, train)  # type: ignore[arg-type]
        skips.add(result.grad_norm)
    return waits.found


@pytest.fixture(params=["parts", "imface-se3", "deepsdf", "i3dmm", "morph"])
def field(
    request: pytest.FixtureRequest,
    tiny: Config,
    id_table: IdTable,
    template: TemplateFacts,
    make_field: Callable[..., CascadeField],
    make_morph: Callable[[], Morph],
) -> Field:
    if request.param == "morph":
        return make_morph()
    if request.param in ("deepsdf", "i3dmm"):
        config = replace(tiny, loss=replace(tiny.loss)).of_method(request.param)
        return build_field(config, id_table, template, 100.0).double()
    return make_field(window=True, **({"method": "imface", "warp": "se3"} if "-" in request.param else {}))


@pytest.mark.parametrize("parts", [1, 2])
def test_the_host_waits_for_nothing_in_a_step(field: Field, make_batch: Callable[..., Batch], parts: int) -> None:
    assert waits_of(field, make_batch(), TrainConfig(accumulate=parts, clip_grad=1e3)) == []


def test_waits_are_found(make_field: Callable[..., CascadeField], make_batch: Callable[..., Batch]) -> None:
    """What used to be there: landmarks chosen by a list, and an epoch that is copied."""
    landmarks = torch.empty(4, 68, 3, device=META)
    with Waits() as waits, Copies(waits.found):
        landmarks[:, [1, 2, 3]]
        torch.tensor(0.5, device=META)
        torch.ones(3).to(META)
        landmarks.sum() * torch.tensor(2.0)
    assert waits.found == ["rows chosen by a list", "tensor", "_to_copy from host memory"]
    with Waits() as waits, pytest.raises((RuntimeError, NotImplementedError)):
        bool(landmarks.sum() > 0)
    assert waits.found == ["_local_scalar_dense"]


def test_a_step_without_waits_is_the_same_step(make_morph: Callable[[], Morph], make_batch: Callable[..., Batch]) -> None:
    """A part's net runs at a fixed number of points there; none is left out, so the loss is the same."""
    field, batch = make_morph().train(), make_batch()
    usual = TrainingStep(field)(batch, torch.zeros(()))[0]
    other = copy.deepcopy(field)
    other.waitless = True
    assert TrainingStep(other)(batch, torch.zeros(()))[0].item() == pytest.approx(usual.item(), rel=1e-12)
    assert int(other.overflow) == 0


# -- agreements of several processes ---------------------------------------------------------------------------------------


class Pair(Processes):
    """Two processes in one: the other's values are given."""

    asked: list[int] = []  # noqa: RUF012
    others: tuple[float, ...] = (0, 0, 0.0)

    def most(self, *values: float) -> list[float]:
        self.asked.append(len(values))
        return [max(pair) for pair in zip(values, self.others, strict=True)]


@pytest.fixture
def pair() -> Pair:
    Pair.asked, Pair.others = [], (0, 0, 0.0)
    return Pair(0, 2, torch.device("cpu"))


def test_processes_ask_each_other_now_and_then(pair: Pair) -> None:
    """Once in about two seconds by the pace of the slowest; the same steps in each, since the same numbers decide."""
    clock = [0.0]
    agreements = Agreements(pair, 0, lambda: clock[0])
    asked = []
    for step in range(1, 61):
        clock[0] += 0.125
        before = len(pair.asked)
        assert agreements.any(step, False, False) == [False, False]
        if len(pair.asked) > before:
            asked.append(step)
    assert asked == [1, 17, 33, 49]


def test_the_slowest_process_decides_when_they_ask(pair: Pair) -> None:
    clock = [0.0]
    agreements = Agreements(pair, 5, lambda: clock[0])
    Pair.others = (0, 0, 3.0)
    for step in range(6, 10):
        clock[0] += 0.1
        agreements.any(step, False, False)
    assert len(pair.asked) == 4, "steps of three seconds: after each"


def test_a_wish_is_heard_at_the_next_agreement(pair: Pair) -> None:
    clock = [0.0]
    agreements = Agreements(pair, 0, lambda: clock[0])
    heard = []
    for step in range(1, 200):
        clock[0] += 1e-3
        if agreements.any(step, step > 3, False)[0]:
            heard.append(step)
    assert heard == [1 + parallel.MOST_STEPS]


def test_one_process_asks_itself_after_each_step() -> None:
    agreements = Agreements(Processes(0, 1, torch.device("cpu")), 0)
    assert [agreements.any(step, step == 2)[0] for step in (1, 2, 3)] == [False, True, False]
