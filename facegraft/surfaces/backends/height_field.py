"""ImFace's sign for an open sheet that is a height field over x, y (`geometry.visibility.visible_sheet`): positive where the point
lies in front (+z) of its nearest point, negative behind it. The distance is exact, by libigl's AABB tree.
"""

from __future__ import annotations

import numpy as np

from facegraft.arrays import Floats, Ints
from facegraft.surfaces.nearest import nearest_on_surface
from facegraft.surfaces.signed import TOUCHING, SignedDistance, size_of, unit_gradient


def height_field(v: Floats, f: Ints, p: Floats) -> SignedDistance:
    """Signed distances of points [n, 3] to an open sheet that faces +z; gradients have z >= 0."""
    distance, index, closest = nearest_on_surface(v, f, p)
    size = size_of(v)
    sign = in_front(p, closest)
    gradient = unit_gradient(v, f, p, distance, index, closest, sign, TOUCHING * size)
    gradient[gradient[:, 2] < 0] *= -1.0
    return SignedDistance(sign * distance, closest, index, gradient)


def in_front(points: Floats, closest: Floats) -> Floats:
    """1 [n] for points [n, 3] in front (+z) of their nearest ones on a sheet, or on it, and -1 for those behind."""
    return np.where(points[:, 2] < closest[:, 2], -1.0, 1.0)
