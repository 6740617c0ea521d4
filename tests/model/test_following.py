"""Vertices between the registered points: the weights by which they move with these."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from facegraft_model.data.topology import Topology
from facegraft_model.morph.following import NEAR, FollowingPoints, follow, following_vertices, vertex_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

F64 = torch.float64


def ball(parts: int = 0) -> Topology:
    """A ball of 162 vertices, its upper half of another part if so wanted."""
    mesh = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
    vertices = torch.from_numpy(np.array(mesh.vertices)).float()
    labels = (vertices[:, 1] > 0.01).to(torch.uint8) * parts
    none = torch.zeros(0, 3)
    return Topology(vertices, torch.from_numpy(mesh.faces.astype(np.int64)), labels, torch.arange(len(vertices)), none, none.long())


def rows_of(known: Tensor) -> Tensor:
    return torch.where(known, known.cumsum(0) - 1, -1)


def every_third(topology: Topology) -> Tensor:
    return torch.arange(len(topology.vertices)) % 3 == 0


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_vertices_turn_and_stretch_with_the_registered_ones(seed: int) -> None:
    """Any affine displacement of the registered points is that of the others, where these lie on a curved surface."""
    topology, draw = ball(), torch.Generator().manual_seed(seed)
    known = torch.rand(len(topology.vertices), generator=draw) < 0.5
    affine, shift = torch.randn(3, 3, generator=draw, dtype=F64), torch.randn(3, generator=draw, dtype=F64)
    moved = topology.vertices.double() @ affine + shift
    weights = vertex_weights(topology, rows_of(known), int(known.sum()))
    found = follow(weights, moved[None, known])[0]
    torch.testing.assert_close(found[known], moved[known])
    # The ridge leaves a part of what an affine map changes along an edge, which is 0.15 long.
    errors, along_edge = (found - moved)[~known].norm(dim=1), 0.15 * float(affine.norm())
    assert float(errors.mean()) < 0.02 * along_edge and float(errors.max()) < 0.3 * along_edge
    means = mean_of_neighbours(topology, known, moved)
    assert float(errors.mean()) < 0.2 * float((means - moved)[~known].norm(dim=1).mean())


def mean_of_neighbours(topology: Topology, known: Tensor, values: Tensor) -> Tensor:
    """The plainest rival: the mean of the registered neighbours, or where there are none, the value itself."""
    neighbours: list[set[int]] = [set() for _ in values]
    for a, b, c in topology.faces.tolist():
        neighbours[a] |= {b, c}
        neighbours[b] |= {a, c}
        neighbours[c] |= {a, b}
    result = values.clone()
    for row in (~known).nonzero()[:, 0].tolist():
        ring = [at for at in sorted(neighbours[row]) if known[at]]
        if ring:
            result[row] = values[ring].mean(0)
    return result


def test_weights_sum_to_one() -> None:
    topology = ball()
    known = every_third(topology)
    weights = vertex_weights(topology, rows_of(known), int(known.sum())).to_dense()
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights), dtype=F64))
    assert int((weights != 0).sum(1).max()) <= NEAR


def test_a_vertex_moves_with_its_own_part_only() -> None:
    topology = ball(parts=1)
    known = every_third(topology)
    labels = topology.parts
    weights = vertex_weights(topology, rows_of(known), int(known.sum())).to_dense()
    assert float(weights[labels == 1][:, labels[known] == 0].abs().max()) == 0
    assert float(weights[labels == 0][:, labels[known] == 1].abs().max()) == 0


def test_lips_that_touch_do_not_move_each_other() -> None:
    """Two sheets in the same place, joined nowhere: each moves with its own points."""
    sheet = trimesh.creation.box((1, 1, 0)).subdivide().subdivide()
    flat = torch.from_numpy(np.array(sheet.vertices)).float()
    faces = torch.from_numpy(sheet.faces.astype(np.int64))
    n = len(flat)
    vertices = torch.cat([flat, flat + torch.tensor([0.0, 0.0, 1e-4])])
    none = torch.zeros(0, 3)
    topology = Topology(
        vertices, torch.cat([faces, faces + n]), torch.ones(2 * n, dtype=torch.uint8), torch.arange(2 * n), none, none.long()
    )
    known = torch.rand(2 * n, generator=torch.Generator().manual_seed(0)) < 0.4
    opening = torch.zeros(2 * n, 3)
    opening[n:, 2] = 1.0
    found = follow(vertex_weights(topology, rows_of(known), int(known.sum())), opening[None, known])[0]
    torch.testing.assert_close(found, opening.double())


@pytest.mark.parametrize("known", [0, 1])
def test_one_registered_vertex_moves_all(known: int) -> None:
    topology = ball()
    mask = torch.arange(len(topology.vertices)) == known
    found = follow(vertex_weights(topology, rows_of(mask), 1), torch.full((1, 1, 3), 2.0))[0]
    torch.testing.assert_close(found, torch.full_like(found, 2.0))


def test_vertices_that_no_edge_joins_to_a_registered_one_stay() -> None:
    topology = ball()
    away = replace(
        topology,
        vertices=torch.cat([topology.vertices, topology.vertices + 5]),
        faces=torch.cat([topology.faces, topology.faces + len(topology.vertices)]),
        parts=topology.parts.repeat(2),
        ids=torch.arange(2 * len(topology.vertices)),
    )
    known = every_third(away) & (torch.arange(len(away.vertices)) < len(topology.vertices))
    registered, count = rows_of(known), int(known.sum())
    weights = vertex_weights(away, registered, count)
    opening = torch.ones(count, 3)
    found = follow(weights, opening[None])[0]
    assert float(found[len(topology.vertices) :].abs().max()) == 0
    following = following_vertices(away, registered, weights, opening)
    assert len(following.points) == len(topology.vertices) - count


def test_following_vertices_lie_on_the_opened_surface() -> None:
    topology = ball(parts=1)
    known = every_third(topology)
    registered, count = rows_of(known), int(known.sum())
    opening = torch.tensor([[0.0, 0.2, 0.0]]).expand(count, 3)
    weights = vertex_weights(topology, registered, count)
    found = following_vertices(topology, registered, weights, opening)
    torch.testing.assert_close(found.points, topology.vertices[~known].double() + opening[:1].double())
    assert torch.equal(found.labels, topology.parts[~known])
    outward = torch.nn.functional.normalize(topology.vertices[~known].double(), dim=1)
    assert float((found.normals * outward).sum(1).min()) > 0.99
    twice = FollowingPoints.joined([found, found])
    moved = torch.randn(2, count, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(twice.moved(moved), found.moved(moved).repeat(1, 2, 1))
