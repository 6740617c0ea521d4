"""The caps of the template: surface without registered points, which closes mouth, eyes and neck and moves as their rims do.

Cleaning spans a cap over each opening of a head, by harmonic weights of its rim; so here its displacement is that of the rim's
registered points, continued over the cap's triangles by the Laplace equation of their graph.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from facegraft_model.data.topology import Topology
from facegraft_model.seeds import generator


class CapPoints(NamedTuple):
    """Points [K,3] on the caps, unit normals [K,3], and labels u8 [K] of the part that each lies in; weights f64 [K,r] by which a
    displacement of the registered points `rows` [r] moves them."""

    points: Tensor
    normals: Tensor
    labels: Tensor
    rows: Tensor
    weights: Tensor

    def moved(self, displacements: Tensor) -> Tensor:
        """Displacements [...,K,3] of the points, from those [...,M,3] of the registered points."""
        return torch.einsum("kr,...rj->...kj", self.weights, displacements[..., self.rows, :].to(self.weights))


class CapMesh(NamedTuple):
    """vertices f64 [v,3] and faces [c,3] of the caps alone; weights f64 [v,r] by which a displacement of the registered points
    `rows` [r] moves the vertices; labels u8 [c] of the parts that the faces lie in; own_vertices f64 [k,3]: all of the caps' own."""

    vertices: Tensor
    faces: Tensor
    rows: Tensor
    weights: Tensor
    labels: Tensor
    own_vertices: Tensor

    def sampled(self, count: int, seed: int) -> CapPoints:
        """`count` points in the caps of each part, evenly over their area; none in those of the remainder, such as the neck's."""
        corners = self.vertices[self.faces]
        cross = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        areas = torch.linalg.vector_norm(cross, dim=1)
        draw = generator(seed, "caps")
        chosen = []
        for label in range(1, int(self.labels.max()) + 1):
            share = areas * (self.labels == label)
            if float(share.sum()) > 0:
                chosen.append(torch.multinomial(share, count, replacement=True, generator=draw))
        face = torch.cat(chosen) if chosen else torch.zeros(0, dtype=torch.int64)
        corner_weights = in_triangles(len(face), draw)[:, :, None]
        return CapPoints(
            (corner_weights * corners[face]).sum(1),
            cross[face] / areas[face][:, None],
            self.labels[face],
            self.rows,
            (corner_weights * self.weights[self.faces[face]]).sum(1),
        )


def in_triangles(count: int, draw: torch.Generator) -> Tensor:
    """Barycentric coordinates f64 [count,3], evenly over a triangle."""
    weights = torch.rand(count, 2, generator=draw, dtype=torch.float64)
    weights = torch.where(weights.sum(1, keepdim=True) > 1, 1 - weights, weights)
    return torch.cat([1 - weights.sum(1, keepdim=True), weights], 1)


def cap_mesh(topology: Topology, registered: Tensor, opening: Tensor) -> CapMesh | None:
    """The caps of the template, whose mouth has been opened by the displacement `opening` [M,3] of the registered points.

    registered [n]: the row of each of the topology's vertices among these, -1 for none. None where there are no caps, or no vertex of theirs
    is a registered point.
    """
    if not len(topology.cap_faces):
        return None
    used, faces = torch.unique(topology.cap_faces.cpu(), return_inverse=True)
    vertices, labels = topology.closed_vertices.cpu()[used].double(), topology.closed_parts.cpu()[used]
    own = used >= len(topology.vertices)
    row = torch.cat([registered.cpu(), registered.new_full((len(topology.cap_vertices),), -1).cpu()])[used]
    known = row >= 0
    joined = torch.zeros(len(used), len(used), dtype=torch.float64)
    for a, b in ((0, 1), (1, 2), (2, 0)):
        joined[faces[:, a], faces[:, b]] = joined[faces[:, b], faces[:, a]] = 1.0
    reached = known.clone()
    while True:
        grown = reached | ((joined @ reached.double()) > 0)
        if bool((grown == reached).all()):
            break
        reached = grown
    if not bool(reached.any()):
        return None
    faces = faces[reached[faces].all(1)]
    free = reached & ~known
    weights = torch.zeros(len(used), int(known.sum()), dtype=torch.float64)
    weights[known] = torch.eye(weights.shape[1], dtype=torch.float64)
    laplacian = torch.diag(joined[free].sum(1)) - joined[free][:, free]
    weights[free] = torch.linalg.solve(laplacian, joined[free][:, known])
    rows = row[known]
    opened = vertices + weights @ opening[rows].double()
    all_own = topology.cap_vertices.cpu().double()
    all_own[used[own] - len(topology.vertices)] = opened[own]
    return CapMesh(opened, faces, rows, weights, labels[faces].amax(1), all_own)
