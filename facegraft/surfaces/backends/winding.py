"""Exact distance to the triangles; negative where the winding number of the closed mesh exceeds 1/2 (Jacobson et al. 2013), which is
found exactly, too (`surfaces.compiled.sides`).
"""

from __future__ import annotations

import numpy as np

from facegraft.arrays import Floats, Ints
from facegraft.surfaces.nearest import SearchTree
from facegraft.surfaces.signed import TOUCHING, SignedDistance, size_of, unit_gradient


def winding(v: Floats, f: Ints, p: Floats) -> SignedDistance:
    """Signed distances of points [n, 3] to a closed mesh: exact, on either side of every face."""
    (distance, index, closest), inside = SearchTree(v, f).nearest_and_inside(p)
    sign = np.where(inside, -1.0, 1.0)
    return SignedDistance(
        sign * distance, closest, index, unit_gradient(v, f, p, distance, index, closest, sign, TOUCHING * size_of(v))
    )
