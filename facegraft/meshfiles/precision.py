"""How coarsely the coordinates of a file are rounded: by numbers of 32 bits far from the origin, or by few digits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Floats
from facegraft.meshfiles.errors import MeshError

COARSE_MM = 0.2
"""Coordinates in steps of this make stairs of a smooth face."""
_POWERS = range(3, -10, -1)
_FEWEST = 500
_NEAR = 1e-3
"""Multiples of a step are as near to whole multiples as this share of it; a head's coordinates that are not rounded never all are."""


def check_precision(points: NDArray[Any], mm_per_unit: float, where: str, *, scanned: bool = False) -> None:
    """Raise MeshError where points [n, 3], in units of the file, are rounded to steps of `COARSE_MM` or more; where names the file.

    scanned: few digits do no harm, since a scan has noise, and some scanners measure in whole millimetres.
    """
    values = np.asarray(points, dtype=np.float64)
    if not len(values) or not np.isfinite(values).all():
        return
    step = mm_per_unit * _step_of_32_bits(values)
    if step >= COARSE_MM:
        far = mm_per_unit * np.abs(values).max() / 1000
        raise MeshError(
            f"{where}: its coordinates lie {far:,.0f} m from the origin in numbers of 32 bits, which are rounded there to {step:.2g} mm; "
            "move it to the origin in the program that made it, and export it again"
        )
    step = 0.0 if scanned else mm_per_unit * _step_of_digits(values)
    if step >= COARSE_MM:
        raise MeshError(f"{where}: its coordinates are all rounded to {step:.4g} mm; export it again with more digits")


def _step_of_32_bits(values: Floats) -> float:
    """The largest step that numbers of 32 bits have among these [n, 3]; 0 where they have more bits."""
    columns = [column for column in values.T if (column.astype(np.float32) == column).all()]
    return max((float(np.spacing(np.float32(np.abs(column).max()))) for column in columns), default=0.0)


def _step_of_digits(values: Floats) -> float:
    """The power of ten of which all values [n, 3] are whole multiples; 0 where there is none, and where they are few."""
    if len(values) < _FEWEST:  # a mask of few points may well be made by hand
        return 0.0
    size = np.ptp(values, axis=0).max()
    for power in _POWERS:
        multiples = values * 10.0**-power
        if 10.0**power < size and (np.abs(multiples - np.round(multiples)) < _NEAR).all():
            return 10.0**power
    return 0.0
