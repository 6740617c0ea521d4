"""Reflection in the plane of the face, x = 0."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from facegraft.arrays import Floats

MIRROR = np.array([-1.0, 1.0, 1.0])
"""Reflection in the plane x = 0, as a factor on coordinates."""


def symmetrised(vertices: ArrayLike, mirror: ArrayLike) -> Floats:
    """Mean of a shape [V, 3] and its mirror image: exactly symmetric about x = 0. `mirror` [V] is each vertex's counterpart."""
    v = np.asarray(vertices, dtype=np.float64)
    return 0.5 * (v + v[np.asarray(mirror)] * MIRROR)
