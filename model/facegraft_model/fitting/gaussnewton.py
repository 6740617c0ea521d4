"""Fitting codes by Gauss-Newton steps with Levenberg's damping, for fields that are nearly linear in their codes.

Minimises sum w(r) (r / noise)^2 + |z|^2 over the codes z, and a scan's pose: r are the differences of the field's distances from the
true ones, w the weights of the Geman-McClure loss. It is the maximum a posteriori estimate for codes N(0, 1) and a noise of
`fit.noise_mm`; a few hundred unknowns, one small linear system for each step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from facegraft_model.config import FitConfig
from facegraft_model.errors import ModelError
from facegraft_model.method import Batch, Codes, Field, Linearised, sampled_points

FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-3, 1e-4, 1e3
LESS_DAMPING, MORE_DAMPING = 10.0, 100.0
"""Factors of the damping after a step that lowers the objective, and after one that raises it: little damping has little effect."""
CONVERGED = 0.02
"""A step that changes the objective by less than this share of it is the last one of its stage, if its derivatives are new."""

LEAST_COST = 1e-9
"""An objective as small as this is 0."""


class Stage(NamedTuple):
    """A stage of a fit: how many of a head's points suffice (fewer than twice as many are taken), and factors of `fit.noise_mm` and `fit.robust_mm`.

    coarse: the field is linearised coarsely. keeps: steps are so small that the derivatives serve for several of them.
    """

    points: float
    noise: float
    robust: float
    coarse: bool = False
    keeps: bool = False


STAGES = (Stage(1250, 10.0, 8.0, coarse=True), Stage(1250, 3.0, 4.0), Stage(math.inf, 1.0, 1.0, keeps=True))
LANDMARK_NOISE_MM = 1.0
"""Standard deviation of a landmark that weighs as much as one of a code."""
MOST_GROWTH = 1.4
"""Largest factor, and its inverse the least one, by which a similarity may change the size of a scan."""
POSE_SPREAD = (0.2, 0.1, 0.1)
"""Standard deviations of a scan's remaining turn (radians), shift (units) and log of the scale: a weak prior that keeps the system
regular where the points do not determine the pose. Only that of the scale is about a fixed value, none."""


@dataclass
class Posed:
    """A rigid or similar map [4,4] of a scan's points into the model's frame, to be fitted with the codes.

    grown: log of the scale since the fit began. Its prior is about none: without it, points that lie far from the head would be brought
    nearer by shrinking the scan.
    """

    matrix: Tensor
    similarity: bool
    grown: float = 0.0

    def __call__(self, points: Tensor) -> Tensor:
        """points [B,n,3] → [B,n,3]."""
        return points @ self.matrix[:3, :3].T + self.matrix[:3, 3]

    def moved(self, step: Tensor) -> Posed:
        """This pose followed by a small turn, shift and (similarity) growth [6 or 7]."""
        x, y, z = step[:3].unbind()
        zero = torch.zeros_like(x)
        cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3)
        turn, grown = torch.linalg.matrix_exp(cross), self.grown
        if self.similarity:
            bound = math.log(MOST_GROWTH)
            grown = max(-bound, min(bound, self.grown + float(step[6])))
            turn = math.exp(grown - self.grown) * turn
        change = torch.eye(4, dtype=step.dtype, device=step.device)
        change[:3, :3], change[:3, 3] = turn, step[3:6]
        return Posed(change.to(self.matrix) @ self.matrix, self.similarity, grown)


@dataclass
class Solution:
    """codes by name [rows,d]; pose: the fitted one, or None. cost: the objective, steps: those that were taken."""

    codes: dict[str, Tensor]
    pose: Posed | None
    cost: float
    steps: int


@dataclass
class _State:
    """The system at some codes: normal matrix, gradient, objective, and the field's derivatives."""

    codes: dict[str, Tensor]
    pose: Posed | None
    cost: float
    matrix: Tensor
    slope: Tensor
    found: Linearised


def gauss_newton(
    field: Field,
    batch: Batch,
    rows: Mapping[str, Tensor],
    fit: FitConfig,
    start: Mapping[str, Tensor],
    *,
    pose: Posed | None = None,
    precision: Mapping[str, float] | None = None,
    stages: Sequence[Stage] = STAGES,
    warm_start: Solution | None = None,
    report: Callable[[int, float], None] | None = None,
) -> Solution:
    """Codes of the heads of a batch. rows: by code name, the row of each head's code; heads that share an identity share rows.

    start: the first codes by name [rows,d]. pose: the batch's points are in a scan's frame, and this map into the model's is fitted
    too. precision: by code name, that of a prior about its first codes instead of N(0, 1). batch["landmarks"] [B,1,k,3], where wanted, are
    pulled to batch["landmark_targets"] [B,k,3] of the template. warm_start: a solution whose codes and pose
    the first stage begins with, instead of `start` and `pose`, which stay the priors' centres.
    Raises ModelError for a field without derivatives, and an objective that is not finite.
    """
    if not field.has_derivatives:
        raise ModelError(
            f"fit.solver=gauss-newton: method {field.config.model.method} with nets={field.config.model.nets} gives no derivatives by its "
            "codes; use fit.solver=adam"
        )
    codes, steps = {name: code.clone() for name, code in start.items()}, 0
    if warm_start is not None:
        codes, pose = warm_start.codes, warm_start.pose
    # Far from the solution the nearest place of a point is often a wrong one. So a fit begins stiff, near the mean head, with a loss
    # that takes every point for an inlier, and with few points, which lead the way for little.
    cost = math.inf
    for stage in stages:
        problem = _Problem(field, batch, rows, fit, stage, precision or {}, start)
        state, damping, fresh = problem.at(codes, pose), FIRST_DAMPING, True
        while state.cost > LEAST_COST and steps < fit.steps and damping < MOST_DAMPING:
            tried = problem.at(*problem.stepped(state, damping), state.found if stage.keeps else None)
            steps += 1
            gain = (state.cost - tried.cost) / state.cost
            if gain > 0:
                state, damping = tried, max(damping / LESS_DAMPING, LEAST_DAMPING)
                if report is not None:
                    report(steps, state.cost / problem.heads)
            if gain >= CONVERGED:
                fresh = not stage.keeps
            elif not fresh:
                state, fresh = problem.at(state.codes, state.pose, state.found, renew=True), True
            elif gain > -CONVERGED:
                break
            else:
                damping *= MORE_DAMPING
        codes, pose, cost = state.codes, state.pose, state.cost
    return Solution(codes, pose, cost, steps)


class _Problem:
    """The least squares problem of one group of heads."""

    def __init__(
        self, field: Field, batch: Batch, rows: Mapping[str, Tensor], fit: FitConfig, stage: Stage,
        precision: Mapping[str, float], start: Mapping[str, Tensor]
    ) -> None:
        self.field, self.batch, self.rows, self.fit = field, batch, rows, fit
        self.coarse = stage.coarse
        points, distances, normals = sampled_points(batch)
        few = slice(None, None, max(int(points.shape[1] / stage.points), 1))  # of all of its sets
        self.points, self.distances, self.normals = points[:, few], distances[:, few], normals[:, few]
        self.heads, self.count = self.points.shape[:2]
        # Fewer points stand for all: each counts for several.
        self.noise = stage.noise * fit.noise_mm / field.mm_per_unit * (self.count / points.shape[1]) ** 0.5
        self.scale = stage.robust * fit.robust_mm / field.mm_per_unit
        self.offsets, size = {}, 0
        self.precision = {name: precision.get(name, 1.0) for name in rows}
        self.centre = {name: start[name] if name in precision else torch.zeros_like(start[name]) for name in rows}
        for name, places in rows.items():
            self.offsets[name] = size
            size += (int(places.max()) + 1) * field.code_dims[name]
        self.size = size

    def at(
        self, codes: dict[str, Tensor], pose: Posed | None, before: Linearised | None = None, renew: bool = False
    ) -> _State:
        """The system at these codes. before: what was found at nearby codes, whose derivatives are taken over unless they are to be new."""
        field = self.field
        points = self.points if pose is None else pose(self.points)
        own = {name: codes[name][place] for name, place in self.rows.items()}
        normals = self.normals if pose is None else None
        if self.coarse:
            found = field.linearise_coarsely(points, own, normals)
        else:
            found = field.linearise(points, own, normals=normals, before=before, renew=renew)
        extra = 0 if pose is None else 7 if pose.similarity else 6
        size = self.size + extra
        kind = torch.float64
        matrix = torch.zeros(size, size, dtype=kind, device=points.device)
        slope = torch.zeros(size, dtype=kind, device=points.device)
        # Where lips close, space is squeezed and the distance steep: there the difference over the slope is the distance in space.
        scale = found.trust / torch.linalg.vector_norm(found.grad, dim=2).clamp_min(1.0)
        residual = scale * (found.sdf - self.distances) / self.noise
        cost = 0.0
        squares, weights = residual.square(), torch.ones_like(residual)
        if self.scale > 0:
            bound = (self.scale / self.noise) ** 2
            weights = (bound / (bound + squares)).square()
            squares = bound * squares / (bound + squares)
        cost += float(squares.double().sum())
        for head in range(self.heads):
            columns = [found.columns[name][head] for name in self.rows]
            if pose is not None:
                columns.append(_pose_columns(points[head], found.grad[head], pose.similarity))
            stacked = scale[head].unsqueeze(1) * torch.cat(columns, 1) / self.noise
            self._add(matrix, slope, stacked, residual[head], weights[head], head, extra)
        if "landmark_targets" in self.batch:
            cost += self._landmarks(matrix, slope, own, pose, extra)
        for name, code in codes.items():
            offset = (code - self.centre[name]).double()
            cost += self.precision[name] * float(offset.square().sum())
            own_rows = slice(self.offsets[name], self.offsets[name] + code.numel())
            slope[own_rows] += self.precision[name] * offset.flatten()
            matrix.diagonal()[own_rows] += self.precision[name]
        if extra:
            spread = torch.tensor([POSE_SPREAD[0]] * 3 + [POSE_SPREAD[1]] * 3 + [POSE_SPREAD[2]] * (extra - 6))
            matrix.diagonal()[self.size :] += (1 / spread.to(matrix)).square()
            if pose is not None and pose.similarity:
                slope[-1] += pose.grown / POSE_SPREAD[2] ** 2
                cost += (pose.grown / POSE_SPREAD[2]) ** 2
        if not math.isfinite(cost):
            raise ModelError("the objective of the fit is not finite; are the points in the model's frame?")
        return _State(codes, pose, cost, matrix, slope, found)

    def _landmarks(self, matrix: Tensor, slope: Tensor, own: Codes, pose: Posed | None, extra: int) -> float:
        """Add the landmarks' equations, and return their share of the objective."""
        field, noise = self.field, LANDMARK_NOISE_MM / self.field.mm_per_unit
        targets = self.batch["landmark_targets"]
        where = self.batch["landmarks"][:, 0]
        where = where if pose is None else pose(where)
        residual = (field.unwarp(targets, own) - where) / noise
        for head in range(self.heads):
            columns = [field.unwarp_columns(targets[head], name).flatten(0, 1) for name in self.rows]
            if pose is not None:
                columns.append(
                    -torch.stack([_pose_columns(where[head], axis.expand_as(where[head]), pose.similarity) for axis in torch.eye(3).to(where)], 1).flatten(0, 1)
                )
            ones = residual[head].new_ones(residual[head].numel())
            self._add(matrix, slope, torch.cat(columns, 1) / noise, residual[head].flatten(), ones, head, extra)
        return float(residual.double().square().sum())

    def _add(
        self, matrix: Tensor, slope: Tensor, columns: Tensor, residual: Tensor, weights: Tensor, head: int, extra: int
    ) -> None:
        """Add one head's equations columns [n,own unknowns] x ~ -residual [n] to the normal equations."""
        places = [
            self.offsets[name] + int(place[head]) * self.field.code_dims[name] + torch.arange(self.field.code_dims[name])
            for name, place in self.rows.items()
        ]
        index = torch.cat([*places, self.size + torch.arange(extra)]).to(matrix.device)
        weighted = columns * weights.unsqueeze(1)
        if self.heads == 1:  # the same, without a copy of the matrix
            matrix += weighted.T @ columns
            slope += weighted.T @ residual
            return
        matrix[index[:, None], index] += (weighted.T @ columns).double()
        slope[index] += (weighted.T @ residual).double()

    def stepped(self, state: _State, damping: float) -> tuple[dict[str, Tensor], Posed | None]:
        """Codes and pose after a damped step from a state."""
        matrix = state.matrix + damping * torch.diag(state.matrix.diagonal())
        step = -torch.linalg.solve(matrix, state.slope)
        codes = {}
        for name, code in state.codes.items():
            first = self.offsets[name]
            codes[name] = code + step[first : first + code.numel()].view_as(code).to(code)
        return codes, None if state.pose is None else state.pose.moved(step[self.size :])


def _pose_columns(points: Tensor, grad: Tensor, similarity: bool) -> Tensor:
    """Derivatives [n,6 or 7] of the distances by a turn, shift and growth of points [n,3]; grad [n,3]: by the points."""
    columns = [torch.linalg.cross(points, grad), grad]
    if similarity:
        columns.append((points * grad).sum(1, keepdim=True))
    return torch.cat(columns, 1)
