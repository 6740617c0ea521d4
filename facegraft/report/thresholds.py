"""Thresholds of a good graft, as drawn in the histograms. Measured on pairs of random ICT heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facegraft.regions.regionmap import Disk

SEAM_RMS_MEDIAN_DEG, SEAM_RMS_P95_DEG, SEAM_MAX_MEDIAN_DEG = 2.5, 5.0, 9.0
FLIPS_PER_COMPOSITE = 1.0

ALL_PARTS = "all parts"


@dataclass(frozen=True)
class Check:
    """One measured figure of one part (a disk, or ALL_PARTS) and its threshold."""

    figure: str
    part: str
    measured: float
    threshold: float
    unit: str

    @property
    def within(self) -> bool:
        return self.measured <= self.threshold


def residual_thresholds(disks: Mapping[str, Disk], stiffness: float) -> dict[str, float]:
    """For each disk of the region set, the largest good median of the loop residual in mm, if known for this stiffness."""
    if stiffness > 0.1:
        return {}
    column = 1 if stiffness == 0.0 else 0
    return {name: disk.residual_mm[column] for name, disk in disks.items() if disk.residual_mm is not None}


def checks(
    columns: Mapping[str, NDArray[np.float64]],
    disks: list[str],
    residual: Mapping[str, float],
) -> list[Check]:
    """Every figure that has a threshold; `columns` are those of the composites' index, without self-grafts.

    residual: as `residual_thresholds` gives them.
    """

    def p95(values: NDArray[np.float64]) -> float:
        return float(np.percentile(values, 95))

    def median(values: NDArray[np.float64]) -> float:
        return float(np.median(values))

    found: list[Check] = []
    for disk in disks:
        if disk in residual:
            found.append(
                Check(
                    "residual on the loop, median", disk, median(columns[f"{disk}_residual_mm"]), residual[disk], " mm"
                )
            )
        wanted: list[tuple[str, str, Callable[[NDArray[np.float64]], float], float]] = [
            ("seam_excess_rms_deg", "seam excess RMS, median", median, SEAM_RMS_MEDIAN_DEG),
            ("seam_excess_rms_deg", "seam excess RMS, 95th percentile", p95, SEAM_RMS_P95_DEG),
            ("seam_excess_max_deg", "largest seam excess, median", median, SEAM_MAX_MEDIAN_DEG),
        ]
        found += [
            Check(what, disk, measure(columns[f"{disk}_{name}"]), limit, "°") for name, what, measure, limit in wanted
        ]
    # Measured for the disks whose residual is known; a disk that joins several features has more flipped faces.
    flips = [columns[f"{disk}_flips"] for disk in disks if disk in residual]
    if flips:
        found.append(
            Check(
                "flipped faces per composite, mean",
                ALL_PARTS,
                float(np.sum(flips, axis=0).mean()),
                FLIPS_PER_COMPOSITE,
                "",
            )
        )
    return found
