"""ImFace's sign for an open sheet that is a height field over x, y (`geometry.visibility.visible_sheet`): positive where the point
lies in front (+z) of its nearest point, negative behind it. The distance is exact.
"""

from __future__ import annotations

import numpy as np

from facegraft.arrays import Floats, Ints
from facegraft.surfaces.nearest import nearest_on_surface
from facegraft.surfaces.signed import TOUCHING, SignedDistance, size_of, unit_gradient

ROUNDING = 1e-12
"""Share of its distance by which a point beside its nearest one may seem to be behind it."""


def height_field(v: Floats, f: Ints, p: Floats) -> SignedDistance:
    """Signed distances of points [n, 3] to an open sheet that faces +z; gradients have z >= 0."""
    distance, index, closest = nearest_on_surface(v, f, p)
    size = size_of(v)
    sign = in_front(p, closest)
    gradient = unit_gradient(v, f, p, distance, index, closest, sign, TOUCHING * size)
    gradient[gradient[:, 2] < 0] *= -1.0
    return SignedDistance(sign * distance, closest, index, gradient)


def in_front(points: Floats, closest: Floats) -> Floats:
    """1 [n] for points [n, 3] in front (+z) of their nearest ones on a sheet, beside them (but for rounding) or on it, and -1 for those behind."""
    return np.where(closest[:, 2] - points[:, 2] > ROUNDING * np.linalg.norm(points - closest, axis=1), -1.0, 1.0)
