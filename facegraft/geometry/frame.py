"""The frame of a head in its unit ball: an origin computed from its landmarks, and one scale for the whole dataset.

A frame is a translation and a scale, never a rotation: registered heads are rigidly aligned already. The origin comes
from landmarks of the *subject's neutral head*, so that smiling or swapping a nose does not move the head.
"""

from __future__ import annotations

import numpy as np

from facegraft.arrays import Floats
from facegraft.vocabulary import CANTHI, NOSE_TIP

HEAD_CENTRE = np.array([0.0, -35.0, -90.0])
"""Centre of an adult head's smallest ball, crown to cropped neck, from the mean of its four canthi, in mm."""


def head_origin(landmarks68: Floats) -> Floats:
    """Origin [3] of a whole head in mm: 35 mm below and 90 mm behind the mean of the canthi."""
    return landmarks68[list(CANTHI)].mean(axis=0) + HEAD_CENTRE


def head_radius(skin: Floats, landmarks68: Floats) -> float:
    """How far the skin [n, 3] of a whole head reaches from its origin, in mm."""
    return float(np.linalg.norm(skin - head_origin(landmarks68), axis=1).max())


def frontal_origin(landmarks68: Floats, tip_depth: float) -> Floats:
    """Origin [3] of a frontal face in mm: `tip_depth` mm behind the nose tip (ImFace and the paper: 40)."""
    return landmarks68[NOSE_TIP] - np.array([0.0, 0.0, tip_depth])


def to_mm_matrix(origin: Floats, mm_per_unit: float) -> Floats:
    """The matrix [4, 4] from unit coordinates to mm."""
    matrix = np.diag([mm_per_unit, mm_per_unit, mm_per_unit, 1.0])
    matrix[:3, 3] = origin
    return matrix


def to_unit(points: Floats, origin: Floats, mm_per_unit: float) -> Floats:
    """Points [..., 3] in mm to unit coordinates."""
    return (points - origin) / mm_per_unit
