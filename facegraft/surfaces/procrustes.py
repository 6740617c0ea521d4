"""Least-squares rotations and similarities of matched points (Umeyama, "Least-squares estimation of transformation parameters
between two point patterns", PAMI 1991): never a reflection.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from facegraft.arrays import Floats
from facegraft.surfaces.errors import SurfaceError


def rotations(cross: Floats) -> tuple[Floats, Floats]:
    """Rotations R [k, 3, 3] that maximise tr(R XᵀY), and those maxima [k], from YᵀX [k, 3, 3] of centred points (eqs. 40, 43)."""
    u, d, vt = np.linalg.svd(cross)
    sign = np.ones_like(d)
    sign[:, 2] = np.where(np.linalg.det(u) * np.linalg.det(vt) < 0, -1.0, 1.0)
    return (u * sign[:, None, :]) @ vt, (d * sign).sum(axis=1)


def similarities(cross: Floats, trace: Floats) -> Floats:
    """Linear parts sR [k, 3, 3] of the similarities, from YᵀX [k, 3, 3] and tr(XᵀX) [k] (eqs. 40-42)."""
    rotation, stretch = rotations(cross)
    scale = stretch / trace
    return scale[:, None, None] * rotation


def procrustes(source: ArrayLike, target: ArrayLike, similarity: bool, weights: ArrayLike | None = None) -> Floats:
    """The rigid (or similarity) map [4, 4] of points [n, 3] onto others, row-matched. weights [n]: of the points; default: all the same.

    Raises SurfaceError for arrays that do not match, fewer than three points, or (similarity) points that are all the same.
    """
    x, y = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 2 or x.shape[1] != 3 or len(x) < 3:
        raise SurfaceError(
            f"a rigid map needs two [n, 3] arrays of at least 3 points, row-matched; got {x.shape} and {y.shape}"
        )
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    mean_x, mean_y = (w @ x) / w.sum(), (w @ y) / w.sum()
    root = np.sqrt(w)[:, None]
    x, y = root * (x - mean_x), root * (y - mean_y)
    cross = (y.T @ x)[None]
    if similarity:
        spread = np.square(x).sum()
        if not spread > 0.0:
            raise SurfaceError("a similarity needs points that are not all the same")
        linear = similarities(cross, np.array([spread]))[0]
    else:
        linear = rotations(cross)[0][0]
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = mean_y - linear @ mean_x
    return matrix
