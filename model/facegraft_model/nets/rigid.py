"""Rigid motions of points that differ from point to point: a screw (w, v) of six numbers moves x to exp(w, v) x.

With W = [w]x, s = |w|^2 and u = w x x + v, the displacement is u + b(s) W u + c(s) W W u, where b = (1 - cos|w|) / |w|^2 and
c = (|w| - sin|w|) / |w|^3: the exponential map of SE(3) (Lynch and Park, "Modern Robotics", 2017, Eq. 3.88), smooth at w = 0.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

TWIST = 6
"""Numbers of a screw: the axis times the angle w (rad), then v."""

_TERMS = 9
"""Terms of the series that are used where s < 1: the first one left out is below 1 / 20!."""


class Factors(NamedTuple):
    """b and c of s, and their derivatives by s."""

    b: Tensor
    c: Tensor
    b_slope: Tensor
    c_slope: Tensor


def factors(s: Tensor) -> Factors:
    """b(s), c(s) and their derivatives, of any shape. Near 0, where the closed forms cancel, by their power series."""
    near = s < 1
    small, large = torch.where(near, s, torch.zeros_like(s)), torch.where(near, torch.ones_like(s), s)
    angle = large.sqrt()
    a = torch.sin(angle) / angle
    b = (1 - torch.cos(angle)) / large
    c = (1 - a) / large
    closed = (b, c, (a - 2 * b) / (2 * large), (b - 3 * c) / (2 * large))
    by_series = [_series(small, first, slope) for slope in (False, True) for first in (2, 3)]
    return Factors(*(torch.where(near, one, other) for one, other in zip(by_series, closed, strict=True)))


def _series(s: Tensor, first: int, slope: bool) -> Tensor:
    """sum_k (-s)^k / (2 k + first)!, or its derivative, by Horner's rule."""
    coefficients = [(-1.0) ** k / math.factorial(2 * k + first) for k in range(_TERMS)]
    if slope:
        coefficients = [k * value for k, value in enumerate(coefficients)][1:]
    total = torch.full_like(s, coefficients[-1])
    for value in reversed(coefficients[:-1]):
        total = total * s + value
    return total


def _cross(one: Tensor, other: Tensor) -> Tensor:
    return torch.linalg.cross(one, other, dim=-1)


def screw(x: Tensor, twist: Tensor) -> Tensor:
    """Displacement [...,3] of points x [...,3] by screws [...,6]."""
    w, v = twist[..., :3], twist[..., 3:]
    f = factors((w * w).sum(-1, keepdim=True))
    u = _cross(w, x) + v
    turned = _cross(w, u)
    return u + f.b * turned + f.c * _cross(w, turned)


def screw_adjoint(g: Tensor, x: Tensor, twist: Tensor) -> tuple[Tensor, Tensor]:
    """Cotangent g [...,3] of the displacement → cotangents [...,3] of the points and [...,6] of the screws.

    Ordinary differentiable operations, as the other adjoints.
    """
    w, v = twist[..., :3], twist[..., 3:]
    f = factors((w * w).sum(-1, keepdim=True))
    u = _cross(w, x) + v
    turned = _cross(w, u)
    back = _cross(g, w)
    g_u = g + f.b * back + f.c * _cross(back, w)
    slopes = f.b_slope * (turned * g).sum(-1, keepdim=True) + f.c_slope * (_cross(w, turned) * g).sum(-1, keepdim=True)
    g_w = _cross(x, g_u) + f.b * _cross(u, g) + f.c * (_cross(turned, g) + _cross(u, back)) + 2 * slopes * w
    return _cross(g_u, w), torch.cat([g_w, g_u], -1)
