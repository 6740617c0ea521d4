"""Where the parts' outlines run: control points as ratios of landmark positions in the face chart.

Only the left half (x > 0) is written down; outlines are mirror symmetric. All numbers are fractions of distances
between landmarks, so one description serves every topology and every size of head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facegraft.geometry.outline import Outline, catmull_rom

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PartOutline:
    """The outline of one part in the chart, and the line inside it that its loop must go around.

    Midline parts start at their top on the midline and run down the subject's left side; `medial` is an open polyline
    from the midline (or the inner eye corner) outward; `seed` is a landmark of the part. No loop comes nearer than
    `margin` to the features `core` (polygons of lid landmarks, lip corners), so that a seam keeps off their corners.
    """

    name: str
    outline: Outline
    medial: Floats
    midline: bool
    seed: int
    core: tuple[Floats, ...] = ()
    margin: float = 0.0


def keeps_off(part: PartOutline, flat: Floats) -> NDArray[np.bool_]:
    """Which chart points [N] lie at least the part's margin outside its features."""
    clear = np.ones(len(flat), dtype=bool)
    for polygon in part.core:
        feature = Outline(polygon)
        clear &= (feature.nearest(flat)[0] >= part.margin) & ~feature.contains(flat)
    return clear


def part_outlines(flat: ArrayLike) -> dict[str, PartOutline]:
    """Outlines of `nose`, `mouth`, `eye_left` and `goggles` from mirror-symmetric landmarks [68, 2] in the chart."""
    p = np.asarray(flat, dtype=np.float64)
    return {part.name: part for part in (_nose(p), _mouth(p), _eye_left(p), _goggles(p))}


def _closed(half: list[tuple[float, float]]) -> Outline:
    """The closed symmetric curve whose left half, from top to bottom, goes through the given points."""
    left = np.array(half)
    right = left[-2:0:-1] * [-1.0, 1.0]
    return Outline(catmull_rom(np.vstack([left, right])))


def _nose(p: Floats) -> PartOutline:
    """Bridge from just above the nasion, flanks, a margin around the alae, and 30 % of the way to the lip."""
    top, base, lip = p[27, 1], p[33, 1], p[51, 1]
    height, width = top - base, p[42, 0]
    bottom = base - 0.30 * (base - lip)
    half = [
        (0.0, top + 0.04 * height),
        (0.40 * width, top - 0.06 * height),
        (0.64 * width, top - 0.30 * height),
        (0.92 * width, top - 0.54 * height),
        (1.13 * width, top - 0.74 * height),
        (1.09 * width, top - 0.93 * height),
        (0.84 * width, base - 0.12 * height),
        (0.45 * width, bottom),
        (0.0, bottom),
    ]
    half[6] = (0.84 * width, base - 0.20 * (base - lip))
    medial = np.array([[0.0, p[28, 1]], [0.0, base]])
    return PartOutline("nose", _closed(half), medial, True, 30)


def _mouth(p: Floats) -> PartOutline:
    """Lips with a margin: 70 % of the way down from the nose, a third of the way to the chin, 15 % beyond the corners."""
    base, lip, low, chin = p[33, 1], p[51, 1], p[57, 1], p[8, 1]
    corner = p[54]
    top, bottom = base - 0.70 * (base - lip), low - 0.33 * (low - chin)
    drop = corner[1] - bottom
    half = [
        (0.0, top),
        (0.35 * corner[0], top - 0.04 * (top - corner[1])),
        (0.74 * corner[0], top - 0.38 * (top - corner[1])),
        (1.06 * corner[0], corner[1] + 0.22 * (top - corner[1])),
        (1.16 * corner[0], corner[1] - 0.12 * drop),
        (1.00 * corner[0], corner[1] - 0.52 * drop),
        (0.68 * corner[0], corner[1] - 0.82 * drop),
        (0.34 * corner[0], corner[1] - 0.97 * drop),
        (0.0, bottom),
    ]
    medial = np.array([[0.0, lip], [0.0, low]])
    return PartOutline("mouth", _closed(half), medial, True, 51, (p[[54, 64]], p[[48, 60]]), 0.08 * corner[0])


def _eye_left(p: Floats) -> PartOutline:
    """Both lids with a margin: half-way to the brow, and less than an eye's half width below the lower lid."""
    inner, outer = p[42], p[45]
    half = 0.5 * (outer[0] - inner[0])
    middle = 0.5 * (inner[0] + outer[0])
    upper, lower = p[[43, 44], 1].mean(), p[[46, 47], 1].mean()
    brow = p[[23, 24, 25], 1].mean()
    top, bottom = upper + 0.52 * (brow - upper), lower - 0.80 * half
    level = 0.5 * (inner[1] + outer[1])
    control = [
        (middle, top),
        (middle + 0.85 * half, level + 0.80 * (top - level)),
        (outer[0] + 0.48 * half, level + 0.22 * (top - level)),
        (outer[0] + 0.24 * half, level - 0.50 * (level - bottom)),
        (middle + 0.60 * half, bottom + 0.10 * (level - bottom)),
        (middle - 0.10 * half, bottom + 0.02 * (level - bottom)),
        (middle - 0.85 * half, level - 0.62 * (level - bottom)),
        (inner[0] - 0.40 * half, level - 0.02 * (level - bottom)),
        (inner[0] + 0.06 * half, level + 0.62 * (top - level)),
    ]
    medial = np.array([inner, [middle, level], outer])
    return PartOutline("eye_left", Outline(catmull_rom(control)), medial, False, 44, (p[42:48],), 0.28 * half)


def _goggles(p: Floats) -> PartOutline:
    """Brows, glabella and both eyes in one piece: from above the brows to below the lids, above the nose part."""
    inner, outer = p[42], p[45]
    half = 0.5 * (outer[0] - inner[0])
    middle = 0.5 * (inner[0] + outer[0])
    lower, upper = p[[46, 47], 1].mean(), p[[43, 44], 1].mean()
    level = 0.5 * (inner[1] + outer[1])
    bottom = lower - 0.80 * half
    margin = 0.36 * (p[[23, 24, 25], 1].mean() - upper)
    height = p[27, 1] - p[33, 1]
    bridge = p[27, 1] + 0.15 * height
    control = [
        (0.0, p[[22, 23], 1].mean() + margin),
        (p[23, 0], p[[23, 24], 1].mean() + margin),
        (p[24, 0] + 0.3 * (p[25, 0] - p[24, 0]), p[24, 1] + margin),
        (p[25, 0] + 0.3 * (p[26, 0] - p[25, 0]), p[25, 1] + 0.55 * margin),
        (p[26, 0] + 0.14 * half, p[26, 1] - 0.1 * margin),
        (max(p[26, 0] - 0.05 * half, outer[0] + 0.55 * half), level + 0.05 * (level - bottom)),
        (outer[0] + 0.22 * half, level - 0.55 * (level - bottom)),
        (middle + 0.60 * half, bottom + 0.10 * (level - bottom)),
        (middle - 0.10 * half, bottom + 0.02 * (level - bottom)),
        (middle - 0.85 * half, level - 0.62 * (level - bottom)),
        (inner[0] - 0.34 * half, level + 0.05 * (level - bottom)),
        (0.5 * inner[0], bridge - 0.04 * height),
        (0.0, bridge),
    ]
    between = 0.5 * (bridge + p[[22, 23], 1].mean() + margin)
    medial = np.array([[0.0, between], [inner[0], level + 0.5 * (between - level)], [middle, level], outer])
    return PartOutline("goggles", _closed(control), medial, True, 44, (p[36:42], p[42:48]), 0.28 * half)
