"""The start of a morph's training: codes and modes of the registered heads, each net's regression to them, then the template's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from facegraft.vocabulary import EXP, REM
from facegraft_model.method import Batch, RegisteredHeads
from facegraft_model.morph.caps import cap_mesh
from facegraft_model.morph.carry import carried_by_rims, part_depths
from facegraft_model.morph.following import FollowingPoints, following_vertices, vertex_weights
from facegraft_model.morph.morph import Morph
from facegraft_model.morph.opening import mouth_opening, open_topology
from facegraft_model.morph.regression import regress
from facegraft_model.morph.template import learn_template
from facegraft_model.nets.modes import Modes, local_modes, principal_modes

CAP_POINTS = 200
"""Points on the caps of each part in the nets' regressions."""
SCORE_RIDGE = 1e-7


def begin(field: Morph, heads: RegisteredHeads, batch_of: Callable[[int], Batch], seed: int) -> None:
    """Set template, codes, nets and the template's distance of a new model. batch_of(step): batches, for the distance."""
    closed = heads.stages[0, -1]
    opening, landmark_opening = mouth_opening(heads)
    field.set_template(
        (closed + opening).to(field.template_points),
        (heads.landmarks[0, -1] + landmark_opening).to(field.template_landmarks),
    )
    steps, topology = field.config.train.pretrain, field.topology
    following = caps = None
    if topology is not None:
        registered = topology.rows_of(heads.vertices)
        weights = vertex_weights(topology, registered, len(opening))
        mesh = cap_mesh(topology, weights, opening)
        following = following_vertices(topology, registered, weights, opening)
        if mesh is not None:
            caps = mesh.sampled(CAP_POINTS, seed)
            following = FollowingPoints.joined([following, caps])
    for name, modes in head_modes(field, heads, opening, seed).items():
        rows = heads.ids[field.code_ids[name]]
        table = field.tables[name].data
        table.zero_()
        width = modes.scores.shape[1]
        table[rows, :width] = modes.scores.to(table)
        if steps:
            regress(field, name, modes, steps, seed, following)
    if topology is not None:
        open_topology(field, weights, opening, registered, mesh)
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
    where, whose = template, labels
    if field.topology is not None:
        where, whose = field.topology.vertices.cpu().double(), field.topology.parts.cpu()
    depths = part_depths(template, labels, where, whose)
    found = found._replace(modes=carried_by_rims(found, rest[one_each], template, labels, depths, heads.mm_per_unit))
    result[REM] = found._replace(scores=_scores(rest - found.mean, found))
    return result


def _chosen_modes(moved: Tensor, heads: RegisteredHeads, local_mm: float, most: int, seed: int) -> Modes:
    """At most so many modes of displacements [n,M,3] of the template's points: local ones, or (local_mm = 0) principal components."""
    if local_mm > 0:
        return local_modes(moved, heads.stages[0, -1], local_mm / heads.mm_per_unit, most, seed)
    return principal_modes(moved, most)


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
