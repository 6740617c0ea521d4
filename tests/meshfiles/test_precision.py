"""Coordinates that are rounded coarsely are refused, with the step and the cause."""

from __future__ import annotations

import numpy as np
import pytest

from facegraft.meshfiles.errors import MeshError
from facegraft.meshfiles.precision import check_precision

POINTS = np.random.default_rng(0).normal(0, 60, (2000, 3))
FAR = np.array([5e7, 0.0, 0.0])


@pytest.mark.parametrize(
    ("points", "unit_mm", "says"),
    [
        ((POINTS + FAR).astype(np.float32), 1.0, "50,000 m from the origin in numbers of 32 bits, which are rounded there to 4 mm"),
        ((POINTS / 1000 + FAR / 1000).astype(np.float32), 1000.0, "in numbers of 32 bits, which are rounded there to 3.9 mm"),
        (np.round(POINTS), 1.0, "all rounded to 1 mm; export it again with more digits"),
        (np.round(POINTS / 1000, 3), 1000.0, "all rounded to 1 mm"),
        (np.round(POINTS / 10, 1), 10.0, "all rounded to 1 mm"),
    ],
)
def test_coarse_numbers_are_refused(points: np.ndarray, unit_mm: float, says: str) -> None:
    with pytest.raises(MeshError, match=f"^head.obj: its coordinates .*{says}"):
        check_precision(points, unit_mm, "head.obj")


@pytest.mark.parametrize(
    "points",
    [
        POINTS,
        POINTS.astype(np.float32),
        POINTS.astype(np.float16),
        np.round(POINTS, 1),
        np.round(POINTS, 2).astype(np.float32),
        POINTS + FAR,
        np.round(POINTS[:400]),
        np.zeros((2000, 3)),
        (POINTS / 1000).astype(np.float32),
    ],
)
def test_fine_numbers_pass(points: np.ndarray) -> None:
    check_precision(points, 1.0, "head.obj")


def test_a_scanner_may_measure_whole_millimetres() -> None:
    check_precision(np.round(POINTS), 1.0, "scan.npy", scanned=True)
    with pytest.raises(MeshError, match="32 bits"):
        check_precision((POINTS + FAR).astype(np.float32), 1.0, "scan.ply", scanned=True)
