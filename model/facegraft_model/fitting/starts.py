"""Where a fit begins: with the expression among the trained ones that a head looks most like.

From a closed mouth no small step leads to an open one: the lips are attracted by the wrong ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from facegraft_model.method import Field
from facegraft_model.nets.modes import spread_points

EXPRESSION_CODE = "exp"
CANDIDATES = 12
"""Trained expressions that are tried, far from each other, besides the neutral one."""
NEUTRAL_PRECISION = 100.0
"""Precision of the prior of an expression that begins as the neutral one; others have 1."""
POINTS, REGISTERED = 512, 1024
"""Points of a head and of the template that are compared."""
CLEARLY_NEARER = 0.8
KEPT_SHARE = 0.9
"""Share of the nearest points that count: the rest may be hair, or a hole that was closed."""


@torch.no_grad()
def nearest_expressions(field: Field, points: Tensor, start: Mapping[str, Tensor]) -> Tensor:
    """For each head, given by surface points [B,n,3], the code [B,d] of the trained expression whose registered points are nearest; the
    neutral one unless another is clearly nearer: the rest of the head is still unknown, and steps of the fit lead to a faint expression.

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
        best = int(mean.argmin())
        chosen.append(best if float(mean[best]) < CLEARLY_NEARER * float(mean[0]) else 0)
    return candidates[chosen].to(points.dtype)


def expression_precision(start: Tensor) -> Tensor:
    """The precision [B] of the prior of the expressions that begin at `start` [B,d]: high where a head looks neutral.

    Expressions move the face in ways in which people differ too: without this the code would explain a part of who somebody is.
    """
    return torch.where((start == 0).all(1), NEUTRAL_PRECISION, 1.0)
