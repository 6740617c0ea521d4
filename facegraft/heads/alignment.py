"""The pose taken out of registered heads, which correspond vertex by vertex.

A neutral head is brought onto the median of the neutral heads by landmarks that expressions hardly move; an expression onto its subject's
neutral head by all of the skin, of which the part that does not move (cranium, ears, forehead) decides, and then moves with it. A similarity also
brings the neutral heads to the median's size, and an expression to its subject's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from facegraft.arrays import Floats
from facegraft.surfaces.procrustes import procrustes

Alignment = Literal["none", "rigid", "similarity"]

STABLE_LANDMARKS = (0, 16, *range(17, 48))
"""Ends of the jaw line, brows, nose and eyes."""
NEUTRALS = 50
"""Largest number of neutral heads, spread over the subjects, whose median is the target."""
_ROUNDS = 8
RIGID_MM = 1.5
"""An expression's vertex that is farther than this from its place in the neutral head hardly counts (Geman and McClure's weights)."""
_REWEIGHTED = 15


class Motion(NamedTuple):
    """What alignment did to a head: turn in degrees, shift of its landmarks' mean in mm, and change of size."""

    turn_deg: float
    shift_mm: float
    scale: float


def median_landmarks(heads: Sequence[Floats], similarity: bool) -> Floats:
    """The median [n, 3] of the landmarks [n, 3] of heads, each aligned to it (generalised Procrustes, with a median that one bad head does
    not move), of the median's size, position and pose."""
    first = np.median(heads, axis=0)
    target = first
    for _ in range(_ROUNDS):
        target = np.median([moved(own, procrustes(own, target, similarity)) for own in heads], axis=0)
    if similarity:
        target = target * np.median([_size(own) for own in heads]) / _size(target)
    return moved(target, procrustes(target, first, similarity=False))


def neutral_map(landmarks: Floats, target: Floats, similarity: bool) -> Floats:
    """The map [4, 4] of a neutral head with these landmarks [n, 3] onto the target [n, 3]."""
    return procrustes(landmarks, target, similarity)


def expression_map(vertices: Floats, neutral: Floats, similarity: bool) -> Floats:
    """The map [4, 4] of a subject's expression onto its neutral head, both vertices [v, 3] of the skin in mm.

    Iteratively reweighted least squares: the vertices that some rigid motion explains decide, those that the expression moves do not.
    """
    weights = np.ones(len(vertices))
    matrix = procrustes(vertices, neutral, similarity)
    for _ in range(_REWEIGHTED):
        apart = np.square(moved(vertices, matrix) - neutral).sum(axis=1)
        # From a wide bound to a narrow one: at first all may be far.
        bound = max(RIGID_MM**2, float(np.median(apart)))
        weights = np.square(bound / (bound + apart))
        matrix = procrustes(vertices, neutral, similarity, weights)
    return matrix


def _size(points: Floats) -> float:
    """Median distance of points [n, 3] from their median."""
    return float(np.median(np.linalg.norm(points - np.median(points, axis=0), axis=1)))


def moved(points: Floats, matrix: Floats) -> Floats:
    """Points [n, 3] after a map [4, 4]."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def motion(matrix: Floats, landmarks: Floats) -> Motion:
    """What a map [4, 4] does to a head with these landmarks [n, 3]."""
    scale = float(np.cbrt(np.linalg.det(matrix[:3, :3])))
    cosine = (np.trace(matrix[:3, :3]) / scale - 1) / 2
    shift = float(np.linalg.norm((moved(landmarks, matrix) - landmarks).mean(axis=0)))
    return Motion(math.degrees(math.acos(min(max(cosine, -1.0), 1.0))), shift, scale)
