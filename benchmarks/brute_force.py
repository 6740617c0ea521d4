"""Brute-force signed distance: every triangle against every point, in float64, with exact winding numbers.

An oracle that shares no code with the package: point-triangle distances by projecting onto the plane and the three edges,
winding numbers by summing solid angles. Slow (about 15 s for 1,000 points and 22,000 triangles), and meant to be.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from facegraft.arrays import Floats


def _dot(a: Floats, b: Floats) -> Floats:
    """Dot products of vectors whose components lie along the first axis: [3, …] · [3, …] -> […]."""
    return np.asarray(a[0] * b[0] + a[1] * b[1] + a[2] * b[2])


def _cross(a: Floats, b: Floats) -> Floats:
    return np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def point_triangle_distance(points: ArrayLike, triangles: ArrayLike) -> Floats:
    """Distances [n, F] between points [n, 3] and triangles [F, 3, 3].

    The nearest point of a triangle is the foot on its plane where that falls inside, else it lies on one of the edges.
    """
    p = np.asarray(points, dtype=np.float64).T[:, :, None]
    corners = np.asarray(triangles, dtype=np.float64).transpose(1, 2, 0)  # [corner, xyz, F]
    normal = _cross(corners[1] - corners[0], corners[2] - corners[0])
    size = np.sqrt(_dot(normal, normal))
    squared = np.full((p.shape[1], corners.shape[2]), np.inf)
    inside = np.broadcast_to(size > 0, squared.shape)
    for i in range(3):
        edge = corners[(i + 1) % 3] - corners[i]
        to = p - corners[i][:, None]
        length = _dot(edge, edge)
        along = np.clip(_dot(to, edge[:, None]) / np.where(length > 0, length, 1.0), 0.0, 1.0)
        off = to - along * edge[:, None]
        squared = np.minimum(squared, _dot(off, off))
        inside = inside & (_dot(to, _cross(normal, edge)[:, None]) >= 0)
    height = np.abs(_dot(p - corners[0][:, None], (normal / np.where(size > 0, size, 1.0))[:, None]))
    nearest = np.sqrt(squared)
    return np.where(inside, np.minimum(height, nearest), nearest)


def solid_angles(points: ArrayLike, triangles: ArrayLike) -> Floats:
    """Signed solid angles [n, F] of triangles seen from points (Van Oosterom and Strackee 1983)."""
    p = np.asarray(points, dtype=np.float64).T[:, :, None]
    a, b, c = (corner[:, None] - p for corner in np.asarray(triangles, dtype=np.float64).transpose(1, 2, 0))
    la, lb, lc = (np.sqrt(_dot(x, x)) for x in (a, b, c))
    below = la * lb * lc + _dot(a, b) * lc + _dot(b, c) * la + _dot(c, a) * lb
    return np.asarray(2.0 * np.arctan2(_dot(a, _cross(b, c)), below))


def exact_winding_number(vertices: ArrayLike, faces: ArrayLike, points: ArrayLike, chunk: int = 2) -> Floats:
    """Generalised winding numbers [n]: 1 inside and 0 outside a simple closed mesh with outward faces."""
    triangles = np.asarray(vertices, dtype=np.float64)[np.asarray(faces)]
    p = np.asarray(points, dtype=np.float64)
    parts = [solid_angles(p[i : i + chunk], triangles).sum(axis=1) for i in range(0, len(p), chunk)]
    return np.concatenate(parts) / (4.0 * np.pi)


def exact_distance(vertices: ArrayLike, faces: ArrayLike, points: ArrayLike, chunk: int = 8) -> Floats:
    """Unsigned distances [n] to the nearest of all triangles."""
    triangles = np.asarray(vertices, dtype=np.float64)[np.asarray(faces)]
    p = np.asarray(points, dtype=np.float64)
    return np.concatenate(
        [point_triangle_distance(p[i : i + chunk], triangles).min(axis=1) for i in range(0, len(p), chunk)]
    )


def exact_signed_distance(vertices: ArrayLike, faces: ArrayLike, points: ArrayLike) -> Floats:
    """Signed distances [n] to a closed mesh: negative where the exact winding number exceeds 1/2."""
    inside = exact_winding_number(vertices, faces, points) > 0.5
    return np.where(inside, -1.0, 1.0) * exact_distance(vertices, faces, points)
