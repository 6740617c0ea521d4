"""Where a fit begins: with the expression among the trained ones that a head looks most like.

From a closed mouth no small step leads to an open one: the lips are attracted by the wrong ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from facegraft_model.fitting.gaussnewton import Solution
from facegraft_model.method import Field
from facegraft_model.nets.modes import spread_points

EXPRESSION_CODE = "exp"
CANDIDATES = 12
"""Trained expressions that are tried, far from each other, besides the neutral one."""
EXPRESSION_PRECISION = {EXPRESSION_CODE: 100.0}
"""Precision of the prior of an expression about the one with which a fit begins. Expressions move the face in ways in which people differ
too: with a wide prior the code would explain a part of who somebody is."""
POINTS, REGISTERED = 512, 1024
"""Points of a head and of the template that are compared."""
KEPT_SHARE = 0.9
"""Share of the nearest points that count: the rest may be hair, or a hole that was closed."""


@torch.no_grad()
def nearest_expressions(field: Field, points: Tensor, start: Mapping[str, Tensor]) -> Tensor:
    """For each head, given by surface points [B,n,3], the code [B,d] of the trained expression whose registered points are nearest.

    start: first codes by name, of which the first row is used for everything but the expression.
    """
    table = torch.cat([torch.zeros_like(field.tables[EXPRESSION_CODE][:1]), field.tables[EXPRESSION_CODE].detach()])
    candidates = table[spread_points(table, 1 + CANDIDATES).to(table.device)]
    codes = {name: code[:1].expand(len(candidates), -1) for name, code in start.items()}
    codes[EXPRESSION_CODE] = candidates
    few = field.template_points[:: max(len(field.template_points) // REGISTERED, 1)]
    shapes = field.unwarp(few.expand(len(candidates), -1, -1), codes)
    chosen = []
    for own in points:
        few = own[:: max(len(own) // POINTS, 1)].expand(len(candidates), -1, -1)
        distance = torch.cdist(few, shapes).amin(2).sort(1).values
        mean = distance[:, : max(int(KEPT_SHARE * few.shape[1]), 1)].mean(1)
        chosen.append(int(mean.argmin()))
    return candidates[chosen].to(points.dtype)



def begun(solve: Callable[[Tensor], Solution], field: Field, points: Tensor, codes: Mapping[str, Tensor]) -> Tensor:
    """The expression codes [B,d] with which a fit of heads begins: of the neutral one and the nearest, the one from which the first stages
    of the fit, solve(codes), lead to the lower objective."""
    nearest = nearest_expressions(field, points, codes)
    neutral = torch.zeros_like(nearest)
    if torch.equal(nearest, neutral):
        return neutral
    return min((neutral, nearest), key=lambda start: solve(start).cost)
