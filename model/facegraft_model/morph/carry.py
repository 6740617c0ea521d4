"""How the remainder moves the insides of parts: by their rims, as a graft carries a part onto its host."""

from __future__ import annotations

import torch
from torch import Tensor

from facegraft_model.nets.modes import Modes

PIECE_MM, RIM_MM, LEAST_RIM = 15.0, 8.0, 12
"""Pieces of a part are farther apart than the first; its rim is as wide as the second, and needs so many registered points."""
SEAM_MM = 12.0
"""Within this of its rim a grafted part goes over into its host: 1.5 times the depth over which grafts blend, as the rim lies outside."""
CORRECTION_RIDGE = 1e-3


def part_depths(points: Tensor, labels: Tensor, where: Tensor, whose: Tensor) -> Tensor:
    """Distance [M] of each of the points [M,3] to the nearest of all points `where` [n,3] with another label; labels u8 [M], whose u8 [n]."""
    depths = torch.full_like(points[:, 0], torch.inf)
    for label in torch.unique(labels).tolist():
        others = where[whose != label]
        if len(others):
            depths[labels == label] = torch.cdist(points[labels == label], others).amin(1)
    return depths


def carried_by_rims(
    modes: Modes, heads: Tensor, points: Tensor, labels: Tensor, depths: Tensor, mm_per_unit: float
) -> Tensor:
    """Modes [K,M,3] of the remainder that move the inside of each piece of a part by an affine map, as its rim moves.

    That is what the remainder does in the data, where a part is grafted by its rim, and blended with its host near to it: there a mode
    goes over into the affine map by a smooth step over SEAM_MM of depth. Free to move otherwise, it would take over shapes of the parts, whose
    codes would then say little about them. The affine map is the one that fits the mode's rim best, corrected by a regression of the maps of
    the heads [n,M,3] on those of their rims: a graft pulls its map towards a similarity, and has its own rim.
    points [M,3] of the template, labels u8 [M], depths [M] of the points in their parts.
    """
    depth = (depths * mm_per_unit / SEAM_MM).clamp(0, 1)
    carried = depth.square() * (3 - 2 * depth)
    result = modes.modes.clone()
    offsets = heads.double() - modes.mean
    for label in range(1, int(labels.max()) + 1):
        for piece in _pieces(points, (labels == label).nonzero()[:, 0], PIECE_MM / mm_per_unit):
            others = (labels != label).nonzero()[:, 0]
            rim = others[torch.cdist(points[others], points[piece]).amin(1) < RIM_MM / mm_per_unit]
            if len(rim) < LEAST_RIM:
                continue
            centre = points[piece].mean(0)
            lifted = torch.cat([(points - centre) / (points[piece] - centre).std(), torch.ones_like(points[:, :1])], 1)
            of_rim, of_piece = torch.linalg.pinv(lifted[rim]), torch.linalg.pinv(lifted[piece])

            def maps(inverse: Tensor, moved: Tensor) -> Tensor:
                return torch.einsum("ar,krj->kaj", inverse, moved).flatten(1)

            seen = maps(of_rim, offsets[:, rim])
            square = seen.T @ seen
            ridge = CORRECTION_RIDGE * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype)
            correction = torch.linalg.solve(square + ridge, seen.T @ (maps(of_piece, offsets[:, piece]) - seen))
            own = maps(of_rim, modes.modes[:, rim])
            own = (own + own @ correction).unflatten(1, (4, 3))
            affine = torch.einsum("pa,kaj->kpj", lifted[piece], own)
            result[:, piece] = torch.lerp(result[:, piece], affine, carried[piece, None])
    return result


def _pieces(points: Tensor, rows: Tensor, gap: float) -> list[Tensor]:
    """The rows of points in pieces that are farther than `gap` from each other, such as two eyes."""
    near = torch.cdist(points[rows], points[rows]) < gap
    left, pieces = torch.ones(len(rows), dtype=torch.bool), []
    while bool(left.any()):
        piece = torch.zeros_like(left)
        piece[int(left.nonzero()[0])] = True
        while True:
            grown = near[piece].any(0)
            if bool((grown == piece).all()):
                break
            piece = grown
        pieces.append(rows[piece])
        left &= ~piece
    return pieces
