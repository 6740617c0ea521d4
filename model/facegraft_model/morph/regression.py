"""The regression of a net to modes of the registered heads."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from facegraft_model.morph.following import FollowingPoints
from facegraft_model.morph.morph import Morph
from facegraft_model.nets.basis import BasisNet
from facegraft_model.nets.modes import Modes
from facegraft_model.nets.siren import siren_features
from facegraft_model.seeds import generator

POINTS = 2048
"""Points in a step of a net's regression."""
OFF_SURFACE = 0.3
OFF_SURFACE_MM = 2.0
"""Share of these points that are moved off the surface along its normal, and by how much (standard deviation): there the fields are
constant, or the search for a point would follow their waves."""
AROUND_MM = 5.0
"""A part's net learns the points so near to the part too."""
NEIGHBOURS = 12
RIDGE, FINAL_RIDGE = 1e-5, 1e-8
RATE, LEAST_RATE = 1e-3, 0.02


def regress(field: Morph, name: str, modes: Modes, steps: int, seed: int, following: FollowingPoints | None = None) -> None:
    """Fit a net's fields to modes at the registered points of the template, and at points that follow these: those of its caps, and its
    vertices between the registered ones, where the fields would wave.

    The fields are linear in the last layer, which is solved for at each step; only the sine layers take gradient steps (variable
    projection: G. H. Golub and V. Pereyra, SIAM Journal on Numerical Analysis 10, 1973). The last layer is solved once more at the end.
    """
    net = field.nets[name]
    assert isinstance(net, BasisNet)
    device = field.template_points.device
    points, labels = field.template_points.cpu().float(), field.template_parts.cpu()
    fields = torch.cat([modes.mean[None], modes.modes])
    normals = surface_normals(points)
    if following is not None:
        fields = torch.cat([fields, following.moved(fields)], 1)
        points, normals = torch.cat([points, following.points.float()]), torch.cat([normals, following.normals.float()])
        labels = torch.cat([labels, following.labels])
    rows = torch.arange(len(points))
    if name in field.parts:
        own = labels == field.parts.label(name)
        # Also around the part, where its modes are 0: what the net leaves at the rim is a crease in heads with other codes.
        apart = torch.cdist(points, points[own]).amin(1) if bool(own.any()) else torch.full((len(points),), torch.inf)
        rows = (apart < AROUND_MM / field.mm_per_unit).nonzero()[:, 0]
    targets = fields[:, rows].permute(1, 0, 2).flatten(1)
    points, normals = points[rows], normals[rows]
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
    optimiser = torch.optim.Adam(parameters, lr=RATE)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = RATE * cosine(step / steps)
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


def surface_normals(points: Tensor) -> Tensor:
    """Directions [M,3] across the surface at points [M,3] on it, of either sign: the least axis of each point's neighbours."""
    nearest = torch.cdist(points, points).topk(min(NEIGHBOURS, len(points)), largest=False).indices
    around = points[nearest]
    return torch.linalg.svd(around - around.mean(1, keepdim=True), full_matrices=False).Vh[:, -1]


def _least_squares(h: Tensor, wanted: Tensor, ridge: float = RIDGE) -> Tensor:
    """x with h x ~ wanted, by the normal equations with a ridge relative to the mean of the diagonal."""
    square = h.T @ h
    return torch.linalg.solve(
        square + ridge * square.diagonal().mean() * torch.eye(len(square), dtype=h.dtype), h.T @ wanted
    )


def cosine(share: float) -> float:
    """The factor of a learning rate after a share of the steps: from 1 to LEAST_RATE."""
    return LEAST_RATE + (1 - LEAST_RATE) * 0.5 * (1 + math.cos(math.pi * share))
