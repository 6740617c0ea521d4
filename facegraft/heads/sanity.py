"""Is this array of vertices a head, in mm, upright and facing forward?

Finds errors that would otherwise give nonsense much later: a landmark set or region map of another topology, another
unit, a mesh that lies on its back or is mirrored. Landmark numbers are iBUG's (from 0).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from facegraft.arrays import Floats
from facegraft.heads.alignment import TO_ALIGN, own_axes
from facegraft.heads.errors import HeadError
from facegraft.meshfiles.units import likely_units, unit_advice
from facegraft.vocabulary import (
    ACCEPTED_CANTHI_MM,
    CHIN,
    MEAN_CANTHI_MM,
    MIRROR_PAIRS,
    NASION,
    NOSE_TIP,
    OUTER_CANTHI,
)

_MIRRORED = np.array([pair for pair in MIRROR_PAIRS if 17 <= pair[0] < 48])
"""Landmarks of brows, nose and eyes, which stay mirror images in every expression; mouth and jaw may move to one side."""

_MOST_APART = np.where(np.isin(_MIRRORED[:, 0], range(31, 36)), 0.45, 0.25)
"""How far landmarks may lie from each other's mirror image, in distances of the eyes: a mouth pulled aside takes the nose's wings with it."""

_RIGHT_EYE, _LEFT_EYE = OUTER_CANTHI


def check_head(vertices: ArrayLike, landmarks68: ArrayLike, mm_per_unit: float, where: str, posed: bool = False) -> None:
    """Raise HeadError unless the vertices [V, 3] (mm) look like a head in the common frame.

    The frame is +y up, +z out of the face, +x to the subject's left. `mm_per_unit` is the factor by which the vertices
    were converted and `where` names the file: both are for the message. posed: the head may be in any pose, which is taken out later.
    """
    points = np.asarray(vertices, dtype=np.float64)
    if what := _fault(points[np.asarray(landmarks68)], mm_per_unit, posed):
        raise HeadError(f"{where}: {what}", points)


def canthi_mm(landmarks: Floats) -> float:
    """Distance of the outer eye corners of a head with these landmarks [68, 3]."""
    return float(np.linalg.norm(landmarks[_LEFT_EYE] - landmarks[_RIGHT_EYE]))


def _fault(lm: Floats, mm_per_unit: float, posed: bool) -> str | None:
    """What is wrong with a head of these landmarks [68, 3]; None where nothing is."""
    canthi = canthi_mm(lm)
    if not ACCEPTED_CANTHI_MM[0] <= canthi <= ACCEPTED_CANTHI_MM[1]:
        return (
            f"the outer eye corners are {canthi:.4g} mm apart, expected {ACCEPTED_CANTHI_MM[0]:.0f} to {ACCEPTED_CANTHI_MM[1]:.0f}: "
            + _unit_advice(canthi, mm_per_unit)
        )
    if posed:
        return None
    lateral = lm[_LEFT_EYE, 0] - lm[_RIGHT_EYE, 0]
    up = lm[NASION, 1] - lm[CHIN, 1]
    forward = lm[NOSE_TIP, 2] - lm[[_LEFT_EYE, _RIGHT_EYE], 2].mean()
    if lateral > 0.5 * canthi and up > 0.5 * canthi and forward > 0.1 * canthi:
        return _fault_of_pairs(lm, canthi)
    if lateral < -0.5 * canthi and up > 0.5 * canthi and forward < 0:
        what = "it faces backward: turn it by 180 degrees about y"
    elif lateral < -0.5 * canthi and up > 0.5 * canthi:
        what = "left and right are exchanged: its x axis must point to the subject's left (a mirrored export?)"
    elif turn := _turn(lm, canthi):
        return f"it is not upright and facing forward: {turn}"
    else:
        what = "it is not upright and facing forward, or its landmarks belong to another topology"
    return f"{what}; the frame is +y up, +z out of the face, +x to the subject's left"


def _fault_of_pairs(lm: Floats, canthi: float) -> str | None:
    """What is wrong where brows, eyes and nose are not roughly mirror images."""
    middle = lm[[_RIGHT_EYE, _LEFT_EYE], 0].mean()
    right, left = lm[_MIRRORED[:, 0]], lm[_MIRRORED[:, 1]]
    mirrored = right * [-1, 1, 1] + [2 * middle, 0, 0]
    apart = np.linalg.norm(mirrored - left, axis=1)
    worst = int((apart / _MOST_APART).argmax())
    if apart[worst] <= _MOST_APART[worst] * canthi:
        return None
    if turn := _turn(lm, canthi):
        return turn
    a, b = _MIRRORED[worst]
    return (
        f"landmarks {a} and {b} are not each other's mirror image, by {apart[worst]:.0f} mm; the landmarks belong to "
        "another topology, or the head is turned away"
    )


def _turn(lm: Floats, canthi: float) -> str | None:
    """How a head of these landmarks [68, 3] is turned, in words; None where they are no face in any pose, and where it is hardly turned."""
    own = own_axes(lm)
    face = (lm - lm[[_RIGHT_EYE, _LEFT_EYE]].mean(axis=0)) @ own
    apart = np.linalg.norm(face[_MIRRORED[:, 0]] * [-1, 1, 1] - face[_MIRRORED[:, 1]], axis=1)
    degrees = float(np.degrees(np.arccos(np.clip((np.trace(own) - 1) / 2, -1, 1))))
    if (apart > _MOST_APART * canthi).any() or face[NOSE_TIP, 2] < 0.1 * canthi or degrees < 10:
        return None
    up, ahead = (_axis(own[:, i]) for i in (1, 2))
    where = "" if (up, ahead) == ("+y", "+z") else f" (its top points to {up}, its face to {ahead})"
    return f"the head is turned by about {degrees:.0f} degrees{where}; turn it until it is upright (+y) and faces +z, {TO_ALIGN}"


def _axis(direction: Floats) -> str:
    """The axis to which a direction points most."""
    axis = int(np.abs(direction).argmax())
    return ("+" if direction[axis] > 0 else "-") + "xyz"[axis]


def _unit_advice(canthi: float, mm_per_unit: float) -> str:
    if canthi <= 0 or not np.isfinite(canthi):
        return "the landmarks belong to another topology, or the mesh is empty"
    units = likely_units(canthi, mm_per_unit, MEAN_CANTHI_MM, ACCEPTED_CANTHI_MM)
    if units:
        return unit_advice(units[:1], "mm_per_unit=", mm_per_unit)
    factor = MEAN_CANTHI_MM / canthi
    return f"a scale error of about {factor:.3g}, or landmarks of another topology (it was read with mm_per_unit={mm_per_unit:g})"
