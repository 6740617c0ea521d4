"""Is this scan a face, in the unit and pose that it is said to be in? Asked before a fit, and again of its result.

The distance that a fit leaves does not tell: few points in one place fit any surface, and a face upside down fits a chin and a neck.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facegraft.meshfiles.units import likely_units, unit_advice
from facegraft.vocabulary import ACCEPTED_CANTHI_MM, MEAN_CANTHI_MM, OUTER_CANTHI
from facegraft_model.errors import ModelError
from facegraft_model.fitting.fit import FittedCodes
from facegraft_model.fitting.gaussnewton import MOST_GROWTH
from facegraft_model.method import Codes, Field, mahalanobis

LEAST_POINTS = 100
"""Different points that a fit needs."""
ACCEPTED_EXTENT = (1 / 6, 4.0)
"""Accepted extent of a scan as a share of the template's: from an eye alone to a head with shoulders."""
LEAST_SPREAD = (0.05, 0.02)
"""Least second and third extent of a scan, as shares of its first: less is a line, or a plane."""
LANDMARKS_NEAR_MM = 25.0
"""Given landmarks lie this near to the scan, but for some in its holes."""

JUDGED = 1500
"""Points of a scan by which its fit is judged (fewer than twice as many are taken)."""
NEAR_MM = 3.0
"""Points this near to the fitted head count as its surface."""
FACE_MM = 30.0
"""The visible face: places of the template this near to one of its 68 landmarks."""
COVERED_MM, COVERED_SPACINGS = 6.0, 3.0
"""A place of the face is covered by a point this near in the template's space, or within so many distances between points."""
MEANINGFUL_SHARE = 0.5
"""The distance from the face to a scan means something where the scan covers this much of it."""
LEAST_COVERED, LEAST_NEAR = 0.15, 0.5
"""Shares of the face that is covered, and of the points that are near the head, below which a fit says little."""
MOST_FAR = 0.15
"""Share of far points that may be noise; more than these decide the mean distance."""
MOST_TURN_DEG = 60.0
"""A scan that was turned further was not upright, or did not face +z."""
SAME_SIDE = 0.75
"""Share of normals on one side of the surface that tells which way a scan's normals face."""
DOUBTED, UNLIKE = 10.0, 18.0
"""How many times farther than the trained heads, by the Mahalanobis distance of its worst code, a head is doubted, and no face at all. Heads of
the model's own kind come to 6, those of other kinds to 15, a sphere and a face stretched to twice its height to 20, the back of a head to 30."""
FEWEST_TRAINED = 20
"""Trained codes that tell what is usual."""
POOR_FIT_NOISE = 0.7
"""Half of the points farther from the head than this times `fit.noise_mm`: the pose may be a wrong one."""


def extent(points: NDArray[np.float64]) -> float:
    """Median distance of points [n,3] from their median: half of the points are nearer to the middle. Outliers do not change it."""
    return float(np.median(np.linalg.norm(points - np.median(points, 0), axis=1)))


def check_points(points: NDArray[np.float64]) -> None:
    """Raise ModelError unless points [n,3] are many different ones that spread in three directions."""
    count, points = len(points), np.unique(points, axis=0)
    if len(points) < LEAST_POINTS:
        alike = "" if count < LEAST_POINTS else f", of which {len(points)} differ"
        raise ModelError(f"holds {count} points{alike}; a fit needs at least {LEAST_POINTS}")
    centred = points - np.median(points, 0)
    axes = np.linalg.svd(centred[np.linalg.norm(centred, axis=1) <= 3 * extent(points)], full_matrices=False)[2]
    first, second, third = sorted(np.ptp(np.quantile(centred @ axes.T, [0.05, 0.95], axis=0), axis=0), reverse=True)
    if not first > 0 or second < LEAST_SPREAD[0] * first:
        raise ModelError("its points lie on a line; is this the right file?")
    if third < LEAST_SPREAD[1] * first:
        raise ModelError("its points lie in a plane; is this the right file, and has it a depth?")


def check_extent(field: Field, points: NDArray[np.float64], unit_mm: float) -> None:
    """Raise ModelError unless points [n,3], in mm as read with unit_mm, are about as large as the template's face."""
    usual = field.mm_per_unit * extent(field.template_points.cpu().numpy().astype(np.float64))
    accepted = (ACCEPTED_EXTENT[0] * usual, ACCEPTED_EXTENT[1] * usual)
    found = extent(points)
    if accepted[0] <= found <= accepted[1]:
        return
    size = " x ".join(f"{side:.3g}" for side in np.ptp(np.quantile(points, [0.02, 0.98], axis=0), axis=0))
    units = [unit for unit in likely_units(found, unit_mm, usual, accepted) if abs(math.log(unit * found / unit_mm / usual)) < 1.2]
    advice = unit_advice(units, "--unit-mm ", unit_mm) if units else f"no usual unit makes it one (it was read with --unit-mm {unit_mm:g}); cut it to the head if it shows more"
    raise ModelError(f"it is {size} mm large, which is no face: {advice}")


def check_given_landmarks(points: NDArray[np.float64], landmarks: dict[int, NDArray[np.float64]], unit_mm: float, unit_known: bool) -> None:
    """Raise ModelError unless landmarks by iBUG index lie on the scan's points [n,3], in mm, and the eyes' outer corners at a face's distance.

    unit_known: whether the scan's size must be right.
    """
    if unit_known and set(OUTER_CANTHI) <= set(landmarks):
        canthi = float(np.linalg.norm(landmarks[OUTER_CANTHI[1]] - landmarks[OUTER_CANTHI[0]]))
        if not ACCEPTED_CANTHI_MM[0] <= canthi <= ACCEPTED_CANTHI_MM[1]:
            units = likely_units(canthi, unit_mm, MEAN_CANTHI_MM, ACCEPTED_CANTHI_MM)
            advice = unit_advice(units[:1], "--unit-mm ", unit_mm) if units else "they are another's, or in another unit"
            raise ModelError(
                f"its landmarks 36 and 45, the outer eye corners, are {canthi:.4g} mm apart, expected {ACCEPTED_CANTHI_MM[0]:.0f} to "
                f"{ACCEPTED_CANTHI_MM[1]:.0f}: {advice}"
            )
    # A unit that is wrong for points and landmarks alike must not decide.
    near = LANDMARKS_NEAR_MM if unit_known else 0.5 * extent(points)
    few = torch.from_numpy(points[:: max(len(points) // 20_000, 1)])
    distance = torch.cdist(torch.from_numpy(np.stack(list(landmarks.values()))), few).amin(1)
    middle = float(distance.median())
    if middle > near:
        raise ModelError(
            f"the landmarks lie beside it, half of them {middle:.3g} mm or more from its points; give them in the scan's own unit and frame"
        )


@dataclass(frozen=True)
class Judgement:
    """What is known of a fit besides the distance that it leaves.

    median_mm: of the distances from the scan's points to the head. near: share of the points within NEAR_MM. covered: share of the template's
    visible face that the scan covers, None for a model without a template. from_face_mm: median distance from the places of the face to
    the scan, where it covers enough. scale: by which the scan grew. turned_deg: angle by which the alignment turned it. same_side: share
    of its normals that face outward, None where it has none. unlike: see `unlikeness`. warnings: sentences for the user.
    """

    median_mm: float
    near: float
    covered: float | None
    from_face_mm: float | None
    scale: float
    turned_deg: float
    same_side: float | None
    unlike: float | None
    warnings: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """The numbers, rounded, for fits.json."""
        numbers = {name: getattr(self, name) for name in ("median_mm", "near", "covered", "from_face_mm", "scale", "turned_deg", "unlike")}
        return {name: None if value is None else round(value, 4) for name, value in numbers.items()} | {"warnings": list(self.warnings)}


@torch.no_grad()
def judged(
    field: Field, points: Tensor, normals: Tensor, fitted: FittedCodes, alignment: Tensor, near_mm: float = NEAR_MM, most: int = JUDGED
) -> Judgement:
    """Judge the fit of a scan's points [n,3] (mm), with normals [n,3] (0 where unknown). alignment f64 [4,4]: from mm to the model's frame.
    most: fewer than twice as many points are looked at."""
    device = field.template_points.device
    codes = {name: code.to(device) for name, code in fitted.codes.items()}
    few = slice(None, None, max(len(points) // most, 1))
    linear = alignment[:3, :3] * field.mm_per_unit
    scale = float(torch.linalg.det(linear)) ** (1 / 3)
    turn = linear / scale
    placed = (points[few].to(alignment) @ alignment[:3, :3].T + alignment[:3, 3]).float().to(device)
    found = field.sdf_and_grad(placed[None], codes)
    distance = field.mm_per_unit * found.sdf[0].abs()
    near = distance <= near_mm
    same_side = outward_share(found.grad[0], normals[few].to(device) @ turn.T.to(device).float(), near)
    covered = from_face = None
    if field.has_warp:
        gap, spacing = _gaps(field, placed, near, codes)
        covered = float((gap <= max(COVERED_MM, COVERED_SPACINGS * spacing)).float().mean())
        from_face = float(gap.median()) if covered >= MEANINGFUL_SHARE else None
    cosine = float(turn.diagonal().sum() - 1) / 2
    result = Judgement(
        float(distance.median()), float(near.float().mean()), covered, from_face, scale,
        math.degrees(math.acos(max(-1.0, min(1.0, cosine)))), same_side,
        unlikeness(field, codes), (),
    )  # fmt: skip
    return Judgement(**{**vars(result), "warnings": tuple(_warnings(result, turn.numpy()))})


def unlikeness(field: Field, codes: Codes) -> float | None:
    """How many times farther from the mean a head's worst code [1, d] is than the trained heads' are; None where these are few."""
    known = [name for name in codes if len(field.tables[name]) >= FEWEST_TRAINED]
    return max((float(mahalanobis(codes[name], field.code_statistics(name)).sqrt()) for name in known), default=None)


def outward_share(gradient: Tensor, normals: Tensor, near: Tensor) -> float | None:
    """Share of the known normals [n,3] that face as the distance grows, of points near [n] the surface; None where too few are known."""
    known = near & (normals.square().sum(1) > 0.25)
    if int(known.sum()) < LEAST_POINTS // 2:
        return None
    return float(((gradient * normals).sum(1) > 0)[known].float().mean())


def _gaps(field: Field, placed: Tensor, near: Tensor, codes: Codes) -> tuple[Tensor, float]:
    """Distances in mm from the places of the template's visible face to the nearest of a head's points [n,3] near its surface, both in the
    template's space; and the usual distance between neighbours among these points."""
    template = field.template_points
    face = template[torch.cdist(template, field.template_landmarks).amin(1) <= FACE_MM / field.mm_per_unit]
    if int(near.sum()) < 2:
        return torch.full((len(face),), math.inf), 0.0
    places = field.warp(placed[near][None], codes)[0]
    spacing = float(torch.cdist(placed[near], placed[near]).kthvalue(2, 1).values.median())
    return field.mm_per_unit * torch.cdist(face, places).amin(1), field.mm_per_unit * spacing


def _warnings(fit: Judgement, turn: NDArray[np.float64]) -> list[str]:
    said = []
    if fit.turned_deg > MOST_TURN_DEG:
        said.append(
            f"it was turned by {fit.turned_deg:.0f} degrees to fit ({_pose_of(turn)}); scans should be upright (+y) and face +z: look at the fitted head"
        )
    if fit.near < LEAST_NEAR:
        said.append(f"only {100 * fit.near:.0f} % of its points lie within {NEAR_MM:g} mm of the fitted head; it has much beside the face, or is no face in this pose")
    elif fit.near < 1 - MOST_FAR:
        said.append(
            f"{100 * (1 - fit.near):.0f} % of its points lie more than {NEAR_MM:g} mm from the fitted head: stray points, hair or clothes? They count in the mean "
            f"distance; half of all points lie within {fit.median_mm:.2g} mm"
        )
    if fit.unlike is not None and fit.unlike > UNLIKE:
        said.append(
            f"its fitted shape is {fit.unlike:.0f} times as far from the mean head as the model's own heads are: it may be no face, stretched, of another "
            "size, or in a pose that was not found; look at the fitted head"
        )
    if fit.covered is not None and fit.covered < LEAST_COVERED:
        said.append(f"it covers {100 * fit.covered:.0f} % of the face: the rest of the fitted head is the model's guess")
    if fit.same_side is not None and fit.same_side < 1 - SAME_SIDE:
        said.append("its normals (the order of its triangles' corners) face inward; they were taken the other way round")
    elif fit.same_side is not None and fit.same_side < SAME_SIDE:
        said.append(f"its normals disagree with the fitted head's at {100 * (1 - fit.same_side):.0f} % of its points: they face both ways, or the pose is wrong")
    if abs(math.log(fit.scale)) > math.log(1.2):
        said.append(f"it fits at {fit.scale:.2f} times its size; check --unit-mm")
    return said


def _pose_of(turn: NDArray[np.float64]) -> str:
    """Where the head's up and front are in the scan's own axes, from the rotation [3,3] into the model's frame."""
    axes = ("x", "y", "z")

    def named(direction: NDArray[np.float64]) -> str:
        axis = int(np.abs(direction).argmax())
        return ("+" if direction[axis] > 0 else "-") + axes[axis]

    return f"its head points to {named(turn[1])}, its face to {named(turn[2])}"


def check_scale(fit: Judgement) -> None:
    """Raise ModelError where a fit changed the size of a scan as far as it may: then the size is not that of a head."""
    if abs(math.log(fit.scale)) > 0.99 * math.log(MOST_GROWTH):
        raise ModelError(
            f"it would fit best at {fit.scale:.2f} times its size or beyond, which no head needs; give the right --unit-mm, or --landmark-file, or "
            "remove what is not the face, or use --align rigid"
        )
