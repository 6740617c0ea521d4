"""Points of the template that the data does not follow: they move with registered points near them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from facegraft_model.data.topology import Topology

NEAR = 8
"""Registered points by which a vertex between them moves."""
RIDGE = 1e-3
"""Ridge of its affine map, relative to the mean of the diagonal: near points may lie in one plane."""


class FollowingPoints(NamedTuple):
    """Points [K,3] of the template, unit normals [K,3], and labels u8 [K] of the part that each lies in; weights f64 [K,M], sparse,
    by which a displacement of the M registered points moves them."""

    points: Tensor
    normals: Tensor
    labels: Tensor
    weights: Tensor

    def moved(self, displacements: Tensor) -> Tensor:
        """Displacements f64 [k,K,3] of the points, from those [k,M,3] of the registered points."""
        return follow(self.weights, displacements)

    @classmethod
    def joined(cls, groups: Sequence[FollowingPoints]) -> FollowingPoints:
        """All points of several groups."""
        return cls(*(torch.cat(tensors) for tensors in zip(*groups, strict=True)))


def follow(weights: Tensor, displacements: Tensor) -> Tensor:
    """Displacements f64 [k,K,3] by sparse weights [K,M], from those [k,M,3] of the registered points."""
    flat = displacements.double().permute(1, 0, 2).flatten(1)
    return (weights @ flat).reshape(-1, len(displacements), 3).permute(1, 0, 2)


def sparse(places: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A sparse matrix with values [k] at places [2,k]."""
    return torch.sparse_coo_tensor(places, values, shape, check_invariants=True).coalesce()


def vertex_weights(topology: Topology, registered: Tensor, count: int) -> Tensor:
    """Sparse weights f64 [n,M] by which a displacement of the M = `count` registered points moves the topology's vertices.

    registered [n]: the row of each vertex among the registered points, -1 for none. A registered vertex moves with its own point. Another
    one moves by the affine map that best fits the NEAR registered vertices of the same label that are nearest along the edges, by weights
    1 / distance^2 (moving least squares: P. Lancaster and K. Salkauskas, Mathematics of Computation 37, 1981): unlike the mean of its
    neighbours, it keeps what turns or stretches. Near along the edges, as the lips of a closed mouth touch. A vertex that no edges join to a
    registered one of its label has no weights.
    """
    registered, vertices = registered.cpu(), topology.vertices.cpu().double()
    known = (registered >= 0).nonzero()[:, 0]
    own = torch.stack([known, registered[known]])
    free, near = _nearest_along_edges(topology, registered)
    present = near >= 0
    around = vertices[near.clamp_min(0)] - vertices[free, None]
    weight = present / around.square().sum(2).clamp_min(1e-12)
    basis = torch.cat([torch.ones_like(around[..., :1]), around / _scale(around, present)], 2)
    square = torch.einsum("kn,kna,knb->kab", weight, basis, basis)
    # The constant has no ridge, so that weights sum to 1.
    ridge = RIDGE * square.diagonal(dim1=1, dim2=2)[:, 1:].mean(1)
    square[:, [1, 2, 3], [1, 2, 3]] += ridge[:, None] + torch.finfo(square.dtype).tiny
    value = weight * (basis @ torch.linalg.solve(square, torch.eye(4, 1, dtype=square.dtype)))[..., 0]
    between = torch.stack([free[:, None].expand_as(near)[present], registered[near[present]]])
    values = torch.cat([torch.ones(len(known), dtype=torch.float64), value[present]])
    return sparse(torch.cat([own, between], 1), values, (len(vertices), count))


def following_vertices(topology: Topology, registered: Tensor, weights: Tensor, opening: Tensor) -> FollowingPoints:
    """The vertices of the topology between its registered points, opened by the displacement `opening` [M,3] of these."""
    moved = topology.vertices.cpu().double() + follow(weights, opening[None])[0]
    faces = topology.faces.cpu()
    corners = moved[faces]
    cross = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = torch.zeros_like(moved).index_add_(0, faces.flatten(), cross.repeat_interleave(3, 0))
    normals = torch.nn.functional.normalize(normals, dim=1)
    reached = torch.sparse.sum(weights, 1).to_dense() != 0
    chosen = ((registered.cpu() < 0) & reached).nonzero()[:, 0]
    return FollowingPoints(moved[chosen], normals[chosen], topology.parts.cpu()[chosen], weights.index_select(0, chosen))


def _scale(around: Tensor, present: Tensor) -> Tensor:
    """The root mean square [K,1,1] of the offsets that are present, by which a ridge is relative."""
    total = (around.square().sum(2) * present).sum(1) / present.sum(1).clamp_min(1)
    return total.sqrt().clamp_min(1e-12)[:, None, None]


def _nearest_along_edges(topology: Topology, registered: Tensor) -> tuple[Tensor, Tensor]:
    """The vertices [K] without a registered point, and the vertices [K,NEAR] with one, of the same label, that the fewest edges join to each
    and then the nearest; -1 where there are fewer. Vertices without any are left out."""
    labels, known, places = topology.parts.tolist(), (registered >= 0).tolist(), topology.vertices.tolist()
    joined: list[set[int]] = [set() for _ in labels]
    for a, b, c in topology.faces.tolist():
        joined[a] |= {b, c}
        joined[b] |= {a, c}
        joined[c] |= {a, b}
    free, near = [], []
    for vertex, label in enumerate(labels):
        if known[vertex]:
            continue
        seen, ring, found = {vertex}, {vertex}, list[int]()
        while ring and len(found) < NEAR:
            ring = set().union(*(joined[at] for at in ring)) - seen
            seen |= ring
            of_ring = [at for at in ring if known[at] and labels[at] == label]
            found += sorted(of_ring, key=lambda at: (math.dist(places[at], places[vertex]), at))
        if found:
            free.append(vertex)
            near.append([*found[:NEAR], *[-1] * (NEAR - len(found))])
    return torch.tensor(free, dtype=torch.int64), torch.tensor(near, dtype=torch.int64).reshape(-1, NEAR)
