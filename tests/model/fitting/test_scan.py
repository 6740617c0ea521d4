"""A partial scan in any pose, by the model that ships: its alignment to the template, and its fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from facegraft_model.fitting.scan import Scan, _initial_pose, fit_scan
from facegraft_model.method import Field
from facegraft_model.models import load_field
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

FRONT = 0.1
"""The scan's points have a larger z than this, in units: a face without the back of the head."""
ALIGNED_MM, FITTED_MM, ERROR_MM = 15.0, 1.5, 0.15
"""Largest mean misplacement of the points by the alignment and by the fit, and the mean distance that the fit leaves."""


@pytest.fixture(scope="module")
def field() -> Field:
    return load_field("ict-head")


def front(field: Field, seed: int) -> NDArray[np.float64]:
    """Points [n,3] in mm of the front of a random head."""
    draw = torch.Generator().manual_seed(seed)
    codes = {name: 0.7 * torch.randn(1, dim, generator=draw) for name, dim in field.code_dims.items() if name != "exp"}
    with torch.no_grad():
        points = field.unwarp(field.template_points[None], codes)[0]
    return np.asarray(field.mm_per_unit * points[points[:, 2] > FRONT].double())


@pytest.mark.parametrize(("turn", "seed"), [((40, 10, -15), 1), ((-35, -20, 20), 2)])
def test_the_front_of_a_turned_head_is_found_and_fitted(field: Field, turn: tuple[float, ...], seed: int) -> None:
    points = front(field, seed)
    placed = Rotation.from_euler("yxz", turn, degrees=True).apply(points) + np.array([30.0, -20.0, 50.0])
    scan = Scan(torch.from_numpy(placed).float(), torch.zeros(len(placed), 3), {})

    def misplaced(matrix: NDArray[np.float64]) -> float:
        found = field.mm_per_unit * (placed @ matrix[:3, :3].T + matrix[:3, 3])
        return float(np.linalg.norm(found - points, axis=1).mean())

    aligned = _initial_pose(field, scan, np.diag([1 / field.mm_per_unit] * 3 + [1.0]), similarity=False)
    fitted, matrix = fit_scan(field, scan, replace(field.config.fit, surface=400))
    assert misplaced(aligned) < ALIGNED_MM
    assert misplaced(matrix.numpy()) < FITTED_MM
    assert float(fitted.errors_mm) < ERROR_MM
