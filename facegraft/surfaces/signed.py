"""The result of a signed-distance query, and helpers that the backends share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facegraft.arrays import Floats, Ints
from facegraft.surfaces.normals import face_cross

TOUCHING = 1e-9
"""Points nearer to the surface than this share of its size have no reliable direction: their gradient is the face normal."""


@dataclass(frozen=True)
class SignedDistance:
    """Signed distances of n points to a surface.

    sdf             [n]    f64   negative inside
    closest_points  [n, 3] f64   nearest point of the surface
    face_index      [n]    i64   a face on which it lies
    gradient        [n, 3] f64   unit; points away from the inside
    """

    sdf: Floats
    closest_points: Floats
    face_index: Ints
    gradient: Floats


def size_of(vertices: Floats) -> float:
    """Size of a surface: the diagonal of its box."""
    return float(np.linalg.norm(np.ptp(vertices, axis=0)))


def unit_gradient(
    v: Floats, f: Ints, p: Floats, distance: Floats, index: Ints, closest: Floats, sign: Floats, touching: float
) -> Floats:
    """Unit gradients: along the line to the nearest point, or the face normal where a point lies on the surface."""
    gradient = (p - closest) * (sign / np.maximum(distance, np.finfo(np.float64).tiny))[:, None]
    on = distance <= touching
    if on.any():
        normal = face_cross(v, f[index[on]])
        gradient[on] = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return np.asarray(gradient)
