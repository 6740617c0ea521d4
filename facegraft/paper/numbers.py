"""The numbers that Gu & Pears (VISAPP 2024, doi 10.5220/0012423200003660) printed in their Tables 1 to 4.

SCD in mm, F in per cent at a distance of 0.01 (1 mm, by their scale).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from facegraft_model.evaluation.records import FULL

from facegraft.vocabulary import REM

OURS, FIVE = "Ours", "Five"
_COLUMNS = (FULL, "nose", "eyes", "mouth", REM)
_ABLATED = _COLUMNS[:-1]


@dataclass(frozen=True)
class Row:
    """A method's printed scores by region."""

    scd_mm: Mapping[str, float]
    f_percent: Mapping[str, float]


@dataclass(frozen=True)
class Published:
    """A data set's tables: number of each in the paper, and rows by the paper's name of the method."""

    data: str
    reconstruction_table: int
    reconstruction_figure: int
    reconstruction: Mapping[str, Row]
    landmarks_table: int
    landmarks: Mapping[str, Row]


def _rows(columns: tuple[str, ...], table: Mapping[str, tuple[float, ...]]) -> dict[str, Row]:
    count = len(columns)
    return {
        name: Row(
            dict(zip(columns, values[:count], strict=True)), dict(zip(columns, values[count:], strict=True))
        )
        for name, values in table.items()
    }


HEADSPACE = Published(
    "Headspace",
    1,
    6,
    _rows(
        _COLUMNS,
        {
            "DeepSDF": (0.9809, 1.1972, 1.0740, 0.9027, 0.8612, 70.41, 49.23, 55.00, 63.95, 73.47),
            "i3DMM": (0.9009, 0.7126, 0.5623, 0.6710, 0.8810, 69.61, 79.67, 89.17, 81.73, 70.51),
            "ImFace": (0.6992, 0.7173, 0.6966, 0.7077, 0.7357, 84.22, 75.71, 79.92, 78.07, 80.93),
            OURS: (0.7184, 0.7093, 0.6496, 0.5910, 0.7207, 82.03, 81.75, 84.57, 87.26, 82.13),
        },
    ),
    4,
    _rows(
        _ABLATED,
        {
            OURS: (0.7218, 0.6884, 0.6395, 0.5772, 81.66, 82.89, 84.72, 88.73),
            FIVE: (0.7778, 0.7251, 0.6538, 0.5810, 79.91, 79.84, 83.64, 88.94),
        },
    ),
)

FACESCAPE = Published(
    "FaceScape",
    2,
    5,
    _rows(
        _COLUMNS,
        {
            "DeepSDF": (1.9393, 2.0287, 1.5491, 1.462, 1.982, 25.69, 27.28, 35.21, 37.56, 27.39),
            "FLAME": (1.483, 0.623, 0.803, 0.717, 0.695, 75.78, 87.23, 72.08, 76.78, 84.00),
            "i3DMM": (0.875, 0.622, 0.564, 0.652, 0.693, 74.91, 86.56, 89.40, 81.74, 84.19),
            "ImFace": (0.567, 0.578, 0.582, 0.607, 0.570, 94.81, 90.15, 88.75, 84.85, 96.40),
            OURS: (0.598, 0.558, 0.579, 0.585, 0.519, 92.86, 91.41, 89.40, 86.67, 96.52),
        },
    ),
    3,
    _rows(
        _ABLATED,
        {
            OURS: (0.5639, 0.5919, 0.6093, 0.5887, 95.09, 89.25, 87.20, 86.59),
            FIVE: (0.5731, 0.6133, 0.6608, 0.6525, 94.21, 87.71, 82.99, 82.10),
        },
    ),
)

BY_KIND = {"flame": HEADSPACE, "facescape": FACESCAPE}
"""The tables whose data a kind of `ingest` reads."""
