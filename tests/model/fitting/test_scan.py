"""Scans as a fit takes them (points in millimetres, evenly over a mesh or as a cloud has them, refusals that name the file), and the pose and
fit of partial ones by the model that ships."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from facegraft_model.errors import ModelError
from facegraft_model.fitting.fit import FittedCodes
from facegraft_model.fitting.plausible import check_extent, check_given_landmarks, check_points, judged
from facegraft_model.fitting.poses import first_pose
from facegraft_model.fitting.scan import Align, _outward, fit_scan
from facegraft_model.fitting.scanfile import SURFACE_SAMPLES, Scan, read_scan
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


def tensors(points: NDArray[np.float64]) -> tuple[torch.Tensor, torch.Tensor]:
    """A cloud's points and its normals, which are unknown."""
    return torch.from_numpy(points).float(), torch.zeros(len(points), 3)


def scan_of(points: NDArray[np.float64]) -> Scan:
    return Scan(*tensors(points), {})


@pytest.mark.parametrize(("turn", "seed"), [((40, 10, -15), 1), ((-35, -20, 20), 2)])
def test_the_front_of_a_turned_head_is_found_and_fitted(field: Field, turn: tuple[float, ...], seed: int) -> None:
    points = front(field, seed)
    placed = Rotation.from_euler("yxz", turn, degrees=True).apply(points) + np.array([30.0, -20.0, 50.0])
    scan = Scan(torch.from_numpy(placed).float(), torch.zeros(len(placed), 3), {})

    def misplaced(matrix: NDArray[np.float64]) -> float:
        found = field.mm_per_unit * (placed @ matrix[:3, :3].T + matrix[:3, 3])
        return float(np.linalg.norm(found - points, axis=1).mean())

    aligned = first_pose(field, scan, similarity=False)
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
    with pytest.raises(ModelError, match=r"few\.npy: holds 99 points; a fit needs at least 100"):
        read_scan(tmp_path / "few.npy", 1.0, None, seed=0)
    with pytest.raises(MeshError, match=r"gone\.ply: cannot be read"):
        read_scan(tmp_path / "gone.ply", 1.0, None, seed=0)


def test_a_scan_far_from_the_origin_loses_no_digits(field: Field, tmp_path: Path) -> None:
    points, far = front(field, 1), np.array([5e7, -3e7, 1000.0])
    (tmp_path / "marks.json").write_text(json.dumps({"30": (points[0] + far).tolist()}))
    scans = {}
    for name, shift in (("near", np.zeros(3)), ("far", far)):
        np.save(tmp_path / f"{name}.npy", points + shift)
        scans[name] = read_scan(tmp_path / f"{name}.npy", 1.0, tmp_path / "marks.json", seed=0)
    assert scans["near"].centre == (0.0, 0.0, 0.0)
    centre = np.array(scans["far"].centre)
    np.testing.assert_allclose(scans["far"].points.numpy() + centre - far, scans["near"].points.numpy(), atol=1e-4)
    np.testing.assert_allclose(scans["far"].landmarks[30] + centre, points[0] + far)
    with pytest.raises(ModelError, match=r"it lies 50,000 m from the origin, so not in the model's frame, as --align none says; use --align rigid"):
        fit_scan(field, replace(scans["far"], landmarks={}), field.config.fit, align="none")


def test_points_that_are_there_twice_count_once(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(150, 3))
    np.save(tmp_path / "scan.npy", np.concatenate([points, np.zeros((5000, 3)), points[:50]]))
    assert len(read_scan(tmp_path / "scan.npy", 1.0, None, seed=0).points) == 151


def test_a_shape_that_no_head_has_is_said(field: Field) -> None:
    points = front(field, 1)
    start = torch.diag(torch.tensor([1 / field.mm_per_unit] * 3 + [1.0], dtype=torch.float64))
    draw = torch.Generator().manual_seed(0)
    for times, said in ((1.0, False), (40.0, True)):
        codes = {}
        for name, dim in field.code_dims.items():
            mean, covariance = field.code_statistics(name)
            codes[name] = (mean + times * torch.linalg.cholesky(covariance + 1e-6 * torch.eye(dim)) @ torch.randn(dim, generator=draw))[None]
        judgement = judged(field, *tensors(points), FittedCodes(codes, torch.zeros(1)), start)
        assert judgement.unlike == pytest.approx(times, rel=0.3)
        assert any("times as far from the mean head as the model's own heads are" in text for text in judgement.warnings) == said


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.full((5000, 3), 7.0), "holds 5000 points, of which 1 differ; a fit needs at least 100"),
        (np.linspace(-90, 90, 5000)[:, None] * [1.0, 0.5, 0.2], "its points lie on a line"),
        (np.random.default_rng(0).uniform(-90, 90, (5000, 3)) * [1.0, 1.0, 0.0], "its points lie in a plane"),
    ],
)
def test_points_that_are_no_surface_are_refused(tmp_path: Path, points: NDArray[np.float64], message: str) -> None:
    np.save(tmp_path / "scan.npy", points)
    with pytest.raises(ModelError, match=r"scan\.npy: " + message):
        read_scan(tmp_path / "scan.npy", 1.0, None, seed=0)


@pytest.mark.parametrize(
    ("factor", "advice"),
    [
        (1e-3, "in metres; give --unit-mm 1000"),
        (0.1, "in centimetres; give --unit-mm 10"),
        (1 / 25.4, "in inches; give --unit-mm 25.4"),
        (20.0, "no usual unit makes it one"),
    ],
)
@pytest.mark.parametrize("align", ["none", "rigid", "similarity"])
def test_a_scan_in_another_unit_is_refused_with_the_right_one(field: Field, factor: float, advice: str, align: Align) -> None:
    points = factor * front(field, 1)
    with pytest.raises(ModelError, match=rf"mm large, which is no face: .*{advice}"):
        fit_scan(field, scan_of(points), field.config.fit, align=align)


@pytest.mark.parametrize("size", [0.75, 1.3])
def test_small_and_large_heads_and_parts_of_faces_have_a_size_that_is_accepted(field: Field, size: float) -> None:
    points = size * front(field, 1)
    for part in (points, points[points[:, 0] > 0], points[np.linalg.norm(points - points[points[:, 2].argmax()], axis=1) < 45]):
        check_extent(field, part, 1.0)
        check_points(part)


@pytest.mark.slow
def test_a_profile_is_not_fitted_by_a_shape_that_no_head_has(field: Field) -> None:
    """Without the look at the codes, points turned by 90 degrees about the vertical are followed closely, in a pose that is wrong."""
    points = front(field, 1)
    placed = Rotation.from_euler("y", 90, degrees=True).apply(points)
    _, matrix = fit_scan(field, scan_of(placed), replace(field.config.fit, surface=400, robust_mm=2.0))
    found = field.mm_per_unit * (placed @ matrix[:3, :3].numpy().T + matrix[:3, 3].numpy())
    assert np.linalg.norm(found - points, axis=1).mean() < FITTED_MM


@pytest.mark.parametrize("axis", ["x", pytest.param("y", marks=pytest.mark.slow), pytest.param("z", marks=pytest.mark.slow)])
def test_a_scan_on_its_side_is_turned_and_that_is_said(field: Field, axis: str) -> None:
    points = front(field, 1)
    placed = Rotation.from_euler(axis, 90 if axis == "x" else 180, degrees=True).apply(points)
    fit = replace(field.config.fit, surface=400, robust_mm=2.0)
    fitted, matrix = fit_scan(field, scan_of(placed), fit)
    found = field.mm_per_unit * (placed @ matrix[:3, :3].numpy().T + matrix[:3, 3].numpy())
    assert np.linalg.norm(found - points, axis=1).mean() < FITTED_MM
    (warning,) = judged(field, *tensors(placed), fitted, matrix).warnings
    ahead = {"y": "its head points to \\+y, its face to -z", "z": "-y, its face to \\+z", "x": "\\+z, its face to -y"}[axis]
    assert re.search(rf"turned by (90|89|91|180|179) degrees.*{ahead}", warning), warning


def test_half_a_face_is_found_beside_the_middle(field: Field) -> None:
    points = front(field, 1)
    half = points[points[:, 0] > 0]
    fitted, matrix = fit_scan(field, scan_of(half), replace(field.config.fit, surface=400, robust_mm=2.0))
    found = field.mm_per_unit * (half @ matrix[:3, :3].numpy().T + matrix[:3, 3].numpy())
    assert np.linalg.norm(found - half, axis=1).mean() < 2 * FITTED_MM
    judgement = judged(field, *tensors(half), fitted, matrix)
    assert judgement.covered is not None and 0.3 < judgement.covered < 0.7
    assert judgement.warnings == ()


@pytest.mark.slow
def test_a_similarity_keeps_the_size_among_outliers(field: Field) -> None:
    share = 0.25
    points, rng = front(field, 1), np.random.default_rng(0)
    stray = rng.uniform(-400, 400, (int(len(points) * share / (1 - share)), 3))
    fit = replace(field.config.fit, surface=300, steps=20, robust_mm=2.0)
    all_points = np.concatenate([points, stray])
    fitted, matrix = fit_scan(field, scan_of(all_points), fit, align="similarity")
    judgement = judged(field, *tensors(all_points), fitted, matrix)
    assert judgement.scale == pytest.approx(1.0, abs=0.1)
    assert judgement.near == pytest.approx(1 - share, abs=0.07)


def test_normals_that_face_inward_are_taken_the_other_way_and_that_is_said(field: Field) -> None:
    vertices = field.mm_per_unit * field.template_points.double().numpy()
    points = vertices[vertices[:, 2] > 0]
    codes = {name: field.code_statistics(name).mean[None] for name in field.code_dims}
    with torch.no_grad():
        outward = field.sdf_and_grad(torch.from_numpy(points / field.mm_per_unit).float()[None], codes).grad[0]
    outward = torch.nn.functional.normalize(outward, dim=1)
    start = np.diag([1 / field.mm_per_unit] * 3 + [1.0])
    for sign in (1.0, -1.0):
        scan = Scan(torch.from_numpy(points).float(), sign * outward, {})
        assert torch.equal(_outward(field, scan, start), outward)
        judgement = judged(field, scan.points, scan.normals, FittedCodes(codes, torch.zeros(1)), torch.from_numpy(start))
        assert [text[:33] for text in judgement.warnings] == ([] if sign > 0 else ["its normals (the order of its tri"])
    mixed = outward * torch.from_numpy(np.random.default_rng(0).choice([1.0, -1.0], (len(outward), 1))).float()
    scan = Scan(torch.from_numpy(points).float(), mixed, {})
    assert not _outward(field, scan, start).any(), "they tell nothing"
    (warning,) = judged(field, scan.points, mixed, FittedCodes(codes, torch.zeros(1)), torch.from_numpy(start)).warnings
    assert re.search(r"disagree with the fitted head's at (4|5)\d %", warning)


def test_landmarks_in_another_unit_are_refused(field: Field) -> None:
    points = front(field, 1)
    marks = dict(enumerate(field.mm_per_unit * field.template_landmarks.double().numpy()))
    check_given_landmarks(points, marks, 1.0, unit_known=True)
    with pytest.raises(ModelError, match=r"landmarks 36 and 45, the outer eye corners, are .* apart, .*give --unit-mm 1000"):
        fit_scan(field, replace(scan_of(points), landmarks={i: p / 1000 for i, p in marks.items()}), field.config.fit)
    with pytest.raises(ModelError, match="the landmarks lie beside it"):
        fit_scan(field, replace(scan_of(points), landmarks={i: p + 300 for i, p in marks.items()}), field.config.fit)


def test_few_points_of_a_face_are_said_to_be_few(field: Field) -> None:
    points = front(field, 1)
    eye = points[np.linalg.norm(points - field.mm_per_unit * field.template_landmarks[40].numpy(), axis=1) < 20]
    codes = {name: field.code_statistics(name).mean[None] for name in field.code_dims}
    start = torch.diag(torch.tensor([1 / field.mm_per_unit] * 3 + [1.0], dtype=torch.float64))
    warnings = judged(field, *tensors(eye), FittedCodes(codes, torch.zeros(1)), start).warnings
    assert any(re.search(r"covers \d+ % of the face: the rest .* is the model's guess", text) for text in warnings)


def test_a_fit_to_a_scan_needs_points_on_the_surface(field: Field) -> None:
    """DeepSDF's fit of samples has none, and a scan has no others."""
    with pytest.raises(ModelError, match=r"fit\.surface=0: a scan has points on its surface only; give --set fit\.surface=8000"):
        fit_scan(field, Scan(torch.zeros(9, 3), torch.zeros(9, 3), {}), replace(field.config.fit, surface=0))
