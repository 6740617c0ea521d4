"""The start of a morph's training: codes and modes of the registered heads, each net's regression to them, then the template's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from facegraft.vocabulary import EXP, REM
from facegraft_model.method import Batch, RegisteredHeads
from facegraft_model.morph.caps import cap_mesh
from facegraft_model.morph.morph import Morph
from facegraft_model.morph.opening import mouth_opening, open_topology
from facegraft_model.morph.regression import regress
from facegraft_model.morph.template import learn_template
from facegraft_model.nets.modes import Modes, local_modes, principal_modes

CAP_POINTS = 200
"""Points on the caps of each part in the nets' regressions."""
PIECE_MM, RIM_MM, LEAST_RIM = 15.0, 8.0, 12
"""Pieces of a part are farther apart than the first; its rim is as wide as the second, and needs so many registered points."""
SCORE_RIDGE, CORRECTION_RIDGE = 1e-7, 1e-3


def begin(field: Morph, heads: RegisteredHeads, batch_of: Callable[[int], Batch], seed: int) -> None:
    """Set template, codes, nets and the template's distance of a new model. batch_of(step): batches, for the distance."""
    closed = heads.stages[0, -1]
    opening, landmark_opening = mouth_opening(heads)
    field.set_template(
        (closed + opening).to(field.template_points),
        (heads.landmarks[0, -1] + landmark_opening).to(field.template_landmarks),
    )
    steps, topology = field.config.train.pretrain, field.topology
    registered = mesh = None
    if topology is not None:
        registered = topology.rows_of(heads.vertices)
        mesh = cap_mesh(topology, registered, opening)
    caps = None if mesh is None else mesh.sampled(CAP_POINTS, seed)
    for name, modes in head_modes(field, heads, opening, seed).items():
        rows = heads.ids[field.code_ids[name]]
        table = field.tables[name].data
        table.zero_()
        width = modes.scores.shape[1]
        table[rows, :width] = modes.scores.to(table)
        if steps:
            regress(field, name, modes, steps, seed, caps)
    if registered is not None:
        open_topology(field, registered, opening, mesh)
    if steps:
        learn_template(field, batch_of, steps, seed, caps)


def head_modes(field: Morph, heads: RegisteredHeads, opening: Tensor, seed: int) -> dict[str, Modes]:
    """The modes of each net's displacement of the registered points, and the scores of the heads, all scans in each.

    A part has modes only on its own points. The expression's are about 0, the neutral head, after the mouth has been closed.
    """
    model, last = field.config.model, heads.stages.shape[1] - 1
    labels = field.template_parts.cpu()
    result = {}
    expression = heads.stages[:, 0] - heads.stages[:, 1]
    found = principal_modes(expression[~heads.neutral], model.exp_dim, centred=False)
    scores = _scores(expression, found)
    result[EXP] = Modes(-opening.double(), found.modes, scores)
    one_each = _first_of_each(heads.ids["recipient"])
    for k, name in enumerate(field.parts, 1):
        own = heads.stages[:, k] - heads.stages[:, k + 1]
        own = own * (labels == field.parts.label(name))[:, None]
        found = _chosen_modes(own[one_each], heads, model.part_local_mm, model.part_dim, seed)
        result[name] = found._replace(scores=_scores(own - found.mean, found))
    rest = heads.stages[:, last - 1] - heads.stages[:, last]
    found = _chosen_modes(rest[one_each], heads, model.local_mm, model.rem_dim, seed)
    template = heads.stages[0, -1].double()
    found = found._replace(modes=carried_by_rims(found, rest[one_each], template, labels, heads.mm_per_unit))
    result[REM] = found._replace(scores=_scores(rest - found.mean, found))
    return result


def _chosen_modes(moved: Tensor, heads: RegisteredHeads, local_mm: float, most: int, seed: int) -> Modes:
    """At most so many modes of displacements [n,M,3] of the template's points: local ones, or (local_mm = 0) principal components."""
    if local_mm > 0:
        return local_modes(moved, heads.stages[0, -1], local_mm / heads.mm_per_unit, most, seed)
    return principal_modes(moved, most)


def carried_by_rims(modes: Modes, heads: Tensor, points: Tensor, labels: Tensor, mm_per_unit: float) -> Tensor:
    """Modes [K,M,3] of the remainder that move each piece of a part by an affine map, as its rim moves.

    That is what the remainder does in the data, where a part is grafted by its rim. Free to move otherwise, it would take over shapes
    of the parts, whose codes would then say little about them. The affine map is the one that fits the mode's rim best, corrected by a
    regression of the maps of the heads [n,M,3] on those of their rims: a graft pulls its map towards a similarity, and has its own rim.
    points [M,3] of the template, labels u8 [M].
    """
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
            result[:, piece] = torch.einsum("pa,kaj->kpj", lifted[piece], own)
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


def _scores(offsets: Tensor, modes: Modes) -> Tensor:
    """Scores [n,K] of offsets [n,M,3] from the mean: those that leave least, with a prior far weaker than the data."""
    flat = modes.modes.flatten(1)
    if not len(flat):
        return offsets.new_zeros(len(offsets), 0, dtype=torch.float64)
    square = flat @ flat.T
    ridge = SCORE_RIDGE * square.diagonal().max() * torch.eye(len(square), dtype=square.dtype)
    return torch.linalg.solve(square + ridge, flat @ offsets.double().flatten(1).T).T


def _first_of_each(rows: Tensor) -> Tensor:
    """Indices of the first occurrence of each row, in order."""
    seen: dict[int, int] = {}
    for place, row in enumerate(rows.tolist()):
        seen.setdefault(row, place)
    return torch.tensor(list(seen.values()))
