"""Where the fit of a scan begins: poses that lay it onto the template, by landmarks or by trimmed ICP (Chetverikov et al. 2002)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from facegraft.surfaces.icp import NearestOf, trimmed_icp
from facegraft.surfaces.procrustes import procrustes
from facegraft_model.fitting.scanfile import Scan
from facegraft_model.method import Field

TRIED_POINTS, TRIED_ROUNDS = 256, 60
"""Points of a scan (fewer than twice as many are taken), and rounds of ICP from each of the first turns."""
TEMPLATE_POINTS = 1024
"""Points of the template for them."""
ICP_POINTS, ICP_ROUNDS = 1024, 30
"""Points of a scan and rounds of the ICP that goes on from the best of them; the fit itself moves the pose, too."""
KEPT_SHARE = 0.8
"""Share of the nearest pairs that an ICP round uses: the rest may have no counterpart on the template."""
START_TURNS_DEG = (0.0, -40.0, 40.0)
OTHERS, OTHER_ROUNDS, SHIFT_MM, ALIKE_MM = 4, 30, 45.0, 20.0
"""Where a fit from these leaves much: so many other poses are fitted too, after rounds of ICP from each turn of a cube and from places of the
face so far apart; poses that differ by less, on average, are the same."""


def first_pose(field: Field, scan: Scan, similarity: bool) -> NDArray[np.float64]:
    """The map f64 [4,4] of a scan's millimetres onto the template, upright: by its landmarks if there are at least three, which alone may
    change the size (similarity), else by ICP from three turns about the vertical."""
    scale = 1 / field.mm_per_unit
    template = field.template_points.cpu().numpy().astype(np.float64)
    landmarks = field.template_landmarks.cpu().numpy().astype(np.float64)
    start = np.diag([scale] * 3 + [1.0])
    if len(scan.landmarks) >= 3:
        ids = sorted(scan.landmarks)
        given = scale * np.stack([scan.landmarks[i] for i in ids])
        return np.asarray(procrustes(given, landmarks[ids], similarity) @ start)
    points = scan.points.numpy().astype(np.float64) * scale
    few, coarse = _every(points, TRIED_POINTS), _every(template, TEMPLATE_POINTS)
    # Without a change of size, also for a similarity: with points beside the face, shrinking is the easiest way to reduce distances.
    tried = [_aligned(few, coarse, _turned_to_front(few, template, turn), TRIED_ROUNDS) for turn in START_TURNS_DEG]
    best = min(tried, key=lambda found: found[1])[0]
    return np.asarray(_aligned(_every(points, ICP_POINTS), template, best, ICP_ROUNDS)[0] @ start)


def other_poses(field: Field, scan: Scan, known: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """The best maps [4,4] of a scan's millimetres onto the template by ICP from all turns of a cube, and upright from several places of the
    face: those that are neither alike nor like those that are known."""
    scale = 1 / field.mm_per_unit
    template = field.template_points.cpu().numpy().astype(np.float64)
    points = scan.points.numpy().astype(np.float64) * scale
    few, coarse = _every(points, TRIED_POINTS), _every(template, TEMPLATE_POINTS)
    upright = _turned_to_front(few, template, 0.0)
    starts = []
    for axes, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        turn = np.zeros((3, 3))
        turn[range(3), axes] = signs
        if np.linalg.det(turn) < 0:
            continue
        pose = np.eye(4)
        pose[:3, :3] = turn
        pose[:3, 3] = upright[:3, 3] + few.mean(0) - turn @ few.mean(0)
        starts.append(pose)
    for across in (-1, 0, 1):
        for up in (-1, 0, 1):
            pose = upright.copy()
            pose[:2, 3] += scale * SHIFT_MM * np.array([across, up])
            starts.append(pose)
    found = sorted((_aligned(few, coarse, start, OTHER_ROUNDS) for start in starts), key=lambda pair: pair[1])
    sized = np.diag([scale] * 3 + [1.0])
    chosen, taken = [], list(known)
    for pose, _ in found:
        whole = pose @ sized
        if all(_apart(whole, other, scan.points.numpy()[:: max(len(points) // 100, 1)]) / scale > ALIKE_MM for other in taken):
            fine = _aligned(_every(points, ICP_POINTS), template, pose, ICP_ROUNDS)[0]
            chosen.append(fine @ sized)
            taken.append(whole)
        if len(chosen) == OTHERS:
            break
    return chosen


def _apart(one: NDArray[np.float64], other: NDArray[np.float64], points: NDArray[Any]) -> float:
    """How far apart two maps [4,4] lay points [n,3], on average, in units."""
    change = one - other
    return float(np.linalg.norm(points @ change[:3, :3].T + change[:3, 3], axis=1).mean())


def _every(points: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Every so manieth of points [n,3]: `most`, or fewer than twice as many."""
    return points[:: max(len(points) // most, 1)]


def _aligned(
    points: NDArray[np.float64], template: NDArray[np.float64], start: NDArray[np.float64], rounds: int
) -> tuple[NDArray[np.float64], float]:
    return trimmed_icp(points, template, _nearest_of(template), start, kept_share=KEPT_SHARE, iterations=rounds)


def _turned_to_front(
    points: NDArray[np.float64], template: NDArray[np.float64], turn_deg: float
) -> NDArray[np.float64]:
    """Map [4,4] that turns points [n,3] about the vertical and moves them to the front of the template, where the face is."""
    angle = np.radians(turn_deg)
    pose = np.eye(4)
    pose[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    front = template[template[:, 2] > np.quantile(template[:, 2], 0.6)]
    pose[:3, 3] = front.mean(0) - pose[:3, :3] @ points.mean(0)
    return pose


def _nearest_of(template: NDArray[np.float64]) -> NearestOf:
    """Nearest points by brute force: a template has a few thousand points, and fitting then needs no scipy."""
    target = torch.from_numpy(template).float()

    def nearest(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        # float32 tells which is the nearest, in half the time; the distance is then exact.
        index = torch.cdist(torch.from_numpy(points).float(), target).argmin(1).numpy()
        return np.linalg.norm(points - template[index], axis=1), index

    return nearest
