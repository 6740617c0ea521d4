"""Modes of registered displacements: the principal components of the training heads, made local.

A few dozen heads span few shapes, and each of their components moves the whole head at once. The covariance of the heads times a
kernel of the distance on the template keeps what near points do together and lets distant ones differ (the localised models of
M. Luethi, T. Gerig, C. Jud, T. Vetter, "Gaussian process morphable models", TPAMI 40(8), 2018). Its leading eigenvectors are a basis
of more shapes than there are heads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from facegraft_model.seeds import generator

VARIANCE_KEPT = 1e-8
"""Components with less than this share of the largest variance are rounding errors."""
MOST_COMPONENTS = 128
"""Largest number of the heads' own components that are made local; the rest has next to no variance."""
KERNEL_NODES = 128
"""Points on the template by which the kernel is approximated (Nystrom)."""
OVERSAMPLED = 24
POWER_ROUNDS = 2
"""Of the randomised singular value decomposition (N. Halko, P. G. Martinsson, J. A. Tropp, SIAM Review 53, 2011)."""


class Modes(NamedTuple):
    """mean [M,3]; modes [K,M,3], each scaled by its standard deviation; scores [n,K] of the heads, about N(0, 1) for a new head."""

    mean: Tensor
    modes: Tensor
    scores: Tensor


def principal_modes(heads: Tensor, most: int, centred: bool = True) -> Modes:
    """Principal components of displacements [n,M,3], at most `most`; centred=False: about zero, not about their mean."""
    heads = heads.double()
    count, points = heads.shape[:2]
    if not count:
        return Modes(heads.new_zeros(points, 3), heads, heads.new_zeros(0, 0))
    mean = heads.mean(0) if centred else torch.zeros_like(heads[0])
    offsets = (heads - mean).reshape(count, -1)
    left, spread, right = torch.linalg.svd(offsets, full_matrices=False)
    degrees = max(count - 1, 1) if centred else count
    kept = int((spread**2 > VARIANCE_KEPT * spread[0] ** 2).sum()) if float(spread[0]) > 0 else 0
    kept = min(kept, most, degrees)
    scale = spread[:kept] / degrees**0.5
    modes = (scale[:, None] * right[:kept]).reshape(kept, points, 3)
    return Modes(mean, modes, left[:, :kept] * degrees**0.5)


def local_modes(heads: Tensor, points: Tensor, reach: float, most: int, seed: int) -> Modes:
    """At most `most` modes of the displacements [n,M,3] of points [M,3], whose covariance is that of the heads times
    exp(-d^2 / (2 reach^2)), d the distance of two points. reach: in the unit of the points."""
    global_modes = principal_modes(heads, MOST_COMPONENTS)
    if not len(global_modes.modes):
        return global_modes
    windows = _kernel_factors(points.double(), reach)
    # The covariance is the sum over components i and windows w of the outer products of w * mode_i with itself.
    factors = (global_modes.modes[:, None] * windows.T[None, :, :, None]).flatten(0, 1).flatten(1)
    wanted = min(most, *factors.shape)
    found = factors.T @ torch.randn(
        len(factors), min(wanted + OVERSAMPLED, *factors.shape), dtype=torch.float64, generator=generator(seed, "modes")
    )
    for _ in range(POWER_ROUNDS):
        found = factors.T @ (factors @ torch.linalg.qr(found)[0])
    basis = torch.linalg.qr(found)[0]
    _, scale, right = torch.linalg.svd(factors @ basis, full_matrices=False)
    scale, right = scale[:wanted], right[:wanted] @ basis.T
    offsets = (heads.double() - global_modes.mean).flatten(1)
    modes = (scale[:, None] * right).reshape(wanted, *points.shape)
    return Modes(global_modes.mean, modes, offsets @ right.T / scale)


def spread_points(points: Tensor, count: int) -> Tensor:
    """Indices [count] of points [M,3] that lie far from each other: each is the farthest from those before (the first is point 0)."""
    chosen = [0]
    distance = torch.linalg.vector_norm(points - points[0], dim=1)
    for _ in range(min(count, len(points)) - 1):
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, torch.linalg.vector_norm(points - points[chosen[-1]], dim=1))
    return torch.tensor(chosen)


def _kernel_factors(points: Tensor, reach: float) -> Tensor:
    """w [M,q] with w w^T ~ exp(-d^2 / (2 reach^2)) of the points [M,3]."""
    nodes = points[spread_points(points, KERNEL_NODES)]

    def kernel(one: Tensor, other: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(one, other).square() / (2 * reach**2))

    values, vectors = torch.linalg.eigh(kernel(nodes, nodes))
    kept = values > 1e-4 * values[-1]
    return kernel(points, nodes) @ vectors[:, kept] / values[kept].sqrt()
