"""Iterative closest points: onto a surface (point to plane), and between clouds that overlap in part (trimmed, point to point).

Both take the nearest-point search as an argument, so they build no search tree themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from facegraft.arrays import Bools, Floats, Ints
from facegraft.surfaces.errors import SurfaceError
from facegraft.surfaces.procrustes import procrustes


@dataclass(frozen=True)
class Rigid:
    """A rigid motion p ↦ R p + t as matrix [4, 4] (column vectors), and how it was found."""

    matrix: Floats
    iterations: int
    rms_before: float
    rms_after: float

    def apply(self, points: Floats) -> Floats:
        return np.asarray(points @ self.matrix[:3, :3].T + self.matrix[:3, 3])

    @property
    def degrees(self) -> float:
        """Angle of the rotation; it uses the antisymmetric part too, because the arc cosine alone cannot resolve small angles."""
        r = self.matrix[:3, :3]
        sine = 0.5 * math.hypot(r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1])
        return math.degrees(math.atan2(sine, 0.5 * (float(np.trace(r)) - 1.0)))


Correspond = Callable[[Floats], tuple[Floats, Floats, Bools]]
"""Points [n, 3] ↦ their nearest points [n, 3], the normals there [n, 3], and which of them count [n]."""


def rigid_icp(points: Floats, correspond: Correspond, iterations: int = 20, tolerance: float = 1e-3) -> Rigid:
    """Rigid motion of points [n, 3] onto a surface by point-to-plane ICP (Chen & Medioni 1992).

    Each step minimises Σ (n · (p + ω × (p − c) + t − q))² for the small motion (ω, t), by least squares of least norm, so that a
    motion that the surface does not fix (a sphere's rotation) stays zero. Ends after `iterations`, or when a step moves the points
    by less than `tolerance` (rms, in their unit). Of all positions the one with the least rms distance to the planes is returned,
    so the result is never worse than no motion. Raises SurfaceError when fewer than 6 points count.
    """
    matrix = np.eye(4)
    best, best_rms, first_rms = matrix, math.inf, math.inf
    done = 0
    for step in range(iterations + 1):
        moved = points @ matrix[:3, :3].T + matrix[:3, 3]
        target, normal, counts = correspond(moved)
        if counts.sum() < 6:
            raise SurfaceError("ICP found fewer than 6 points that correspond to the truth")
        p, q, n = moved[counts], target[counts], normal[counts]
        gap = np.einsum("ni,ni->n", q - p, n)
        rms = float(np.sqrt(np.mean(gap**2)))
        if step == 0:
            first_rms = rms
        if rms < best_rms:
            best, best_rms = matrix, rms
        if step == iterations:
            break
        centre = p.mean(axis=0)
        scale = (
            float(np.sqrt(np.mean(np.sum((p - centre) ** 2, axis=1)))) or 1.0
        )  # makes lengths and angles similar in size: well conditioned
        rows = np.concatenate([np.cross((p - centre) / scale, n), n], axis=1)
        solution = np.linalg.lstsq(rows, gap, rcond=1e-8)[0]
        motion = _motion(solution[:3] / scale, solution[3:], centre)
        matrix = motion @ matrix
        done = step + 1
        shift = p @ motion[:3, :3].T + motion[:3, 3] - p
        if float(np.sqrt(np.mean(np.sum(shift**2, axis=1)))) < tolerance:
            break
    return Rigid(best, done, first_rms, best_rms)


def _motion(omega: Floats, shift: Floats, centre: Floats) -> Floats:
    """[4, 4]: rotation by the vector ω (Rodrigues) about `centre`, then a shift."""
    angle = float(np.linalg.norm(omega))
    x, y, z = omega / angle if angle > 0.0 else omega
    k = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    rotation = np.eye(3) + math.sin(angle) * k + (1.0 - math.cos(angle)) * (k @ k)
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = centre + shift - rotation @ centre
    return matrix


NearestOf = Callable[[Floats], tuple[Floats, Ints]]
"""Points [n, 3] ↦ their distance [n] to the nearest point of the target, and its number there [n]."""


def trimmed_icp(
    points: Floats,
    target: Floats,
    nearest: NearestOf,
    start: Floats,
    *,
    kept_share: float,
    iterations: int,
    similarity: bool = False,
) -> tuple[Floats, float]:
    """Map [4, 4] of points [n, 3] onto a target [m, 3] that they cover in part, and the mean distance of the kept pairs.

    Trimmed ICP (Chetverikov et al. 2002) from the map `start`: every iteration uses the share of nearest pairs, since the rest
    may have no counterpart. A similarity changes the scale only in the second half of the iterations: before the two clouds
    overlap, shrinking would be the easiest way to reduce the distance.
    """
    matrix, residual, pairs = start, math.inf, np.empty(0, dtype=np.int64)
    for iteration in range(iterations):
        distance, index = nearest(points @ matrix[:3, :3].T + matrix[:3, 3])
        kept = distance <= np.quantile(distance, kept_share)
        residual = float(distance[kept].mean())
        before, pairs = pairs, np.where(kept, index, -1)
        if not similarity and np.array_equal(pairs, before):
            break  # the same pairs give the same map again
        matrix = procrustes(points[kept], target[index[kept]], similarity and iteration > iterations // 2)
    return matrix, residual
