"""Is this array of vertices a head, in mm, upright and facing forward?

Catches what otherwise shows as nonsense much later: a landmark set or region map of another topology, another unit,
a mesh that lies on its back or is mirrored. Landmark numbers are iBUG's (from 0).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from facegraft.meshfiles.errors import MeshError
from facegraft.meshfiles.rawmesh import Floats

CANTHI_MM = (70.0, 115.0)
"""Distance of the outer eye corners that is accepted. Adults: 80 to 100 mm; the rest is room for children and caricatures."""

_TYPICAL_CANTHI = 90.0
_SCALES = {
    1000.0: "metres",
    100.0: "decimetres",
    10.0: "centimetres",
    1.0: "millimetres",
    25.4: "inches",
    250.0: "quarter metres",
}
_PAIRS = np.array(
    [
        *zip(range(17, 22), range(26, 21, -1), strict=True),
        (31, 35),
        (32, 34),
        (36, 45),
        (37, 44),
        (38, 43),
        (39, 42),
        (40, 47),
        (41, 46),
    ]
)
_RIGHT_EYE, _LEFT_EYE, _BRIDGE, _NOSE_TIP, _CHIN = 36, 45, 27, 30, 8


def check_head(vertices: ArrayLike, landmarks68: ArrayLike, mm_per_unit: float, where: str) -> None:
    """Raise MeshError unless the vertices [V, 3] (mm) look like a head in the common frame.

    +y up, +z out of the face, +x the subject's left. `mm_per_unit` is the factor with which they were converted, `where`
    names the file: both are for the message.
    """
    lm = np.asarray(vertices, dtype=np.float64)[np.asarray(landmarks68)]
    canthi = float(np.linalg.norm(lm[_LEFT_EYE] - lm[_RIGHT_EYE]))
    if not CANTHI_MM[0] <= canthi <= CANTHI_MM[1]:
        raise MeshError(
            f"{where}: the outer eye corners are {canthi:.4g} mm apart, expected {CANTHI_MM[0]:.0f} to {CANTHI_MM[1]:.0f}: "
            + _unit_advice(canthi, mm_per_unit)
        )
    lateral = lm[_LEFT_EYE, 0] - lm[_RIGHT_EYE, 0]
    up = lm[_BRIDGE, 1] - lm[_CHIN, 1]
    forward = lm[_NOSE_TIP, 2] - lm[[_LEFT_EYE, _RIGHT_EYE], 2].mean()
    if lateral > 0.5 * canthi and up > 0.5 * canthi and forward > 0.1 * canthi:
        _check_pairs(lm, canthi, where)
        return
    if lateral < -0.5 * canthi and up > 0.5 * canthi and forward < 0:
        what = "it faces backward: turn it by 180 degrees about y"
    elif lateral < -0.5 * canthi and up > 0.5 * canthi:
        what = "left and right are exchanged: its x axis must point to the subject's left (a mirrored export?)"
    else:
        what = "it is not upright and facing forward, or its landmarks belong to another topology"
    raise MeshError(f"{where}: {what}; the frame is +y up, +z out of the face, +x to the subject's left")


def _check_pairs(lm: Floats, canthi: float, where: str) -> None:
    """Brows, eyes and nose must be roughly mirror images; mouth and jaw may be drawn to one side."""
    middle = lm[[_RIGHT_EYE, _LEFT_EYE], 0].mean()
    right, left = lm[_PAIRS[:, 0]], lm[_PAIRS[:, 1]]
    mirrored = right * [-1, 1, 1] + [2 * middle, 0, 0]
    apart = np.linalg.norm(mirrored - left, axis=1)
    worst = int(apart.argmax())
    if apart[worst] > 0.25 * canthi:
        a, b = _PAIRS[worst]
        raise MeshError(
            f"{where}: landmarks {a} and {b} are not each other's mirror image, by {apart[worst]:.0f} mm; the landmarks belong to "
            "another topology, or the head is turned away"
        )


def _unit_advice(canthi: float, mm_per_unit: float) -> str:
    if canthi <= 0 or not np.isfinite(canthi):
        return "the landmarks belong to another topology, or the mesh is empty"
    scale = min(_SCALES, key=lambda s: abs(np.log(s * canthi / mm_per_unit / _TYPICAL_CANTHI)))
    if scale != mm_per_unit and CANTHI_MM[0] <= canthi / mm_per_unit * scale <= CANTHI_MM[1]:
        return (
            f"the file seems to be in {_SCALES[scale]}; give mm_per_unit={scale:g} (it was read with {mm_per_unit:g})"
        )
    factor = _TYPICAL_CANTHI / canthi
    return f"a scale error of about {factor:.3g}, or landmarks of another topology (it was read with mm_per_unit={mm_per_unit:g})"
