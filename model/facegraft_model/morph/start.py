"""The start of a morph's training: codes and modes of the registered heads, each net's regression to them, then the template's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from facegraft.vocabulary import REM
from facegraft_model.losses import length, normal_deviation
from facegraft_model.method import Batch, RegisteredHeads, sampled_points
from facegraft_model.morph.morph import EXP, LOST_MM, Morph
from facegraft_model.nets.basis import BasisNet
from facegraft_model.nets.modes import Modes, local_modes, principal_modes
from facegraft_model.nets.siren import siren_features
from facegraft_model.seeds import generator

OPENING_MM = 2.0
"""An expression opens the mouth if its inner lips are farther apart than the neutral ones by this."""
UPPER_LIP, LOWER_LIP = 62, 66
"""The middles of the inner lips (iBUG 68)."""
POINTS = 2048
"""Registered points in a step of a net's regression."""
OFF_SURFACE = 0.3
OFF_SURFACE_MM = 2.0
"""Share of these points that are moved off the surface along its normal, and by how much (standard deviation): there the fields are
constant, or the search for a point would follow their waves."""
POOL_BATCHES, TEMPLATE_STEPS = 0.4, 4.0
"""Batches that are brought to the template's space, and steps of its distance, for each step of `train.pretrain`."""
TEMPLATE_POINTS = 2048
"""Points of the heads, and as many of the topology, in a step of the template's distance."""
TOPOLOGY_POINTS = 200_000
PIECE_MM, RIM_MM, LEAST_RIM = 15.0, 8.0, 12
"""Pieces of a part are farther apart than the first; its rim is as wide as the second, and needs so many registered points."""
SCORE_RIDGE, CORRECTION_RIDGE = 1e-7, 1e-3
NEIGHBOURS = 12
RIDGE, FINAL_RIDGE = 1e-5, 1e-8
NET_RATE, TEMPLATE_RATE = 1e-3, 1e-3
LEAST_RATE = 0.02


def begin(field: Morph, heads: RegisteredHeads, batch_of: Callable[[int], Batch], seed: int) -> None:
    """Set template, codes, nets and the template's distance of a new model. batch_of(step): batches, for the distance."""
    opening, landmark_opening = mouth_opening(heads)
    field.set_template(
        heads.stages[0, -1].to(field.template_points) + opening.to(field.template_points),
        heads.landmarks[0, -1].to(field.template_landmarks) + landmark_opening.to(field.template_landmarks),
    )
    steps = field.config.train.pretrain
    for name, modes in head_modes(field, heads, opening, seed).items():
        rows = heads.ids[field.code_ids[name]]
        table = field.tables[name].data
        table.zero_()
        width = modes.scores.shape[1]
        table[rows, :width] = modes.scores.to(table)
        if steps:
            regress(field, name, modes, steps, seed)
    if field.topology is not None and steps:
        open_topology(field)
    if steps:
        learn_template(field, batch_of, steps, seed)


def mouth_opening(heads: RegisteredHeads) -> tuple[Tensor, Tensor]:
    """How far the expressions that open the mouth move the registered points [M,3] and landmarks [68,3], on average; 0 if none does.

    The widest expression and those at least half as wide count.
    """
    lips = heads.landmarks[:, :2, UPPER_LIP] - heads.landmarks[:, :2, LOWER_LIP]
    gaps = torch.linalg.vector_norm(lips, dim=2)
    wider = gaps[:, 0] - gaps[:, 1]
    widest = float(wider.max())
    chosen = (wider >= widest / 2) & ~heads.neutral
    if not bool(chosen.any()) or widest < OPENING_MM / heads.mm_per_unit:
        return torch.zeros_like(heads.stages[0, 0]), torch.zeros_like(heads.landmarks[0, 0])
    return (
        (heads.stages[chosen, 0] - heads.stages[chosen, 1]).mean(0),
        (heads.landmarks[chosen, 0] - heads.landmarks[chosen, 1]).mean(0),
    )


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


def regress(field: Morph, name: str, modes: Modes, steps: int, seed: int) -> None:
    """Fit a net's fields to modes at the registered points of the template.

    The fields are linear in the last layer, which is solved for at each step; only the sine layers take gradient steps (variable
    projection: G. H. Golub and V. Pereyra, SIAM Journal on Numerical Analysis 10, 1973). The last layer is solved once more at the end.
    """
    net = field.nets[name]
    assert isinstance(net, BasisNet)
    device = field.template_points.device
    points = field.template_points.cpu().float()
    rows = torch.arange(len(points))
    if name in field.parts:
        rows = rows[field.template_parts.cpu() == field.parts.label(name)]
    targets = torch.cat([modes.mean[None], modes.modes])[:, rows].permute(1, 0, 2).flatten(1)
    points, normals = points[rows], surface_normals(points)[rows]
    # As many directions as the last layer has features carry all that it can represent.
    wanted = targets.float()
    if wanted.shape[1] > net.mean.shape[1] - 1:
        left, spread, _ = torch.linalg.svd(targets, full_matrices=False)
        wanted = (left * spread)[:, : net.mean.shape[1] - 1].float()
    wanted = wanted * field.mm_per_unit
    draw = generator(seed, "regression", name)
    shift_by = OFF_SURFACE_MM / field.mm_per_unit

    def features(x: Tensor) -> Tensor:
        weights = [(weight.cpu(), bias.cpu()) for weight, bias in net.hidden()]
        h = siren_features(x[None], [*weights, weights[-1]])[0]
        return torch.cat([h, h.new_ones(len(h), 1)], 1)

    def off_surface(count: int, share: float) -> Tensor:
        moved = torch.rand(count, 1, generator=draw) < share
        return moved * shift_by * torch.randn(count, 1, generator=draw)

    parameters = [*net.weights, *net.biases]
    optimiser = torch.optim.Adam(parameters, lr=NET_RATE)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = NET_RATE * _cosine(step / steps)
        chosen = torch.randperm(len(rows), generator=draw)[:POINTS]
        h = features(points[chosen] + off_surface(len(chosen), OFF_SURFACE) * normals[chosen])
        with torch.no_grad():
            last = _least_squares(h, wanted[chosen])
        loss = (h @ last - wanted[chosen]).square().sum(1).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.no_grad():
        moved = points + shift_by * torch.randn(len(points), 1, generator=draw) * normals
        share = OFF_SURFACE**0.5
        h = torch.cat([features(points), share * features(moved)]).double()
        last = _least_squares(h, torch.cat([targets, share * targets]), FINAL_RIDGE)
        fields = last.T.reshape(-1, 3, h.shape[1]).float().to(device)
        net.mean.data.copy_(fields[0])
        net.modes.data.zero_()
        net.modes.data[: len(fields) - 1] = fields[1:]


@torch.no_grad()
def open_topology(field: Morph) -> None:
    """Move the topology's vertices from the template as it is in the data, with its mouth closed, to the field's own."""
    assert field.topology is not None
    vertices = field.topology.vertices.to(field.template_points)[None]
    codes = {name: table[:1].detach() * 0 for name, table in field.tables.items()}
    conditioning = field.condition(codes)
    closing = conditioning._replace(weights={EXP: conditioning.weights[EXP]})
    field.set_topology_vertices(field.locate(vertices, closing).q[0])


class _Pool(NamedTuple):
    """Points of the template's space: q [n,3], the distance [n] there, and its gradient [n,3]."""

    q: Tensor
    sdf: Tensor
    grad: Tensor

    def drawn(self, count: int, draw: torch.Generator) -> _Pool:
        """`count` of the points at random."""
        rows = torch.randint(len(self.q), (count,), generator=draw).to(self.q.device)
        return _Pool(*(tensor[rows] for tensor in self))


def learn_template(field: Morph, batch_of: Callable[[int], Batch], steps: int, seed: int) -> None:
    """Fit the template's distance alone: to points of the training heads, each at its place in the template, and to points on the
    topology's triangles, which are the surface itself where the samples hold them."""
    loss = field.config.loss
    pool = _located_points(field, batch_of, math.ceil(steps * POOL_BATCHES))
    surface = _topology_points(field, seed)
    draw = generator(seed, "template")
    optimiser = torch.optim.Adam(field.template_weights.parameters(), lr=TEMPLATE_RATE)
    count = math.ceil(steps * TEMPLATE_STEPS)
    for step in range(count):
        for group in optimiser.param_groups:
            group["lr"] = TEMPLATE_RATE * _cosine(step / count)
        own = pool.drawn(TEMPLATE_POINTS, draw)
        if surface is not None:
            own = _Pool(*(torch.cat(pair) for pair in zip(own, surface.drawn(TEMPLATE_POINTS, draw), strict=True)))
        found = field.template_distance(own.q[None])
        sizes = length(own.grad)
        value = loss.sdf * (found.sdf[0] - own.sdf).abs().mean()
        value = value + loss.normal * normal_deviation(found.grad[0], own.grad / sizes.clamp_min(1e-8)[:, None]).mean()
        value = value + loss.eikonal * (length(found.grad[0]) - sizes).abs().mean()
        optimiser.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()


@torch.no_grad()
def _located_points(field: Morph, batch_of: Callable[[int], Batch], batches: int) -> _Pool:
    """The points of the first batches in the template's space. The distance of a head at p is that of the template at q, and so its
    gradient there is J^T times that at p, J = dp/dq."""
    parts = []
    for step in range(batches):
        batch = batch_of(step)
        on = (~batch["is_composite"]).to(batch["landmarks"].dtype)
        points, distances, normals = sampled_points(batch)
        conditioning = field.condition(field.codes_of(batch), on)
        located = field.attach(points, field.locate_nearly(points, conditioning), conditioning)
        found = located.gap < LOST_MM / field.mm_per_unit
        grad = torch.linalg.solve(located.inverse.transpose(2, 3)[found], normals[found].unsqueeze(2)).squeeze(2)
        parts.append(_Pool(located.q[found], distances[found], grad))
    return _Pool(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _topology_points(field: Morph, seed: int) -> _Pool | None:
    """Points on the triangles of the field's topology, evenly over their area; None without a topology."""
    topology = field.topology
    if topology is None:
        return None
    draw = generator(seed, "topology")
    corners = topology.vertices[topology.faces].double().cpu()
    cross = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = torch.linalg.vector_norm(cross, dim=1)
    chosen = torch.multinomial(areas, TOPOLOGY_POINTS, replacement=True, generator=draw)
    weights = torch.rand(TOPOLOGY_POINTS, 2, generator=draw, dtype=torch.float64)
    weights = torch.where(weights.sum(1, keepdim=True) > 1, 1 - weights, weights)
    weights = torch.cat([1 - weights.sum(1, keepdim=True), weights], 1)
    points = (weights.unsqueeze(2) * corners[chosen]).sum(1)
    normals = cross[chosen] / areas[chosen].unsqueeze(1)
    like = field.template_points
    return _Pool(points.to(like), like.new_zeros(TOPOLOGY_POINTS), normals.to(like))


def surface_normals(points: Tensor) -> Tensor:
    """Directions [M,3] across the surface at points [M,3] on it, of either sign: the least axis of each point's neighbours."""
    nearest = torch.cdist(points, points).topk(min(NEIGHBOURS, len(points)), largest=False).indices
    around = points[nearest]
    return torch.linalg.svd(around - around.mean(1, keepdim=True), full_matrices=False).Vh[:, -1]


def _least_squares(h: Tensor, wanted: Tensor, ridge: float = RIDGE) -> Tensor:
    """x with h x ~ wanted, by the normal equations with a ridge relative to the mean of the diagonal."""
    square = h.T @ h
    return torch.linalg.solve(square + ridge * square.diagonal().mean() * torch.eye(len(square), dtype=h.dtype), h.T @ wanted)


def _cosine(share: float) -> float:
    return LEAST_RATE + (1 - LEAST_RATE) * 0.5 * (1 + math.cos(math.pi * share))
