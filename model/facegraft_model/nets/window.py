"""The window of a part: 1 on an ellipsoid around it, fading to 0 (twice differentiable) outside."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from facegraft_model.errors import ModelError


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
    """The ellipsoid of the shape of the points' covariance that just holds them all: centre [3], metric [3,3].

    points [n,3]. Raises ModelError for fewer than 4, and for points that are all in one place.
    """
    if len(points) < 4 or bool((points == points[0]).all()):
        raise ModelError(
            f"the template has {len(points)} registered points of a part, which are too few or in one place; "
            "sample with more stage points, and with part labels"
        )
    points = points.double()
    centre = points.mean(0)
    offset = points - centre
    covariance = offset.T @ offset / len(points)
    # A part is a thin shell: a floor of (a quarter of its extent)^2 keeps the ellipsoid from being a disc that a deeper one leaves.
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp_min(values.max() / 16)
    metric = (vectors / values) @ vectors.T
    largest = ((offset @ metric) * offset).sum(-1).max()
    return centre.float(), (metric / largest).float()
