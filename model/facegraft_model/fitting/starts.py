"""Where a fit begins: with the expression among the trained ones that a head looks most like.

From a closed mouth no small step leads to an open one: the lips are attracted by the wrong ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from facegraft.vocabulary import EXP
from facegraft_model.config import FitConfig
from facegraft_model.fitting.gaussnewton import STAGES, Posed, Solution, Stage, gauss_newton
from facegraft_model.method import Batch, Field
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
NEUTRAL_SIZE = 0.2
"""A trained expression whose code is shorter than this share of the longest is the neutral one."""
CLOSE, CLEARLY = 1.4, 0.95
"""How far above the lowest objective another start may be to go on; and the share of the neutral start's objective that another must be below."""
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
    means = trained_expressions(field)
    size = torch.linalg.vector_norm(means, dim=1)
    known = torch.cat([torch.zeros_like(means[:1]), means[size > NEUTRAL_SIZE * size.max()]])
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
    field: Field, batch: Batch, fit: FitConfig, codes: Mapping[str, Tensor], pose: Posed | None = None
) -> tuple[Tensor, Solution, Sequence[Stage]]:
    """The expression code [1,d] with which a fit of the one head of a batch begins, the solution so far, and the stages with which it goes on.

    codes: first codes [1,d] by name. pose: where the head's points are not in the model's frame, the map to it, which is fitted, too.
    Of the neutral expression and the nearest ones it is that from which a few steps of the first stage have led to the lowest objective.
    Where others come close, all of these finish the second stage, and another than the neutral one has to be clearly better.
    """
    rows = {name: torch.zeros(1, dtype=torch.int64) for name in codes}
    points = batch["surface_points"] if pose is None else pose(batch["surface_points"])

    def solve(expression: Tensor, stages: Sequence[Stage], steps: int, warm_start: Solution | None) -> Solution:
        begins = {**codes, EXP: expression}
        how = replace(fit, steps=steps)
        return gauss_newton(
            field, batch, rows, how, begins, pose=pose, precision=EXPRESSION_PRECISION, stages=stages, warm_start=warm_start
        )

    tried = [(start, solve(start, STAGES[:1], TRIAL_STEPS, None)) for start in nearest_expressions(field, points, codes)]
    least = min(found.cost for _, found in tried)
    close = [number for number, (_, found) in enumerate(tried) if found.cost <= CLOSE * least]
    if len(close) == 1:
        return *tried[close[0]], STAGES
    finished = {number: solve(tried[number][0], STAGES[:2], fit.steps, tried[number][1]) for number in close}
    best = min(close, key=lambda number: finished[number].cost * (CLEARLY if number == 0 else 1.0))
    return tried[best][0], finished[best], STAGES[2:]
