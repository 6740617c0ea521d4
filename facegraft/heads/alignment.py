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
from facegraft.surfaces.procrustes import procrustes, rotations
from facegraft.vocabulary import CHIN, MIRROR_PAIRS, NASION

Alignment = Literal["none", "rigid", "similarity"]

STABLE_LANDMARKS = (0, 16, *range(17, 48))
"""Ends of the jaw line, brows, nose and eyes."""
NEUTRALS = 50
"""Largest number of neutral heads, spread over the subjects, whose median is the target."""
TO_ALIGN = "or give ingest.align=rigid, which takes out the pose of all heads"
"""What else to do about a head's pose, at the end of a message."""
_STABLE = list(STABLE_LANDMARKS)
_ROUNDS = 8
_UPRIGHT = math.cos(math.radians(25))
"""Heads whose up and forward axes are farther than this from y and z say nothing about how the target should lie."""
RIGID_MM = 1.5
"""An expression's vertex that is farther than this from its place in the neutral head hardly counts (Geman and McClure's weights)."""
_REWEIGHTED = 15


class Motion(NamedTuple):
    """What alignment did to a head: turn in degrees, shift of its landmarks' mean in mm, and change of size."""

    turn_deg: float
    shift_mm: float
    scale: float


def median_landmarks(heads: Sequence[Floats], similarity: bool) -> Floats:
    """The median [n, 3] of the stable landmarks of heads, given by all 68 [68, 3], each aligned to it: generalised Procrustes, with a median
    that one bad head does not move, of the heads' median size.

    The result does not depend on how the heads lie, but for its pose: that of those heads which look upright and forward, on average, and
    where there are none, upright and forward by its own landmarks.
    """
    # In its own frame every head looks the same way, so the median of the first round is already a face.
    own = [_in_own_frame(head) for head in heads]
    target = np.median(own, axis=0)
    for _ in range(_ROUNDS):
        target = np.median([moved(head, procrustes(head[_STABLE], target[_STABLE], similarity)) for head in own], axis=0)
    if similarity:
        middle = target[_STABLE].mean(axis=0)
        target = middle + (target - middle) * np.median([_size(head[_STABLE]) for head in own]) / _size(target[_STABLE])
    maps = [procrustes(target[_STABLE], head[_STABLE], similarity=False) for head in heads]
    upright = np.stack([matrix for matrix in maps if matrix[1, 1] > _UPRIGHT and matrix[2, 2] > _UPRIGHT] or [np.eye(4)])
    turn = rotations(upright[:, :3, :3].sum(axis=0)[None])[0][0]  # the mean rotation (chordal)
    turned = target @ turn.T
    place = np.median([moved(target, matrix)[_STABLE].mean(axis=0) for matrix in upright], axis=0)
    return (turned - turned[_STABLE].mean(axis=0) + place)[_STABLE]


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


def _in_own_frame(landmarks: Floats) -> Floats:
    """Landmarks [68, 3] about the stable ones' mean, x to the subject's left by the mirror pairs, y from chin to nasion."""
    return (landmarks - landmarks[_STABLE].mean(axis=0)) @ own_axes(landmarks)


def own_axes(landmarks: Floats) -> Floats:
    """The axes of a head's own frame, columns of [3, 3]: x to the subject's left by the mirror pairs, y from chin to nasion, z out of the face."""
    right, left = np.array(MIRROR_PAIRS).T
    x = (landmarks[left] - landmarks[right]).mean(axis=0)
    y = landmarks[NASION] - landmarks[CHIN]
    x = x / np.linalg.norm(x)
    y = y - (y @ x) * x
    y = y / np.linalg.norm(y)
    return np.column_stack([x, y, np.cross(x, y)])


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
