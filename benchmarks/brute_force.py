"""Brute-force signed distance: every triangle against every point, in float64, with exact winding numbers.

An oracle that shares no code with the package: point-triangle distances by projecting onto the plane and the three edges,
winding numbers by summing solid angles. Slow (about 1 s for 2,000 points and 22,000 triangles), and meant to be.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def point_triangle_distance(points: ArrayLike, triangles: ArrayLike) -> Floats:
    """Distances [n, F] between points [n, 3] and triangles [F, 3, 3].

    The nearest point of a triangle is the foot on its plane where that falls inside, else it lies on one of the edges.
    """
    p = np.asarray(points, dtype=np.float64)[:, None]
    t = np.asarray(triangles, dtype=np.float64)[None]
    nearest = np.full((p.shape[0], t.shape[1]), np.inf)
    normal = np.cross(t[..., 1, :] - t[..., 0, :], t[..., 2, :] - t[..., 0, :])
    inside = np.ones(nearest.shape, dtype=bool)
    for i in range(3):
        a, edge = t[..., i, :], t[..., (i + 1) % 3, :] - t[..., i, :]
        to = p - a
        length = np.einsum("...j,...j", edge, edge)
        along = np.clip(np.einsum("...j,...j", to, edge) / np.where(length > 0, length, 1.0), 0.0, 1.0)
        nearest = np.minimum(nearest, np.linalg.norm(to - along[..., None] * edge, axis=-1))
        inside &= np.einsum("...j,...j", np.cross(edge, to), normal) >= 0
    size = np.linalg.norm(normal, axis=-1)
    height = np.abs(np.einsum("...j,...j", p - t[..., 0, :], normal)) / np.where(size > 0, size, 1.0)
    return np.where(inside & (size > 0), np.minimum(height, nearest), nearest)


def solid_angles(points: ArrayLike, triangles: ArrayLike) -> Floats:
    """Signed solid angles [n, F] of triangles seen from points (Van Oosterom and Strackee 1983)."""
    p = np.asarray(points, dtype=np.float64)[:, None]
    t = np.asarray(triangles, dtype=np.float64)[None]
    a, b, c = t[..., 0, :] - p, t[..., 1, :] - p, t[..., 2, :] - p
    la, lb, lc = (np.linalg.norm(x, axis=-1) for x in (a, b, c))
    ab, bc, ca = (np.einsum("...j,...j", x, y) for x, y in ((a, b), (b, c), (c, a)))
    top = np.einsum("...j,...j", a, np.cross(b, c))
    return 2.0 * np.arctan2(top, la * lb * lc + ab * lc + bc * la + ca * lb)


def exact_winding_number(vertices: ArrayLike, faces: ArrayLike, points: ArrayLike, chunk: int = 32) -> Floats:
    """Generalised winding numbers [n]: 1 inside and 0 outside a simple closed mesh with outward faces."""
    triangles = np.asarray(vertices, dtype=np.float64)[np.asarray(faces)]
    p = np.asarray(points, dtype=np.float64)
    parts = [solid_angles(p[i : i + chunk], triangles).sum(axis=1) for i in range(0, len(p), chunk)]
    return np.concatenate(parts) / (4.0 * np.pi)


def exact_distance(vertices: ArrayLike, faces: ArrayLike, points: ArrayLike, chunk: int = 32) -> Floats:
    """Unsigned distances [n] to the nearest of all triangles."""
    triangles = np.asarray(vertices, dtype=np.float64)[np.asarray(faces)]
    p = np.asarray(points, dtype=np.float64)
    return np.concatenate([point_triangle_distance(p[i : i + chunk], triangles).min(axis=1) for i in range(0, len(p), chunk)])


def exact_signed_distance(vertices: ArrayLike, faces: ArrayLike, points: ArrayLike) -> Floats:
    """Signed distances [n] to a closed mesh: negative where the exact winding number exceeds 1/2."""
    inside = exact_winding_number(vertices, faces, points) > 0.5
    return np.where(inside, -1.0, 1.0) * exact_distance(vertices, faces, points)
