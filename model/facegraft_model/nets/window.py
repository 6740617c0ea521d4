"""The window of a part: 1 on an ellipsoid around it, fading to 0 (twice differentiable) outside."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from facegraft_model.errors import ModelError

LEAST_DEPTH = 1 / 8
"""Smallest semi-axis of the ellipsoid around a part, as a share of the largest distance of its points from their mean."""

TOLERANCE = 1e-3
"""Convergence of the smallest enclosing ellipsoid: points lie outside it by less than this share of its squared radius."""


class WindowTrace(NamedTuple):
    """Value [B,N,1] of a window and its gradient [B,N,3]."""

    value: Tensor
    grad: Tensor


def part_window(x: Tensor, centre: Tensor, metric: Tensor, inner: float, outer: float) -> WindowTrace:
    """w = 1 - smoothstep((r - inner) / (outer - inner)) with r^2 = (x - c)^T A (x - c) and the quintic smoothstep.

    x [B,N,3]; centre c [B,3]; metric A [3,3], symmetric, such that r = 1 on the ellipsoid.
    """
    offset = x - centre.unsqueeze(1)
    scaled = offset @ metric
    radius = (offset * scaled).sum(-1, keepdim=True).clamp_min(1e-12).sqrt()
    q = ((radius - inner) / (outer - inner)).clamp(0, 1)
    value = 1 - q * q * q * (10 + q * (6 * q - 15))
    slope = -30 * q * q * (1 - q) * (1 - q) / (outer - inner)
    return WindowTrace(value, slope * scaled / radius)


def part_ellipsoid(points: Tensor) -> tuple[Tensor, Tensor]:
    """The ellipsoid of least volume that contains all the points and has a minimum depth: centre [3], metric [3,3] (r = 1 on it).

    points [n,3]. Raises ModelError for fewer than 4, and for points that are all in one place.
    By Khachiyan's algorithm (M. J. Todd and E. A. Yildirim, "On Khachiyan's algorithm for the computation of minimum-volume enclosing
    ellipsoids", Discrete Applied Mathematics 155, 2007): each step raises the weight of the point farthest outside the ellipsoid.
    """
    if len(points) < 4 or bool((points == points[0]).all()):
        raise ModelError(
            f"the template has {len(points)} registered points of a part, which are too few or in one place; "
            "sample with more stage points, and with part labels"
        )
    points = points.double()
    mean = points.mean(0)
    axes = torch.linalg.svd(points - mean, full_matrices=False).Vh
    # A part can be a thin shell, outside of which most of another head's part would lie: added poles give the ellipsoid depth.
    depth = LEAST_DEPTH * torch.linalg.vector_norm(points - mean, dim=1).max()
    points = torch.cat([points, mean + depth * axes, mean - depth * axes])
    lifted = torch.cat([points, points.new_ones(len(points), 1)], 1)
    dimensions = points.shape[1]
    weights = points.new_full((len(points),), 1 / len(points))
    while True:
        moment = lifted.T @ (weights[:, None] * lifted)
        spread = (lifted * torch.linalg.solve(moment, lifted.T).T).sum(1)  # d + 1 on the ellipsoid, more outside
        worst = int(spread.argmax())
        largest = float(spread[worst])
        if largest < (dimensions + 1) * (1 + TOLERANCE):
            break
        step = (largest / (dimensions + 1) - 1) / (largest - 1)
        weights *= 1 - step
        weights[worst] += step
    centre = weights @ points
    offset = points - centre
    metric = torch.linalg.inv(offset.T @ (weights[:, None] * offset))
    metric = (metric + metric.T) / 2
    return centre.float(), (metric / ((offset @ metric) * offset).sum(-1).max()).float()
