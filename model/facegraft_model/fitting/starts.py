"""Where a fit begins: with the expression among the trained ones that a head looks most like.

From a closed mouth no small step leads to an open one: the lips are attracted by the wrong ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from facegraft.vocabulary import EXP
from facegraft_model.fitting.gaussnewton import Solution
from facegraft_model.method import Field
from facegraft_model.nets.modes import spread_points

CANDIDATES = 12
"""Trained expressions that are looked at, far from each other, besides the neutral one."""
EXPRESSION_PRECISION = {EXP: 100.0}
"""Precision of the prior of an expression about the one with which a fit begins. Expressions move the face in ways in which people differ
too: with a wide prior the code would explain a part of who somebody is."""
POINTS, REGISTERED = 256, 256
"""Points of a head and of the template that are compared."""
TRIED, TRIAL_STEPS = 2, 3
"""Expressions besides the neutral one from which the fit is begun, and steps of each trial."""
KEPT_SHARE = 0.95
"""Share of the nearest points that count: the rest may be hair, or a hole that was closed."""


@torch.no_grad()
def trained_expressions(field: Field) -> Tensor:
    """The mean code of each trained expression, by its name: [k,d]. One subject's code may lie far from what the expression does to others."""
    table, names = field.tables[EXP], [name for _, name in field.id_table.expressions]
    number = {name: i for i, name in enumerate(sorted(set(names)))}
    rows = torch.tensor([number[name] for name in names], device=table.device)
    sums = table.new_zeros(len(number), table.shape[1]).index_add_(0, rows, table)
    return sums / torch.bincount(rows, minlength=len(number)).to(table)[:, None]


@torch.no_grad()
def nearest_expressions(field: Field, points: Tensor, start: Mapping[str, Tensor]) -> list[Tensor]:
    """The neutral expression and the trained ones that heads, given by surface points [B,n,3], look most like: codes [B,d] each.

    start: first codes by name, of which the first row is used for everything but the expression.
    """
    known = torch.cat([torch.zeros_like(field.tables[EXP][:1]), trained_expressions(field)])
    candidates = known[spread_points(known, 1 + CANDIDATES).to(known.device)]
    codes = {name: code[:1].expand(len(candidates), -1) for name, code in start.items()}
    codes[EXP] = candidates
    few = field.template_points[:: max(len(field.template_points) // REGISTERED, 1)]
    shapes = field.unwarp(few.expand(len(candidates), -1, -1), codes)
    chosen = []
    for own in points:
        few = own[:: max(len(own) // POINTS, 1)].expand(len(candidates), -1, -1)
        distance = torch.cdist(few, shapes).amin(2).sort(1).values
        order = distance[:, : max(int(KEPT_SHARE * few.shape[1]), 1)].mean(1)[1:].argsort() + 1
        chosen.append(torch.cat([order.new_zeros(1), order[:TRIED]]))
    return [candidates[rows].to(points.dtype) for rows in torch.stack(chosen, 1)]


def begun(
    solve: Callable[[Tensor], Solution], field: Field, points: Tensor, codes: Mapping[str, Tensor]
) -> tuple[Tensor, Solution]:
    """The expression codes [B,d] with which a fit of heads begins: of the neutral and the nearest ones, those from which the first stage
    of the fit, solve(codes), has led to the lowest objective after a few steps; and its solution."""
    tried = [(start, solve(start)) for start in nearest_expressions(field, points, codes)]
    return min(tried, key=lambda found: found[1].cost)
