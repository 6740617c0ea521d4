"""A disk's outline in the face chart: a smooth curve through the control points of a region set.

Control points are ratios of distances between landmarks, so one description fits every topology and every size of head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facegraft.arrays import Floats
from facegraft.geometry.outline import Outline, catmull_rom
from facegraft.regions.expressions import evaluate
from facegraft.regions.landmarks import MIRROR68
from facegraft.regions.regionsets import OutlineSpec


@dataclass(frozen=True)
class DiskOutline:
    """The outline of one disk in the chart, and the line inside it that its loop must go around.

    Midline disks start at their top on the midline and run down the subject's left side; `medial` is an open polyline
    from the midline (or the inner end) outward, see `whole_medial`; `seed` is a landmark of the disk or a point [2]. No loop comes nearer than
    `margin` to the features `core` (polygons of lid landmarks, lip corners), so that a seam does not touch their corners.
    """

    name: str
    outline: Outline
    medial: Floats
    midline: bool
    seed: int | Floats
    core: tuple[Floats, ...] = ()
    margin: float = 0.0


    @property
    def whole_medial(self) -> Floats:
        """The line [n, 2] that a closed loop goes around: of a midline disk both halves, from the right end to the left one."""
        if not self.midline or not (np.abs(self.medial[:, 0]) > 0).any():
            return self.medial
        right = self.medial[::-1] * [-1.0, 1.0]
        return np.vstack([right[:-1] if self.medial[0, 0] == 0 else right, self.medial])


def keeps_off(disk: DiskOutline, flat: Floats) -> NDArray[np.bool_]:
    """Mask of the chart points [N] that lie at least the disk's margin outside its features."""
    clear = np.ones(len(flat), dtype=bool)
    for polygon in disk.core:
        feature = Outline(polygon)
        clear &= (feature.nearest(flat)[0] >= disk.margin) & ~feature.contains(flat)
    return clear


def outline_of(
    name: str, spec: OutlineSpec, flat: ArrayLike, places: Mapping[str, float] | None = None
) -> DiskOutline:
    """The outline of a disk from the mirror-symmetric landmarks [68, 2] in the chart.

    `places`: further names for expressions, as `regions.ears` measures them. Raises ValueError, naming the disk, for an
    expression that cannot be computed.
    """
    p = np.asarray(flat, dtype=np.float64)
    names = {f"{axis}{i}": float(p[i, column]) for column, axis in enumerate("xy") for i in range(len(p))}
    names |= places or {}
    try:
        for variable, text in spec.let.items():
            names[variable] = evaluate(text, names)
        control = _points(spec.points, names)
        medial = _points(spec.medial, names)
        margin = evaluate(spec.margin, names)
        seed = spec.seed if isinstance(spec.seed, int) else _points([spec.seed], names)[0]
    except ValueError as error:
        raise ValueError(f"disk {name}: {error}") from error
    if spec.symmetric:
        control = np.vstack([control, control[-2:0:-1] * [-1.0, 1.0]])
    core = tuple(p[list(marks)] for marks in spec.features)
    return DiskOutline(name, Outline(catmull_rom(control)), medial, spec.symmetric, seed, core, margin)


def mirrored_outline(disk: DiskOutline, name: str) -> DiskOutline:
    """The same outline on the other side of the face."""
    flip = np.array([-1.0, 1.0])
    core = tuple(polygon * flip for polygon in disk.core)
    seed = int(MIRROR68[disk.seed]) if isinstance(disk.seed, int) else disk.seed * flip
    return DiskOutline(name, Outline(disk.outline.points[::-1] * flip), disk.medial * flip, disk.midline, seed, core, disk.margin)


def _points(rows: Sequence[Sequence[str | float]], names: Mapping[str, float]) -> Floats:
    return np.array([[evaluate(text, names) for text in row] for row in rows], dtype=np.float64)
