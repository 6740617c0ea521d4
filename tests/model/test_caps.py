"""The caps of a template: how they move with their rims, and the points on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import trimesh
from facegraft_model.data.topology import Topology
from facegraft_model.morph.caps import CapMesh, cap_mesh, in_triangles
from facegraft_model.morph.following import vertex_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from facegraft.surfaces.surface import Surface

RIM = 24
"""Vertices around the pole of `open_ball`."""


def open_ball() -> tuple[Topology, Tensor]:
    """A ball without its pole, which the caps bring back, and the ball's registered points: its vertices."""
    ball = trimesh.creation.uv_sphere(radius=0.5, count=[9, 12])
    pole = int(ball.vertices[:, 2].argmax())
    around = np.any(ball.faces == pole, axis=1)
    kept = np.delete(np.arange(len(ball.vertices)), pole)
    place = np.full(len(ball.vertices), len(kept))
    place[kept] = np.arange(len(kept))
    vertices, faces = torch.from_numpy(ball.vertices).float(), torch.from_numpy(place[ball.faces])
    parts = (vertices[kept, 2] > 0.2).to(torch.uint8)
    topology = Topology(vertices[kept], faces[~around], parts, torch.arange(len(kept)), vertices[[pole]], faces[around])
    return topology, vertices[kept]


def mesh_of_ball(opening: Tensor | None = None) -> CapMesh:
    topology, points = open_ball()
    found = caps_of(topology, torch.arange(len(points)), torch.zeros_like(points) if opening is None else opening)
    assert found is not None
    return found


def caps_of(topology: Topology, registered: Tensor, opening: Tensor) -> CapMesh | None:
    return cap_mesh(topology, vertex_weights(topology, registered, len(opening)), opening)


def test_a_caps_middle_moves_by_the_mean_of_its_rim() -> None:
    mesh = mesh_of_ball()
    rim = torch.unique(open_ball()[0].cap_faces)[:-1]
    assert mesh.faces.shape == (RIM, 3) and len(rim) == RIM
    weights = mesh.weights.to_dense()
    torch.testing.assert_close(weights[-1, rim], torch.full((RIM,), 1 / RIM, dtype=torch.float64))
    torch.testing.assert_close(weights[:-1, rim], torch.eye(RIM, dtype=torch.float64))
    torch.testing.assert_close(weights.sum(1), torch.ones(RIM + 1, dtype=torch.float64))


def test_a_cap_opens_with_its_rim() -> None:
    _, points = open_ball()
    opening = torch.tensor([0.0, 0.1, 0.0]).expand_as(points)
    opened = mesh_of_ball(opening)
    torch.testing.assert_close(opened.vertices, mesh_of_ball().vertices + opening[:1].double())
    torch.testing.assert_close(opened.own_vertices, torch.tensor([[0.0, 0.1, 0.5]], dtype=torch.float64))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40))
def test_points_of_a_cap_lie_in_it_and_move_with_it(seed: int, count: int) -> None:
    mesh = mesh_of_ball()
    found = mesh.sampled(count, seed)
    assert len(found.points) == count and (found.labels == 1).all()
    # On a fan's triangles: between the plane of the rim and the pole, and outward.
    assert float(found.points[:, 2].min()) >= float(mesh.vertices[:-1, 2].min()) - 1e-9
    assert float(found.points[:, 2].max()) <= 0.5 + 1e-6
    assert (found.normals[:, 2] > 0).all()
    torch.testing.assert_close(found.normals.norm(dim=1), torch.ones(count, dtype=torch.float64))
    turn = torch.linalg.matrix_exp(torch.tensor([[0.0, -0.3, 0.1], [0.3, 0.0, 0.2], [-0.1, -0.2, 0.0]], dtype=torch.float64))
    whole = open_ball()[1].double()
    # Weights of a regular fan reproduce every linear map of its rim, up to the pole's height above it.
    moved = found.moved((whole @ turn.T - whole)[None])[0]
    flat = found.points.clone()
    flat[:, 2] = mesh.vertices[0, 2]
    torch.testing.assert_close(moved, flat @ turn.T - flat, atol=1e-6, rtol=0)


def test_a_rim_that_is_not_registered_moves_with_its_neighbours() -> None:
    topology, points = open_ball()
    registered = torch.arange(len(points))
    registered[topology.cap_faces.min()] = -1
    left = int(topology.cap_faces.min())
    mesh = caps_of(topology, registered, torch.zeros_like(points))
    assert mesh is not None
    weights = mesh.weights.to_dense()
    torch.testing.assert_close(weights.sum(1), torch.ones(RIM + 1, dtype=torch.float64))
    assert float(weights[:, left].abs().max()) == 0
    # By the map that fits its neighbours: where these turn and stretch, so does it.
    turn = torch.tensor([[0.0, -0.3, 0.1], [0.4, 0.0, 0.2], [-0.1, -0.2, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(weights[0] @ (points.double() @ turn), points[left].double() @ turn, atol=2e-3, rtol=0)


def test_caps_without_a_registered_vertex_are_none() -> None:
    topology, points = open_ball()
    none = torch.full((len(points),), -1)
    assert caps_of(topology, none, torch.zeros_like(points)) is None
    bare = replace(topology, cap_vertices=points[:0], cap_faces=topology.cap_faces[:0])
    assert caps_of(bare, torch.arange(len(points)), torch.zeros_like(points)) is None


def test_a_cap_of_the_remainder_has_no_points() -> None:
    topology, points = open_ball()
    topology = replace(topology, parts=torch.zeros_like(topology.parts))
    mesh = caps_of(topology, torch.arange(len(points)), torch.zeros_like(points))
    assert mesh is not None and len(mesh.sampled(5, 0).points) == 0


def test_vertices_find_their_registered_points_by_number() -> None:
    topology, points = open_ball()
    topology = replace(topology, ids=3 * torch.arange(len(points)) + 1)
    rows = topology.rows_of(torch.tensor([7, 1, 999, 5]))
    assert rows[2] == 0 and rows[0] == 1 and int((rows >= 0).sum()) == 2


def test_the_inside_of_a_cap_is_of_the_part_of_its_rim() -> None:
    """Also where a face of it has no vertex of the rim: here a fan whose middle is a smaller fan."""
    topology, _ = open_ball()
    count, rim = len(topology.vertices), torch.unique(topology.cap_faces)[:-1]
    around = topology.cap_faces.clone()
    inner = torch.cat([topology.cap_vertices + 0.01 * torch.randn(3, 3, generator=torch.Generator().manual_seed(0)), topology.cap_vertices])
    ring = torch.tensor([[count, count + 1, count + 3], [count + 1, count + 2, count + 3], [count + 2, count, count + 3]])
    parts = topology.parts.clone()
    parts[rim] = 2
    nested = replace(topology, parts=parts, cap_vertices=inner, cap_faces=torch.cat([around, ring]))
    assert nested.closed_parts[count:].tolist() == [2] * 4
    assert torch.equal(nested.closed_parts[:count], parts)


def test_points_of_a_closed_template_lie_evenly_on_it() -> None:
    topology, _ = open_ball()
    areas = topology.face_areas()
    ball = trimesh.Trimesh(topology.closed_vertices.numpy(), topology.closed_faces.numpy(), process=False)
    assert ball.is_watertight
    np.testing.assert_allclose(areas.numpy(), ball.area_faces, rtol=1e-4)
    draws = torch.rand(3000, 3, generator=torch.Generator().manual_seed(0))
    draws[0] = 1.0  # rounding can make a number in [0, 1) a 1
    found = topology.at(draws, areas.cumsum(0))
    nearest = Surface(ball.vertices, ball.faces).nearest(found.points.double().numpy())
    assert nearest.distance.max() < 1e-6
    assert np.einsum("ij,ij->i", ball.face_normals[nearest.face], found.normals.numpy()).min() > 0.85
    # Even over the area: as many in the upper half as it has of it, within four deviations.
    upper = float((found.points[:, 2] > 0).double().mean())
    assert abs(upper - 0.5) < 4 * 0.5 / 3000**0.5
    weights = topology.face_weights() / topology.face_weights().sum()
    inside = (topology.closed_parts[topology.closed_faces] > 0).any(1)
    share = float(areas[inside].sum() / areas.sum())
    torch.testing.assert_close(float(weights[inside].sum()), (1 + share) / 2, atol=1e-5, rtol=0)


def test_barycentric_coordinates_are_even() -> None:
    weights = in_triangles(4000, torch.Generator().manual_seed(0))
    assert float(weights.min()) >= 0
    torch.testing.assert_close(weights.sum(1), torch.ones(4000, dtype=torch.float64))
    assert float((weights.mean(0) - 1 / 3).abs().max()) < 0.01
