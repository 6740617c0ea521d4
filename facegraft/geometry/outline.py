"""Smooth closed plane curves through control points, and the distance to them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from facegraft.arrays import Floats


def catmull_rom(control: ArrayLike, samples: int = 24) -> Floats:
    """Closed centripetal Catmull-Rom curve [n · samples, 2] through the control points [n, 2], in their order.

    Centripetal knots (spacing = square root of the chord) keep the curve from looping or overshooting where control
    points are unevenly spaced (Yuksel, Schaefer, Keyser 2011). Evaluated by the Barry-Goldman recursion.
    """
    p = np.asarray(control, dtype=np.float64)
    n = len(p)
    if n < 3:
        raise ValueError(f"a closed outline needs at least 3 control points, got {n}")
    p0, p1, p2, p3 = (np.roll(p, shift, axis=0)[:, None] for shift in (1, 0, -1, -2))

    def knot(a: Floats, b: Floats) -> Floats:
        return np.sqrt(np.linalg.norm(b - a, axis=2, keepdims=True)) + 1e-12

    t1 = knot(p0, p1)
    t2 = t1 + knot(p1, p2)
    t3 = t2 + knot(p2, p3)
    t = t1 + (t2 - t1) * np.linspace(0.0, 1.0, samples, endpoint=False)[None, :, None]
    a1 = (t1 - t) / t1 * p0 + t / t1 * p1
    a2 = (t2 - t) / (t2 - t1) * p1 + (t - t1) / (t2 - t1) * p2
    a3 = (t3 - t) / (t3 - t2) * p2 + (t - t2) / (t3 - t2) * p3
    b1 = (t2 - t) / t2 * a1 + t / t2 * a2
    b2 = (t3 - t) / (t3 - t1) * a2 + (t - t1) / (t3 - t1) * a3
    curve = (t2 - t) / (t2 - t1) * b1 + (t - t1) / (t2 - t1) * b2
    return np.asarray(curve.reshape(-1, 2))


@dataclass(frozen=True)
class Outline:
    """A closed polygon [n, 2] that approximates a smooth curve."""

    points: Floats

    def nearest(self, query: ArrayLike) -> tuple[Floats, Floats, Floats]:
        """Distance [N] of the points to the curve; at the nearest point, the curve's unit tangent [N, 2] and position in [0, 1)."""
        q = np.asarray(query, dtype=np.float64)
        p, step = self.points, np.roll(self.points, -1, axis=0) - self.points
        length = np.linalg.norm(step, axis=1)
        start = np.concatenate([[0.0], np.cumsum(length)])
        closest = cKDTree(p).query(q)[1]
        best = np.full(len(q), np.inf)
        tangent, along = np.zeros((len(q), 2)), np.zeros(len(q))
        for segment in (closest, (closest - 1) % len(p)):
            t = np.einsum("ij,ij->i", q - p[segment], step[segment]) / np.maximum(length[segment] ** 2, 1e-24)
            t = np.clip(t, 0.0, 1.0)
            distance = np.linalg.norm(p[segment] + t[:, None] * step[segment] - q, axis=1)
            better = distance < best
            best[better] = distance[better]
            tangent[better] = (step[segment] / np.maximum(length[segment], 1e-12)[:, None])[better]
            along[better] = ((start[segment] + t * length[segment]) / start[-1])[better] % 1.0
        return best, tangent, along

    def contains(self, query: ArrayLike) -> NDArray[np.bool_]:
        """Mask [N] of the points that the curve encloses (crossing parity of a ray toward +x)."""
        q = np.asarray(query, dtype=np.float64)
        a, b = self.points, np.roll(self.points, -1, axis=0)
        above = (a[None, :, 1] > q[:, None, 1]) != (b[None, :, 1] > q[:, None, 1])
        rise = np.where(b[:, 1] == a[:, 1], 1.0, b[:, 1] - a[:, 1])
        crossing = a[:, 0] + (q[:, None, 1] - a[:, 1]) * (b[:, 0] - a[:, 0]) / rise
        return np.asarray((above & (q[:, None, 0] < crossing)).sum(axis=1) % 2 == 1)


def roughness(loop_points: ArrayLike, smoothing: float = 2.0) -> float:
    """Ratio of a closed polygon's length to its length after smoothing: 1 for a smooth curve. Polygon [n, d].

    The filter is a periodic Gaussian of `smoothing` vertices. A staircase along the diagonal of a quad mesh has
    about 1.3. Since smoothing shortens every curve, a circle of n vertices has exp(0.5 (2 pi smoothing / n)^2).
    """
    p = np.asarray(loop_points, dtype=np.float64)
    frequency = np.fft.rfftfreq(len(p))
    gain = np.exp(-0.5 * (2.0 * np.pi * smoothing * frequency) ** 2)
    smooth = np.fft.irfft(np.fft.rfft(p, axis=0) * gain[:, None], n=len(p), axis=0)

    def length(q: Floats) -> float:
        return float(np.linalg.norm(np.roll(q, -1, axis=0) - q, axis=1).sum())

    return length(p) / length(smooth)


def lies_on(points: ArrayLike, polyline: ArrayLike, tolerance: float) -> NDArray[np.bool_]:
    """Mask of the plane points [N, 2] that lie within the tolerance of an open polyline [m, 2]."""
    q, line = np.asarray(points, dtype=np.float64), np.asarray(polyline, dtype=np.float64)
    start, step = line[:-1], np.diff(line, axis=0)
    offset = q[:, None] - start
    share = np.einsum("nsi,si->ns", offset, step) / np.maximum(np.einsum("si,si->s", step, step), 1e-24)
    beside = offset - np.clip(share, 0.0, 1.0)[..., None] * step
    return np.asarray((np.linalg.norm(beside, axis=2) <= tolerance).any(axis=1))


def crosses(edge_from: ArrayLike, edge_to: ArrayLike, polyline: ArrayLike) -> NDArray[np.int8]:
    """How each plane edge [E, 2] → [E, 2] crosses an open polyline [m, 2]: +1 from right to left, -1 from left to right, 0 not.

    Segments are half-open, so that an edge through a vertex of the polyline is counted once.
    """
    a, b = np.asarray(edge_from, dtype=np.float64), np.asarray(edge_to, dtype=np.float64)
    line = np.asarray(polyline, dtype=np.float64)
    total = np.zeros(len(a), dtype=np.int8)

    def side(p: Floats, q: Floats, r: Floats) -> Floats:
        return np.asarray(
            (q[..., 0] - p[..., 0]) * (r[..., 1] - p[..., 1]) - (q[..., 1] - p[..., 1]) * (r[..., 0] - p[..., 0])
        )

    for p, q in pairwise(line):
        left_a, left_b = side(p, q, a) > 0, side(p, q, b) > 0
        left_p, left_q = side(a, b, p) > 0, side(a, b, q) > 0
        total += np.where((left_a != left_b) & (left_p != left_q), np.where(left_b, 1, -1), 0).astype(np.int8)
    return total
