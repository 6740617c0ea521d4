"""Fitting a mesh or a partial point cloud from a file: first align it to the model's frame, then fit codes and pose together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from facegraft.seeds import derived_seed
from facegraft.vocabulary import EXP
from facegraft_model.config import FitConfig
from facegraft_model.errors import ModelError
from facegraft_model.fitting.fit import (
    FittedCodes,
    Landmarks,
    Report,
    exact,
    optimise_codes,
    predict_landmarks,
    surface_errors,
)
from facegraft_model.fitting.gaussnewton import MOST_GROWTH, STAGES, Posed, Solution, Stage, gauss_newton
from facegraft_model.fitting.plausible import (
    DOUBTED,
    POOR_FIT_NOISE,
    SAME_SIDE,
    check_extent,
    check_given_landmarks,
    judged,
)
from facegraft_model.fitting.poses import first_pose, other_poses
from facegraft_model.fitting.scanfile import Scan
from facegraft_model.fitting.starts import EXPRESSION_PRECISION, begun
from facegraft_model.method import Batch, Field

Align = Literal["none", "rigid", "similarity"]
QUICK_POINTS, QUICK_STEPS = 1000, 12
"""Points and steps of a fit from another pose; the best is then fitted with all."""
BETTER = 0.7
"""Another pose is taken where it leaves less than this times what the first one leaves."""
COMPARED = 400
"""Points (fewer than twice as many) by which fits from several poses are compared."""
MEAN_HEAD_MM = 15.0
"""A scan lies about this near to the mean head once it is aligned."""
NEAR_SIGMA_MM = 1.0
POSE_RATE = 0.1
"""Learning rate of the pose in units of the codes': both are of the order of 0.1."""


def fit_scan(
    field: Field,
    scan: Scan,
    fit: FitConfig,
    *,
    align: Align = "rigid",
    landmarks: Landmarks = "none",
    seed: int = 0,
    report: Report | None = None,
) -> tuple[FittedCodes, Tensor]:
    """Codes of a scan, and the map f64 [4,4] from its millimetres to the model's unit coordinates.

    align: none (the scan is in the model's frame, in mm about the unit ball's centre), rigid or similarity: it is first aligned to the
    template, by the given landmarks if there are at least three, else by trimmed ICP (Chetverikov et al. 2002) from three initial
    rotations; then the pose is optimised together with the codes. Where that leaves much (`POOR_FIT_NOISE`), or a shape that no head has, Gauss-Newton tries the best of many other
    poses as well, and the one that fits best is taken. A similarity changes the size by at most MOST_GROWTH from that of the unit,
    or of the landmarks. `judged` tells what the result is worth.
    Raises ModelError for a scan that has not the size of a face, landmarks beside it, landmarks=given without landmarks, and where the
    fit has no points on the surface, all that a scan has.
    """
    if fit.surface == 0:
        raise ModelError(
            "fit.surface=0: a scan has points on its surface only; give --set fit.surface=8000"
        )
    if landmarks != "none" and not field.has_warp:
        raise ModelError(
            f"landmarks={landmarks}: method {field.config.model.method} has no map to a template, so landmarks cannot be used"
        )
    if landmarks == "given" and not scan.landmarks:
        raise ModelError("landmarks=given: no landmarks were given; name their file with --landmark-file")
    if align == "none" and any(scan.centre):
        raise ModelError(f"it lies {max(map(abs, scan.centre)) / 1000:,.0f} m from the origin, so not in the model's frame, as --align none says; use --align rigid")
    device = next(field.parameters()).device
    by_landmarks = len(scan.landmarks) >= 3 and align != "none"
    measured = scan.points.numpy().astype(np.float64)
    if scan.landmarks:
        check_given_landmarks(measured, scan.landmarks, scan.unit_mm, align != "similarity")
    if not (by_landmarks and align == "similarity"):
        check_extent(field, measured, scan.unit_mm)
    start = np.diag([1 / field.mm_per_unit] * 3 + [1.0])
    if align != "none":
        start = first_pose(field, scan, align == "similarity")
    if fit.solver == "gauss-newton":

        def solved(pose: NDArray[np.float64], how: FitConfig = fit) -> Fitted:
            return _solved_scan(field, scan, how, torch.from_numpy(pose).float(), align, landmarks, seed, report)

        found = solved(start)
        return found if by_landmarks or align == "none" else _best_pose(field, scan, fit, found, solved)
    pose = Pose(torch.from_numpy(start).float(), align).to(device)
    points, normals = scan.points.to(device), _outward(field, scan, start).to(device)
    known = _known_landmarks(field, scan, pose, landmarks)
    draw = torch.Generator().manual_seed(derived_seed(seed, "scan batches"))
    codes = {name: torch.zeros(1, dtype=torch.int64) for name in field.code_dims}
    fitted = optimise_codes(
        field,
        _batches(points, normals, pose, fit, known, field.mm_per_unit, draw),
        codes,
        fit,
        seed=seed,
        landmarks=known is not None,
        moving=None if align == "none" else (pose, POSE_RATE),
        report=report,
    )
    return fitted, pose.matrix().detach().cpu().double()


Fitted = tuple[FittedCodes, Tensor]


def _best_pose(field: Field, scan: Scan, fit: FitConfig, found: Fitted, solved: Callable[..., Fitted]) -> Fitted:
    """The fit that was found from an upright pose, or a better one from another where it leaves much: the scan may lie on its side, or show
    a part of the face that is not in front of the template's middle. solved(pose, config): a fit."""

    def left(fitted: Fitted) -> tuple[float, bool]:
        """What a fit leaves, and whether its shape is a head's: a supple model follows points in a wrong pose closely, with a shape that no head has."""
        judgement = judged(field, scan.points, scan.normals, *fitted, most=COMPARED)
        rest = judgement.median_mm / max(judgement.near, 1e-3)  # far points, too, tell of a wrong pose
        return rest, (judgement.unlike or 0.0) <= DOUBTED

    enough = POOR_FIT_NOISE * fit.noise_mm
    least, like_a_head = left(found)
    if least <= enough and like_a_head:
        return found
    quick = replace(fit, surface=min(fit.surface, QUICK_POINTS), steps=min(fit.steps, QUICK_STEPS))
    chosen, rest = None, BETTER * least
    # Beside a shape that is no head's, the pose may be a little wrong only: then a good one is near it.
    for start in other_poses(field, scan, [found[1].numpy()] if like_a_head else []):
        tried, good = left(solved(start, quick))
        if tried <= rest:
            chosen, rest = start, tried
            if rest <= enough and good:
                break
    if chosen is None:
        return found
    other = solved(chosen)
    return other if left(other)[0] <= BETTER * least else found


def _solved_scan(
    field: Field,
    scan: Scan,
    fit: FitConfig,
    start: Tensor,
    align: Align,
    landmarks: Landmarks,
    seed: int,
    report: Report | None,
) -> tuple[FittedCodes, Tensor]:
    """Codes and pose by Gauss-Newton, from the same random points of the scan in every step."""
    device = next(field.parameters()).device
    pose = Posed(start.to(device), False)
    draw = torch.Generator().manual_seed(derived_seed(seed, "scan batches"))
    chosen = torch.randperm(len(scan.points), generator=draw)[: fit.surface]
    points = scan.points[chosen].to(device)[None]
    batch = {
        "item": torch.zeros(1, dtype=torch.int64, device=device),
        "surface_points": points,
        # A cloud's normals may face either way, so they say nothing about where its points lie.
        "surface_normals": torch.zeros_like(points),
        **dict.fromkeys(("near_points", "near_normals", "free_points", "free_normals"), points[:, :0]),
        **dict.fromkeys(("near_sdf", "free_sdf"), points[:, :0, 0]),
    }
    known = _known_landmarks(field, scan, pose, landmarks)
    if known is not None:
        batch |= {"landmarks": known[0][None, None], "landmark_targets": known[1][None]}
    if align == "none":
        for name in ("surface_points", "landmarks"):
            if name in batch:
                batch[name] = pose(batch[name])
    moved = None if align == "none" else pose
    rows = {name: torch.zeros(1, dtype=torch.int64) for name in field.code_dims}
    codes = {name: field.code_statistics(name).mean[None].to(device) for name in field.code_dims}
    with exact(field), torch.no_grad():
        trial: Solution | None = None
        left: Sequence[Stage] = STAGES
        if EXP in codes:
            codes[EXP], trial, left = begun(field, batch, fit, codes, moved)
        solution = gauss_newton(
            field,
            batch,
            rows,
            fit,
            codes,
            pose=moved,
            precision=EXPRESSION_PRECISION,
            stages=left,
            warm_start=trial,
            report=None if report is None else lambda done, cost: report(done, fit.steps, cost),
        )
        if align == "similarity":
            # From here the scale is right but for a little. From the start, shrinking would be the easiest way to reduce the distances.
            assert solution.pose is not None
            begin = replace(solution, pose=replace(solution.pose, similarity=True))
            solution = gauss_newton(
                field, batch, rows, fit, codes, pose=pose, precision=EXPRESSION_PRECISION, stages=STAGES[-1:], warm_start=begin
            )
        found = pose if solution.pose is None else solution.pose
        if solution.pose is not None:
            batch["surface_points"] = found(points)
        errors = surface_errors(field, batch, solution.codes, 1)
    fitted = FittedCodes({name: code.cpu() for name, code in solution.codes.items()}, errors)
    return fitted, found.matrix.cpu().double()


class Pose(nn.Module):
    """A trainable map of points: a given start map, followed by a rotation, a shift and (similarity) a scale."""

    start: Tensor

    def __init__(self, start: Tensor, align: Align) -> None:
        super().__init__()
        self.register_buffer("start", start)
        self.turn, self.move = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
        self.grow = nn.Parameter(torch.zeros(()), requires_grad=align == "similarity")

    def rotation(self) -> Tensor:
        """The rotation matrix [3,3]: exp of the cross-product matrix of the rotation vector."""
        x, y, z = self.turn.unbind()
        zero = torch.zeros_like(x)
        cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3)
        return torch.linalg.matrix_exp(cross)

    def matrix(self) -> Tensor:
        """The whole map [4,4]."""
        step = torch.eye(4, device=self.start.device)
        bound = math.log(MOST_GROWTH)
        step = torch.cat([torch.cat([self.grow.clamp(-bound, bound).exp() * self.rotation(), self.move[:, None]], 1), step[3:]], 0)
        return step @ self.start

    def forward(self, points: Tensor) -> Tensor:
        """points [n,3] → [n,3]."""
        matrix = self.matrix()
        return points @ matrix[:3, :3].T + matrix[:3, 3]


def _batches(
    points: Tensor,
    normals: Tensor,
    pose: Pose,
    fit: FitConfig,
    landmarks: tuple[Tensor, Tensor] | None,
    mm_per_unit: float,
    draw: torch.Generator,
) -> Callable[[int], Batch]:
    """Random points of the scan; where normals are known, also points off the surface, whose distance is the offset."""
    scale = mm_per_unit

    def batch_of(_: int) -> Batch:
        chosen = torch.randint(len(points), (fit.surface,), generator=draw).to(points.device)
        rotation = pose.rotation() @ (pose.start[:3, :3] * scale)
        surface, outward = (
            pose(points[chosen])[None],
            torch.nn.functional.normalize(normals[chosen] @ rotation.T, dim=-1)[None],
        )
        count = min(fit.near, fit.surface)
        offset = torch.randn(1, count, 1, generator=draw).to(points.device) * NEAR_SIGMA_MM / scale
        oriented = outward[:, :count].square().sum(-1, keepdim=True) > 0.5
        offset = torch.where(oriented, offset, torch.zeros_like(offset))
        batch = {
            "item": torch.zeros(1, dtype=torch.int64, device=points.device),
            "surface_points": surface,
            "surface_normals": outward,
            "near_points": surface[:, :count] + offset * outward[:, :count],
            "near_normals": outward[:, :count],
            "near_sdf": offset[..., 0],
            "free_points": surface[:, :0],
            "free_normals": outward[:, :0],
            "free_sdf": surface[:, :0, 0],
        }
        if landmarks is not None:
            where, template = landmarks
            batch |= {"landmarks": pose(where)[None, None], "landmark_targets": template[None]}
        return batch

    return batch_of


def _known_landmarks(
    field: Field, scan: Scan, pose: Callable[[Tensor], Tensor], landmarks: Landmarks
) -> tuple[Tensor, Tensor] | None:
    """Landmarks of the scan in mm [k,3] and the template's [k,3]."""
    device = field.template_landmarks.device
    if landmarks == "none":
        return None
    if landmarks == "given":
        ids = sorted(scan.landmarks)
        where = torch.from_numpy(np.stack([scan.landmarks[i] for i in ids])).float().to(device)
        return where, field.template_landmarks[ids]
    with torch.no_grad():
        points = scan.points[:: max(len(scan.points) // 20_000, 1)].to(device)
        nearest = predict_landmarks(field, pose(points)[None])[0]
        index = torch.cdist(nearest[None], pose(points)[None])[0].argmin(1)
    return points[index], field.template_landmarks


def _outward(field: Field, scan: Scan, start: NDArray[np.float64]) -> Tensor:
    """The scan's normals, turned round where they face inward at the mean head in this pose; 0 where they face both ways."""
    device = field.template_points.device
    codes = {name: field.code_statistics(name).mean[None].to(device) for name in field.code_dims}
    judgement = judged(field, scan.points, scan.normals, FittedCodes(codes, torch.zeros(1)), torch.from_numpy(start), near_mm=MEAN_HEAD_MM)
    share = judgement.same_side
    if share is None or share >= SAME_SIDE:
        return scan.normals
    return -scan.normals if share <= 1 - SAME_SIDE else torch.zeros_like(scan.normals)
