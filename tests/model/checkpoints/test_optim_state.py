"""The optimiser's state in a checkpoint: training goes on to the same bits, and what belongs to another optimiser is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_tensors import assert_same
from facegraft_model.checkpoints.checkpoint import CheckpointError, load, load_into, save
from facegraft_model.checkpoints.optim_state import optimiser_tensors, restore_optimiser
from torch import Tensor, nn


class Toy(nn.Module):
    """A sine layer with a table of codes and a parameter that is never used."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.tables = nn.ParameterDict({"nose": nn.Parameter(torch.randn(4, 3) * 0.01)})
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 1)
        self.idle = nn.Parameter(torch.zeros(2))

    def loss(self, step: int) -> Tensor:
        points = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
        codes = self.tables["nose"][torch.arange(16) % 4]
        sdf = self.last(torch.sin(30 * self.first(torch.cat([points, codes], 1))))[:, 0]
        return (sdf - (points.norm(dim=1) - 1)).square().mean() + codes.square().mean()


def adam(toy: Toy, reverse: bool = False, **options: Any) -> torch.optim.Adam:
    nets = [parameter for name, parameter in toy.named_parameters() if not name.startswith("tables")]
    groups = [
        {"params": nets[::-1] if reverse else nets},
        {"params": list(toy.tables.parameters()), "lr": 3e-3, "betas": (0.8, 0.99)},
    ]
    return torch.optim.Adam(groups, **{"lr": 1e-2, **options})


def train(toy: Toy, optimiser: torch.optim.Adam, first: int, last: int) -> list[float]:
    losses = []
    for step in range(first, last):
        optimiser.param_groups[0]["lr"] = optimiser.param_groups[0]["lr"] * 0.95
        optimiser.zero_grad()
        loss = toy.loss(step)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def store(run: Path, step: int, toy: Toy, optimiser: torch.optim.Adam) -> Path:
    tensors, description = optimiser_tensors(optimiser, toy.named_parameters())
    return save(run, step, toy.state_dict(), tensors, {"optimiser": description})


def resume(run: Path, toy: Toy, optimiser: torch.optim.Adam) -> int:
    found = load(run)
    load_into(toy, found.tensors, found.path)
    restore_optimiser(optimiser, toy.named_parameters(), found.optim(), found.state["optimiser"], found.path)
    return found.step


@pytest.mark.parametrize(
    "options", [{}, {"amsgrad": True, "weight_decay": 0.01}, {"lr": torch.tensor(0.01)}, {"fused": True}], ids=str
)
@pytest.mark.parametrize("reverse", [False, True])
def test_training_resumes_bit_equal(tmp_path: Path, options: dict[str, Any], reverse: bool) -> None:
    toy = Toy(0)
    optimiser = adam(toy, **options)
    train(toy, optimiser, 0, 5)
    store(tmp_path, 5, toy, optimiser)
    expected = train(toy, optimiser, 5, 11)

    fresh = Toy(1)
    again = adam(fresh, reverse, **options)
    train(fresh, again, 0, 2)
    assert resume(tmp_path, fresh, again) == 5
    assert train(fresh, again, 5, 11) == expected
    assert_same(fresh.state_dict(), toy.state_dict())
    assert_same(
        *(optimiser_tensors(one, model.named_parameters())[0] for one, model in ((optimiser, toy), (again, fresh)))
    )
    for own, other in zip(optimiser.param_groups, again.param_groups, strict=True):
        assert {key: value for key, value in own.items() if key != "params"} == {
            k: v for k, v in other.items() if k != "params"
        }
        assert type(own["betas"]) is tuple


def test_the_machine_may_change(tmp_path: Path) -> None:
    toy = Toy(0)
    optimiser = adam(toy, foreach=True)
    train(toy, optimiser, 0, 3)
    store(tmp_path, 3, toy, optimiser)
    again = adam(toy, fused=True)
    resume(tmp_path, toy, again)
    assert again.param_groups[0]["fused"] and not again.param_groups[0]["foreach"]
    assert again.param_groups[0]["lr"] == optimiser.param_groups[0]["lr"]


def test_restored_moments_are_not_the_checkpoints_own() -> None:
    toy = Toy(0)
    optimiser = adam(toy)
    train(toy, optimiser, 0, 2)
    tensors, description = optimiser_tensors(optimiser, toy.named_parameters())
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    again = adam(toy)
    restore_optimiser(again, toy.named_parameters(), tensors, json.loads(json.dumps(description)), "x")
    train(toy, again, 2, 4)
    assert_same(tensors, kept)


def test_refuses_an_optimiser_of_something_else() -> None:
    toy = Toy(0)
    optimiser = adam(toy)
    train(toy, optimiser, 0, 2)
    tensors, description = optimiser_tensors(optimiser, toy.named_parameters())
    groups = description["groups"]
    assert description["kind"] == "Adam" and groups[0]["parameters"]["idle"] == []

    def refuses(message: str, model: nn.Module = toy, other: Any = None, tensors: Any = tensors, **change: Any) -> None:
        other = adam(toy) if other is None else other
        with pytest.raises(CheckpointError, match=message):
            restore_optimiser(other, model.named_parameters(), tensors, {**description, **change}, "run/x")
        assert not other.state

    refuses("run/x: .*'kind' is 'Adam', here it is 'AdamW'", other=torch.optim.AdamW(toy.parameters()))
    refuses("has 2 parameter groups, here it has 1", other=torch.optim.Adam(toy.parameters()))
    refuses("field 'groups' is missing", groups=None)
    refuses(
        "tensor 'exp_avg/first.bias' is missing",
        tensors={k: v for k, v in tensors.items() if k != "exp_avg/first.bias"},
    )
    refuses("tensor 'exp_avg/ears' has no place here", tensors={**tensors, "exp_avg/ears": torch.zeros(1)})
    refuses(
        r"tensor 'exp_avg/first.bias' has shape \[9\] where \[8\]",
        tensors={**tensors, "exp_avg/first.bias": torch.zeros(9)},
    )
    refuses("tensor 'step/first.bias' has dtype torch.int64", tensors={**tensors, "step/first.bias": torch.tensor(2)})
    refuses(
        "tensor 'exp_avg_sq/last.bias' has 1 of 1 values",
        tensors={**tensors, "exp_avg_sq/last.bias": torch.tensor([torch.inf])},
    )
    first, second = groups

    def changed(group: dict[str, Any], field: str, change: dict[str, Any]) -> dict[str, Any]:
        """A group with entries of a field replaced; those set to None are taken out."""
        return {**group, field: {key: value for key, value in {**group[field], **change}.items() if value is not None}}

    refuses("group 0: option 'lr' is missing", groups=[changed(first, "options", {"lr": None}), second])
    refuses("group 1: option 'warm' is unknown", groups=[first, changed(second, "options", {"warm": 1})])
    refuses("group 0: parameter 'idle' is missing", groups=[changed(first, "parameters", {"idle": None}), second])
    refuses("group 1: parameter 'ears' is unknown", groups=[first, changed(second, "parameters", {"ears": []})])
    other = torch.optim.Adam([{"params": [toy.idle]}, {"params": [toy.last.bias]}])
    refuses(r"parameter of shape \[2\] that is not among those named", model=toy.tables, other=other)
