"""How ragged a loop of mesh edges may be: the bound that the builder traces to and that the checker holds maps to."""

from __future__ import annotations

import numpy as np

from facegraft.arrays import Floats
from facegraft.geometry.outline import roughness

MAX_ROUGHNESS = 1.2
MAX_ROUGHNESS_COARSE = 1.3
SHORT_LOOP = 30  # vertices; below, smoothing by two vertices would shorten even a circle by more than 9 %: smoothed by one, ...
MAX_ROUGHNESS_SHORT = 1.2  # ... with which stairs along a diagonal have 1.27, a smooth loop of 16 to 29 vertices at most 1.11
COARSE_MM = 4.0  # mean loop edge beyond which a mesh counts as coarse


def loop_smoothing(loop: int) -> float:
    """Number of vertices over which a loop of this length is smoothed to measure its roughness."""
    return 1.0 if loop < SHORT_LOOP else 2.0


def roughness_limit(loop: int, mean_edge: float) -> float:
    """Largest accepted roughness of a loop with this number of vertices and this mean edge length in mm."""
    if loop < SHORT_LOOP:
        return MAX_ROUGHNESS_SHORT
    return MAX_ROUGHNESS_COARSE if mean_edge > COARSE_MM else MAX_ROUGHNESS


def raggedness(points: Floats) -> float:
    """Roughness of a closed loop [n, 3] in mm, as a multiple of what is accepted: 1 or less is good."""
    mean_edge = float(np.linalg.norm(np.roll(points, -1, axis=0) - points, axis=1).mean())
    return roughness(points, loop_smoothing(len(points))) / roughness_limit(len(points), mean_edge)
