"""The template's distance, learned alone: from the points of heads at their places in the template, and from the topology's surface."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from facegraft_model.data.topology import Topology
from facegraft_model.losses import length, normal_deviation
from facegraft_model.method import Batch, sampled_points
from facegraft_model.morph.following import FollowingPoints
from facegraft_model.morph.morph import LOST_MM, Morph
from facegraft_model.morph.regression import cosine
from facegraft_model.seeds import generator

BATCHES, STEPS = 0.4, 4.0
"""Batches of heads that are brought to the template's space, and steps, for each step of `train.pretrain`."""
POINTS, AROUND_POINTS = 2048, 512
"""Points of the heads, as many of the topology's surface, and points around it in a step."""
RATE = 1e-3
SURFACE, AROUND = 20_000, 5000
"""Points of the surface by which points around it are judged, and how many there are of these."""
AROUND_MM, FAR_MM = 8.0, 3.0
"""Distance of the points around the surface (standard deviation), and the least, below which SURFACE points do not tell inside from outside."""


class _Pool(NamedTuple):
    """Points of the template's space: q [n,3], the distance [n] there, and its gradient [n,3]."""

    q: Tensor
    sdf: Tensor
    grad: Tensor

    def drawn(self, count: int, draw: torch.Generator) -> _Pool:
        """`count` of the points at random."""
        rows = torch.randint(len(self.q), (count,), generator=draw).to(self.q.device)
        return _Pool(*(tensor[rows] for tensor in self))

    @classmethod
    def joined(cls, pools: Sequence[_Pool]) -> _Pool:
        """All points of several pools."""
        return cls(*(torch.cat(tensors) for tensors in zip(*pools, strict=True)))


def learn_template(
    field: Morph, batch_of: Callable[[int], Batch], steps: int, seed: int, caps: FollowingPoints | None = None
) -> None:
    """Fit the template's distance alone: to points of the training heads, each at its place in the template, and to points on and around
    the topology and its caps, which are the surface itself where the samples hold them. caps: points on them, around which points are drawn too."""
    loss, topology = field.config.loss, field.topology
    pool = _located_points(field, batch_of, math.ceil(steps * BATCHES))
    around = None if topology is None else points_around(topology, caps, field.mm_per_unit, seed)
    draw = generator(seed, "template")
    optimiser = torch.optim.Adam(field.template_weights.parameters(), lr=RATE)
    count = math.ceil(steps * STEPS)
    for step in range(count):
        for group in optimiser.param_groups:
            group["lr"] = RATE * cosine(step / count)
        own = pool.drawn(POINTS, draw)
        if topology is not None:
            on = topology.at(torch.rand(POINTS, 3, generator=draw).to(own.q), field.face_bounds)
            own = _Pool.joined([own, _Pool(on.points, own.sdf.new_zeros(POINTS), on.normals)])
        if around is not None:
            own = _Pool.joined([own, around.drawn(AROUND_POINTS, draw)])
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
    return _Pool.joined(parts)


def points_around(topology: Topology, caps: FollowingPoints | None, mm_per_unit: float, seed: int) -> _Pool | None:
    """Points some way off the template's surface, with their distances to it, too large by a part of the spacing of SURFACE points. The heads'
    own points leave room for another level there, as few of them have their mouth open. None where no point's side is sure.

    Inside is where the surface's winding number, summed over its points, exceeds a half (G. Barill et al., ACM TOG 37(4), 2018).
    """
    draw, areas = generator(seed, "around"), topology.face_areas()
    device = areas.device
    bounds = areas.cumsum(0)
    surface = topology.at(torch.rand(SURFACE, 3, generator=draw).to(device), bounds)
    some = topology.at(torch.rand(AROUND, 3, generator=draw).to(device), bounds)
    at, normals = some.points, some.normals
    if caps is not None:
        at, normals = torch.cat([at, caps.points.to(at)]), torch.cat([normals, caps.normals.to(at)])
    at = at + AROUND_MM / mm_per_unit * torch.randn(len(at), 1, generator=draw).to(at) * normals
    share = float(areas.sum()) / SURFACE
    found = []
    for own in torch.split(at, 256):
        offset = surface.points - own[:, None]
        distance = length(offset)
        turns = share / (4 * math.pi) * ((offset * surface.normals).sum(2) / distance.clamp_min(1e-6) ** 3).sum(1)
        nearest, index = distance.min(1)
        sign = torch.where(turns > 0.5, -1.0, 1.0)
        grad = sign[:, None] * (own - surface.points[index]) / nearest.clamp_min(1e-6)[:, None]
        # A surface that is cut off by the ball has no inside at the cut.
        sure = (nearest > FAR_MM / mm_per_unit) & (nearest < 1 - length(own)) & ((turns - 0.5).abs() > 0.25)
        found.append(_Pool(*(tensor[sure] for tensor in (own, sign * nearest, grad))))
    result = _Pool.joined(found)
    return result if len(result.q) else None
