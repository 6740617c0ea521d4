"""The caps of the template: surface without registered points, which closes mouth, eyes and neck and moves as their rims do.

Cleaning spans a cap over each opening of a head, by harmonic weights of its rim; so here its displacement is that of the rim, continued
over the cap's triangles by the Laplace equation of their graph.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from facegraft_model.data.topology import Topology
from facegraft_model.morph.following import FollowingPoints, follow, sparse
from facegraft_model.seeds import generator


class CapMesh(NamedTuple):
    """vertices f64 [v,3] and faces [c,3] of the caps alone; weights f64 [v,M], sparse, by which a displacement of the M registered
    points moves the vertices; labels u8 [c] of the parts that the faces lie in; own_vertices f64 [k,3]: all of the caps' own."""

    vertices: Tensor
    faces: Tensor
    weights: Tensor
    labels: Tensor
    own_vertices: Tensor

    def sampled(self, count: int, seed: int) -> FollowingPoints:
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
        corner_weights = in_triangles(len(face), draw)
        places = torch.arange(len(face))[:, None].expand(-1, 3)
        corners_of = torch.stack([places, self.faces[face]]).flatten(1)
        of_vertices = sparse(corners_of, corner_weights.flatten(), (len(face), len(self.vertices)))
        return FollowingPoints(
            (corner_weights[:, :, None] * corners[face]).sum(1),
            cross[face] / areas[face][:, None],
            self.labels[face],
            (of_vertices @ self.weights.to_dense()).to_sparse(),
        )


def in_triangles(count: int, draw: torch.Generator) -> Tensor:
    """Barycentric coordinates f64 [count,3], evenly over a triangle."""
    weights = torch.rand(count, 2, generator=draw, dtype=torch.float64)
    weights = torch.where(weights.sum(1, keepdim=True) > 1, 1 - weights, weights)
    return torch.cat([1 - weights.sum(1, keepdim=True), weights], 1)


def cap_mesh(topology: Topology, weights: Tensor, opening: Tensor) -> CapMesh | None:
    """The caps of the template, whose mouth has been opened by the displacement `opening` [M,3] of the registered points.

    weights [n,M], sparse: those by which the topology's vertices move (`vertex_weights`). None where there are no caps, or none has a vertex
    that moves.
    """
    if not len(topology.cap_faces):
        return None
    used, faces = torch.unique(topology.cap_faces.cpu(), return_inverse=True)
    vertices, labels = topology.closed_vertices.cpu()[used].double(), topology.closed_parts.cpu()[used]
    skin = used < len(topology.vertices)
    of_rim = weights.index_select(0, used[skin])
    known = skin.clone()
    known[skin] = torch.sparse.sum(of_rim, 1).to_dense() != 0
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
    of_known = torch.zeros(len(used), int(skin.sum()), dtype=torch.float64)
    of_known[skin] = torch.eye(of_known.shape[1], dtype=torch.float64)
    laplacian = torch.diag(joined[free].sum(1)) - joined[free][:, free]
    of_known[free] = torch.linalg.solve(laplacian, joined[free][:, skin])
    moved_by = (of_known @ of_rim.to_dense()).to_sparse()
    opened = vertices + follow(moved_by, opening[None])[0]
    all_own = topology.cap_vertices.cpu().double()
    all_own[used[~skin] - len(topology.vertices)] = opened[~skin]
    return CapMesh(opened, faces, moved_by, labels[faces].amax(1), all_own)
