"""The colour scale for lengths on heads: it starts at clay (0) and its steps look equally large."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.ticker import MaxNLocator

from facegraft.arrays import Floats
from facegraft.colours import CLAY
from facegraft.report.clay import rgb
from facegraft.report.errors import ReportError

ANCHORS = (CLAY, "#f2ab45", "#dc4f3c", "#96205f", "#3c1358")
"""Clay, amber, red, plum, indigo: each darker than the one before, so that the order is visible in grey too."""

NICE = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)

# OKLab (B. Ottosson, A perceptual color space for image processing, 2020): linear sRGB → cone responses → cube roots → Lab.
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def oklab(colours: Floats) -> Floats:
    """OKLab coordinates [n, 3] of sRGB colours [n, 3] in 0..1: lightness, green to red, blue to yellow."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    return np.asarray(np.cbrt(linear @ _TO_CONES.T) @ _TO_LAB.T)


def from_oklab(lab: Floats) -> Floats:
    """sRGB colours [n, 3] in 0..1 of OKLab coordinates [n, 3], clipped to the gamut."""
    linear = np.clip((lab @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_CONES).T, 0, 1)
    return np.asarray(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


def length_colours(steps: int = 256) -> ListedColormap:
    """The colour map, `steps` colours at equal distances in OKLab along the polygon through ANCHORS."""
    corners = oklab(np.stack([rgb(colour) for colour in ANCHORS]))
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
    wanted = np.linspace(0.0, along[-1], steps)
    lab = np.column_stack([np.interp(wanted, along, corners[:, axis]) for axis in range(3)])
    return ListedColormap(from_oklab(lab).tolist(), name="length")


def nice_limit(values: Sequence[Floats]) -> float:
    """The end of the scale for these values (≥ 0): their 98th percentile, rounded up to a round number; 1 if all are 0.

    Values under a twentieth of the 99.5th percentile are ignored: where only one part of the face moved, the scale is
    set by that part.
    """
    together = np.concatenate([np.ravel(part) for part in values])
    counted = together[together > 0.05 * np.percentile(together, 99.5)]
    if not len(counted):
        return 1.0
    top = float(np.percentile(counted, 98))
    power = 10.0 ** np.floor(np.log10(top))
    return float(next(step for step in NICE if step * power >= top * (1 - 1e-9)) * power)


def ticks(limit: float) -> list[float]:
    """Round numbers from 0 to `limit`, including both ends. Raises ReportError unless the limit is a positive number."""
    if not (np.isfinite(limit) and limit > 0):
        raise ReportError(
            f"the end of the colour scale is {limit} mm; give a positive number, or none to choose it by the values"
        )
    inner = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(0, limit)
    space = inner[1] - inner[0]
    return [float(tick) for tick in inner if -1e-9 < tick < limit - 0.4 * space] + [limit]
