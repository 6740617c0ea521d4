"""Where fits begin: with the trained expression that a head looks like."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from facegraft_model.fitting.starts import CANDIDATES, nearest_expressions, trained_expressions

from facegraft.vocabulary import EXP


def field_of(table: torch.Tensor, names: list[str]) -> Any:
    """A field of a row of points, which the first number of an expression's code moves up."""
    points = torch.stack([torch.linspace(-1, 1, 64), torch.zeros(64), torch.zeros(64)], 1)
    expressions = tuple(sorted((f"s{i:03d}", name) for i, name in enumerate(names)))

    def unwarp(points: torch.Tensor, codes: dict[str, torch.Tensor]) -> torch.Tensor:
        lifted = points.clone()
        lifted[..., 1] += codes[EXP][:, :1]
        return lifted

    return SimpleNamespace(
        tables={EXP: table}, id_table=SimpleNamespace(expressions=expressions), template_points=points, unwarp=unwarp
    )


def test_trained_expressions_are_the_means_by_name() -> None:
    table = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
    assert torch.equal(trained_expressions(field_of(table, ["smile", "smile", "open"])), torch.tensor([[0.0, 5.0], [2.0, 0.0]]))


def test_an_expression_is_found_beside_one_whose_codes_differ_far_more_between_subjects() -> None:
    # Twice as many smiles as are looked at, each farther from all others than the open mouth is from the neutral one.
    smiles = torch.cat([torch.zeros(2 * CANDIDATES, 1), 4 * torch.eye(2 * CANDIDATES)], 1)
    opened = torch.zeros(2, smiles.shape[1])
    opened[:, 0] = torch.tensor([0.9, 1.1])
    field = field_of(torch.cat([smiles, opened]), ["smile"] * len(smiles) + ["open"] * 2)
    head = field.unwarp(field.template_points[None], {EXP: torch.ones(1, smiles.shape[1])})
    neutral, nearest, *_ = nearest_expressions(field, head, {EXP: torch.zeros(1, smiles.shape[1])})
    assert torch.equal(neutral, torch.zeros_like(neutral))
    assert torch.allclose(nearest[0], opened.mean(0))
