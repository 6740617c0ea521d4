"""Small morphs of made-up parts, and points on a sphere."""

from __future__ import annotations

import torch
from facegraft_model.config import Config
from facegraft_model.data.ids import IdTable
from facegraft_model.method import Batch, Field
from facegraft_model.models import build_field
from facegraft_model.morph.morph import Morph
from facegraft_model.testing import made_up_parts, toy_config, toy_rows, toy_template
from torch import Tensor

SETTINGS = (
    "model.nets=basis",
    "model.features=24",
    "model.part_features=16",
    "model.exp_features=16",
    "model.basis_omega=5",
)


def sphere(count: int, seed: int = 0) -> Tensor:
    """Points f64 [count,3] on the unit sphere."""
    g = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=g, dtype=torch.float64), dim=1)


def small_config() -> Config:
    return toy_config().with_settings(SETTINGS)


def three_parts() -> IdTable:
    """Ids of heads with three made-up parts."""
    parts = made_up_parts(3)
    return IdTable.from_rows(toy_rows(parts), parts)


def small_morph(table: IdTable) -> Morph:
    """A morph in float64 with random nets, not to be trained."""
    made = build_field(small_config(), table, toy_template(table.parts), 100.0).double().eval()
    assert isinstance(made, Morph)
    g = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        parameter.data += 0.001 * torch.randn(parameter.shape, generator=g).to(parameter)
    return made.requires_grad_(False)


def codes_of(field: Field, batch: Batch) -> dict[str, Tensor]:
    """The trained codes of a batch's heads."""
    return {name: code.detach() for name, code in field.codes_of(batch).items()}
