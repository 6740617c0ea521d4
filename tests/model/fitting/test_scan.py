"""Scans as a fit takes them (points in millimetres, evenly over a mesh or as a cloud has them, refusals that name the file), and the pose and
fit of partial ones by the model that ships."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from facegraft_model.errors import ModelError
from facegraft_model.fitting.scan import SURFACE_SAMPLES, Scan, _initial_pose, fit_scan, read_scan
from facegraft_model.method import Field
from facegraft_model.models import load_field
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from facegraft.geometry.clipping import icosphere
from facegraft.meshfiles import MeshError, write_mesh

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


def test_a_mesh_is_sampled_evenly_over_its_area_in_mm(tmp_path: Path) -> None:
    vertices, faces = icosphere(4)
    write_mesh(tmp_path / "scan.ply", 0.1 * vertices, faces)
    scan = read_scan(tmp_path / "scan.ply", 1000.0, None, seed=0)
    points, normals = scan.points.numpy(), scan.normals.numpy()
    assert points.shape == normals.shape == (SURFACE_SAMPLES, 3)
    assert np.abs(np.linalg.norm(points, axis=1) - 100.0).max() < 0.3
    assert (points * normals).sum(axis=1).min() > 99.0, "normals point outward"
    octants = np.bincount((points > 0) @ np.array([1, 2, 4])) / len(points)
    assert np.abs(octants - 1 / 8).max() < 0.01
    assert np.array_equal(read_scan(tmp_path / "scan.ply", 1000.0, None, seed=0).points, scan.points)
    assert not np.array_equal(read_scan(tmp_path / "scan.ply", 1000.0, None, seed=1).points, scan.points)


def test_a_cloud_keeps_its_points_and_landmarks_share_its_unit(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(150, 3))
    np.save(tmp_path / "scan.npy", points)
    (tmp_path / "marks.json").write_text(json.dumps({"30": [0.0, 0.1, 0.2]}))
    scan = read_scan(tmp_path / "scan.npy", 10.0, tmp_path / "marks.json", seed=0)
    order = np.lexsort(scan.points.numpy().T)
    np.testing.assert_allclose(scan.points.numpy()[order], 10.0 * points[np.lexsort(points.T)], rtol=1e-6)
    assert not scan.normals.any()
    np.testing.assert_allclose(scan.landmarks[30], [0.0, 1.0, 2.0])


def test_refusals_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "flat.obj").write_text("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n")
    with pytest.raises(ModelError, match=r"flat\.obj: cannot sample the surface: its area is zero"):
        read_scan(tmp_path / "flat.obj", 1.0, None, seed=0)
    np.save(tmp_path / "few.npy", np.zeros((99, 3)))
    with pytest.raises(ModelError, match=r"few\.npy holds 99 points; a fit needs at least 100"):
        read_scan(tmp_path / "few.npy", 1.0, None, seed=0)
    with pytest.raises(MeshError, match=r"gone\.ply: cannot be read"):
        read_scan(tmp_path / "gone.ply", 1.0, None, seed=0)


def test_a_fit_to_a_scan_needs_points_on_the_surface(field: Field) -> None:
    """DeepSDF's fit of samples has none, and a scan has no others."""
    with pytest.raises(ModelError, match=r"fit\.surface=0: a scan has points on its surface only; give --set fit\.surface=8000"):
        fit_scan(field, Scan(torch.zeros(9, 3), torch.zeros(9, 3), {}), replace(field.config.fit, surface=0))
