"""Newton's method for many points at once: the places that a morph takes to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

MOST_ROUNDS = 24
LEAST_STEP = 1 / 16
"""Steps of a point's search are halved down to this share where they lead away."""
LARGEST_MOVE = 0.1
"""Largest step of the search, in units: a singular Jacobian must not throw a point out of the ball."""
FLATTEST = 0.02
"""Smallest determinant of the Jacobian that is inverted: between closed lips space is nearly flat."""

Displacement = Callable[[Tensor], tuple[Tensor, Tensor]]
"""The displacement [B,N,3] at places q [B,N,3], and its derivatives [B,N,3,3]."""


class Located(NamedTuple):
    """Points q [B,N,3] of the template's space, the inverse Jacobians [B,N,3,3] there, and how far [B,N] x(q) is from the points."""

    q: Tensor
    inverse: Tensor
    gap: Tensor


def newton_step(displacement: Displacement, points: Tensor, q: Tensor) -> Located:
    """One step from places q [B,N,3] towards those that are taken to points [B,N,3]. gap: before it."""
    move, slope = displacement(q)
    inverse = inverse_jacobian(slope)
    miss = q + move - points
    return Located(q - shortened((inverse @ miss.unsqueeze(3)).squeeze(3)), inverse, torch.linalg.vector_norm(miss, dim=2))


def solved(displacement: Displacement, points: Tensor, start: Tensor, limit: float) -> Located:
    """The places q with q + displacement(q) = points [B,N,3], to within `limit`, by Newton's method with halved steps from `start`.

    Points that it cannot solve stay where their gap is least.
    """
    q = start.clone()
    move, slope = displacement(q)
    miss, inverse = q + move - points, inverse_jacobian(slope)
    gap, step = torch.linalg.vector_norm(miss, dim=2), q.new_ones(q.shape[:2])
    for _ in range(MOST_ROUNDS):
        left = (gap > limit) & (step >= LEAST_STEP)
        most = int(left.sum(1).max())
        if most == 0:
            break
        # Each round goes on with the points that are left: after two rounds they are few.
        rows = left.to(gap.dtype).topk(most, dim=1).indices
        own = Located(*(picked(tensor, rows) for tensor in (q, inverse, gap)))
        own_step, own_points, own_left = (picked(tensor, rows) for tensor in (step, points, left))
        change = shortened((own.inverse @ picked(miss, rows).unsqueeze(3)).squeeze(3))
        tried = own.q - own_step.unsqueeze(2) * change
        move, slope = displacement(tried)
        tried_miss = tried + move - own_points
        tried_gap = torch.linalg.vector_norm(tried_miss, dim=2)
        better = own_left & (tried_gap < own.gap)
        put(step, rows, torch.where(own_left & ~better, own_step / 2, own_step))
        put(q, rows, torch.where(better.unsqueeze(2), tried, own.q))
        put(miss, rows, torch.where(better.unsqueeze(2), tried_miss, picked(miss, rows)))
        put(gap, rows, torch.where(better, tried_gap, own.gap))
        put(inverse, rows, torch.where(better.view(*better.shape, 1, 1), inverse_jacobian(slope), own.inverse))
    return Located(q, inverse, gap)


def shortened(change: Tensor) -> Tensor:
    """Steps [B,N,3], at most LARGEST_MOVE long."""
    length = torch.linalg.vector_norm(change, dim=2, keepdim=True).clamp_min(1e-12)
    return change * (LARGEST_MOVE / length).clamp_max(1)


def picked(tensor: Tensor, rows: Tensor) -> Tensor:
    """The rows [B,n] of a tensor [B,N,...]."""
    return tensor.gather(1, rows.view(*rows.shape, *[1] * (tensor.ndim - 2)).expand(-1, -1, *tensor.shape[2:]))


def put(tensor: Tensor, rows: Tensor, values: Tensor) -> None:
    """Write the rows [B,n] of a tensor [B,N,...]."""
    tensor.scatter_(1, rows.view(*rows.shape, *[1] * (tensor.ndim - 2)).expand(-1, -1, *tensor.shape[2:]), values)


def inverse_jacobian(slope: Tensor) -> Tensor:
    """(I + slope)^-1 [...,3,3]; a determinant nearer to 0 than FLATTEST counts as FLATTEST."""
    a, b, c = (slope + torch.eye(3, dtype=slope.dtype, device=slope.device)).unbind(-1)
    rows = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], -2)
    determinant = (a * rows[..., 0, :]).sum(-1)
    held = torch.where(determinant < 0, -1.0, 1.0) * determinant.abs().clamp_min(FLATTEST)
    return rows / held[..., None, None]
