"""The template's morph: its displacement, derivatives and regressions, and the start of its training."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import trimesh
from facegraft_model.config import Config
from facegraft_model.data.ids import IdTable
from facegraft_model.data.topology import Topology
from facegraft_model.method import RegisteredHeads, sampled_points
from facegraft_model.models import build_field
from facegraft_model.morph.following import follow, vertex_weights
from facegraft_model.morph.morph import Morph
from facegraft_model.morph.opening import ASTRAY_MM, OPENED, mouth_opening, open_topology
from facegraft_model.morph.regression import AROUND_MM, regress, surface_normals
from facegraft_model.nets.basis import BasisNet
from facegraft_model.nets.modes import Modes
from facegraft_model.nets.siren import at_shared_points, siren_forward, siren_jacobian
from facegraft_model.testing import FieldSuite, toy_batch, toy_template
from small_morphs import SETTINGS, codes_of, small_config, small_morph, sphere, three_parts

F64 = torch.float64


class TestMorph(FieldSuite):
    settings = SETTINGS
    moved = 0.001


@pytest.fixture
def table() -> IdTable:
    return three_parts()


@pytest.fixture
def config() -> Config:
    return small_config()


@pytest.fixture
def field(table: IdTable) -> Morph:
    return small_morph(table)


def test_jacobians_are_those_of_autograd(field: Morph, table: IdTable) -> None:
    batch = toy_batch(table)
    conditioning = field.condition(codes_of(field, batch))
    x = batch["surface_points"].clone().requires_grad_(True)
    y, slopes = siren_jacobian(x, conditioning.weights["rem"])
    torch.testing.assert_close(y, siren_forward(x, conditioning.weights["rem"])[0])
    for k in range(3):
        (row,) = torch.autograd.grad(y[..., k].sum(), x, retain_graph=True)
        torch.testing.assert_close(slopes[:, :, k], row)
    shared = at_shared_points(x[0], conditioning.weights["rem"])
    torch.testing.assert_close(shared, siren_forward(x[:1].expand(len(x), -1, -1), conditioning.weights["rem"])[0])


def test_a_heads_displacement_is_the_sum_of_its_nets(field: Morph, table: IdTable) -> None:
    codes = codes_of(field, toy_batch(table))
    conditioning = field.condition(codes)
    registered = torch.stack(list(field.registered(conditioning).values())).sum(0)
    points = field.template_points.expand(len(registered), -1, -1)
    torch.testing.assert_close(points + registered, field.unwarp(points, codes))


def test_a_parts_code_moves_only_its_part(field: Morph, table: IdTable) -> None:
    codes = codes_of(field, toy_batch(table))
    points = field.template_points.expand(4, -1, -1)
    before = field.unwarp(points, codes)
    name = field.parts.names[1]
    after = field.unwarp(points, codes | {name: codes[name] + 1})
    own = field.template_parts == field.parts.label(name)
    assert float((after - before)[:, own].abs().min()) > 0
    assert torch.equal(after[:, ~own], before[:, ~own])


@pytest.fixture
def meshed(config: Config, table: IdTable) -> Morph:
    """A field that knows a topology, a sphere of 642 vertices, whose pole is a cap."""
    facts = toy_template(table.parts)
    ball = trimesh.creation.icosphere(subdivisions=3, radius=float(facts.points[0].norm()))
    vertices, faces = torch.from_numpy(ball.vertices).float(), torch.from_numpy(ball.faces)
    parts = facts.parts[torch.cdist(vertices, facts.points).argmin(1)]
    cap = (faces == len(vertices) - 1).any(1)
    none = torch.zeros(0, 3)
    topology = Topology(vertices, faces[~cap], parts, torch.arange(len(vertices)), none, faces[cap])
    made = build_field(config, table, replace(facts, topology=topology), 100.0).double().eval()
    assert isinstance(made, Morph)
    return made


def test_a_parts_code_moves_only_the_vertices_of_its_part(meshed: Morph, table: IdTable) -> None:
    """Also those that are no registered points, which are fewer."""
    topology = meshed.topology
    assert topology is not None
    codes = codes_of(meshed, toy_batch(table))
    for net in meshed.nets.values():
        assert isinstance(net, BasisNet)
        net.modes.data += 0.01
    vertices = topology.vertices.expand(4, -1, -1)
    before = meshed.unwarp(vertices, codes)
    for name in meshed.parts:
        after = meshed.unwarp(vertices, codes | {name: codes[name] + 1})
        own = topology.parts == meshed.parts.label(name)
        assert float((after - before)[:, own].abs().amax()) > 0
        assert torch.equal(after[:, ~own], before[:, ~own])


def test_the_template_is_trained_on_its_own_surface(meshed: Morph, table: IdTable) -> None:
    """The term is that of float64 sums over the faces that the draws choose, the cap's among them."""
    batch = toy_batch(table)
    draws = torch.rand(50, 3, dtype=F64, generator=torch.Generator().manual_seed(3))
    batch["template_draws"] = draws
    loss = meshed.config.loss
    terms = meshed.training_terms(batch, meshed.codes_of(batch), torch.tensor(0.0))
    topology = meshed.topology
    assert topology is not None
    at = topology.at(draws, meshed.face_bounds)
    points = at.points.clone().requires_grad_(True)
    sdf = meshed.template_distance(points[None]).sdf[0]
    (grad,) = torch.autograd.grad(sdf.sum(), points)
    length = grad.norm(dim=1)
    cosine = (grad * at.normals).sum(1) / length
    wanted = loss.sdf * sdf.abs().mean() + loss.eikonal * (length - 1).abs().mean() + loss.normal * (1 - cosine).mean()
    torch.testing.assert_close(terms["template"], wanted.detach(), rtol=1e-6, atol=0, check_dtype=False)
    batch["template_draws"] = draws[:0]
    assert "template" not in meshed.training_terms(batch, meshed.codes_of(batch), torch.tensor(0.0))


def test_derivatives_by_the_codes_are_those_of_finite_differences(field: Morph, table: IdTable) -> None:
    batch = toy_batch(table)
    codes = codes_of(field, batch)
    points = sampled_points(batch)[0]
    here = field.linearise(points, codes)
    # A place is found within 0.02 mm, and from there the next call is exact: the search converges as Newton's method does.
    reached = field.unwarp(here.places, codes)
    assert float((reached - points).norm(dim=2).max()) < 0.02 / field.mm_per_unit
    exact = field.sdf_and_grad(points, codes)
    torch.testing.assert_close(here.sdf, exact.sdf, rtol=0, atol=1e-5 / field.mm_per_unit)
    kept = here
    for _ in range(4):  # with the derivatives of the start, the search converges too, only more slowly
        kept = field.linearise(points, codes, before=kept, renew=False)
    torch.testing.assert_close(kept.sdf, exact.sdf, rtol=0, atol=1e-9)
    assert kept.columns is here.columns
    here = field.linearise(points, codes, before=field.linearise(points, codes, before=here))
    torch.testing.assert_close(here.sdf, exact.sdf, rtol=0, atol=1e-9)
    torch.testing.assert_close(here.grad, exact.grad, rtol=0, atol=1e-9)
    step = 1e-5
    for name, code in codes.items():
        for k in (0, code.shape[1] - 1):
            ahead, behind = (
                field.sdf(points, codes | {name: code + sign * step * torch.eye(code.shape[1], dtype=F64)[k]}) for sign in (1, -1)
            )
            torch.testing.assert_close(
                here.columns[name][..., k], (ahead - behind) / (2 * step), rtol=0, atol=2e-4 * float(here.grad.abs().max())
            )
    q = field.template_points[::7]
    name = field.parts.names[0]
    columns = field.unwarp_columns(q, name)
    moved = field.unwarp(q[None], {key: code[:1] + (key == name) for key, code in codes.items()})
    still = field.unwarp(q[None], {key: code[:1] for key, code in codes.items()})
    torch.testing.assert_close(columns.sum(2), (moved - still)[0])


def test_the_coarse_derivatives_are_exact_at_the_anchors_and_near_elsewhere(field: Morph, table: IdTable) -> None:
    codes = {name: code[:1] for name, code in codes_of(field, toy_batch(table)).items()}
    anchors = field.template_points[field.anchors][None]
    points = field.unwarp(anchors, codes)
    coarse = field.linearise_coarsely(points, codes)
    torch.testing.assert_close(coarse.places, anchors, rtol=0, atol=1e-12)
    torch.testing.assert_close(coarse.sdf, field.sdf(points, codes), rtol=0, atol=1e-9)
    start = coarse._replace(places=anchors)
    exact = field.linearise(points, codes, before=start)
    torch.testing.assert_close(coarse.grad, exact.grad, rtol=0, atol=1e-9)
    torch.testing.assert_close(coarse.inverse, exact.inverse, rtol=0, atol=1e-9)
    for name in codes:
        torch.testing.assert_close(coarse.columns[name], exact.columns[name], rtol=0, atol=1e-9)
    near = points + 0.5 / field.mm_per_unit * torch.nn.functional.normalize(torch.sin(50 * points), dim=2)
    off = field.linearise_coarsely(near, codes).sdf - field.sdf(near, codes)
    assert float(off.abs().mean()) < 0.02 / field.mm_per_unit
    neutral = {name: code for name, code in codes.items() if name != "exp"}
    still = codes | {"exp": torch.zeros_like(codes["exp"])}
    torch.testing.assert_close(field.linearise_coarsely(points, neutral).sdf, field.linearise_coarsely(points, still).sdf)


def test_the_expansion_follows_the_nets(field: Morph, table: IdTable) -> None:
    codes = {name: code[:1] for name, code in codes_of(field, toy_batch(table)).items()}
    points = field.template_points[None, ::7] * 1.01
    before = field.linearise_coarsely(points, codes).sdf
    field.train()
    with torch.no_grad():
        field.nets["rem"].mean += 0.01
    changed = field.linearise_coarsely(points, codes).sdf
    assert float((changed - before).abs().amax()) > 1e-4
    torch.testing.assert_close(field.eval().linearise_coarsely(points, codes).sdf, changed)


def test_nothing_of_the_weights_is_kept_when_they_change_their_kind(field: Morph, table: IdTable) -> None:
    codes = {name: code[:1] for name, code in codes_of(field, toy_batch(table)).items()}
    points = field.template_points[None, ::7] * 1.01
    before = field.linearise_coarsely(points, codes).sdf
    field.float()
    after = field.linearise_coarsely(points.float(), {name: code.float() for name, code in codes.items()}).sdf
    assert after.dtype == torch.float32
    torch.testing.assert_close(after.double(), before, rtol=0, atol=1e-4)
    field.double()


def test_no_points_are_no_error(field: Morph, table: IdTable) -> None:
    codes = {name: code[:1] for name, code in codes_of(field, toy_batch(table)).items()}
    assert field.unwarp(torch.zeros(1, 0, 3, dtype=F64), codes).shape == (1, 0, 3)


def test_a_net_learns_modes_by_its_regression(config: Config, table: IdTable) -> None:
    field = build_field(config, table, toy_template(table.parts), 100.0)
    assert isinstance(field, Morph)
    points = field.template_points
    fields = torch.stack([torch.sin(3 * points), points[:, [1, 2, 0]] ** 2, 0.1 * torch.cos(4 * points)]).double()
    modes = Modes(fields[0], fields[1:], torch.zeros(1, 2))
    regress(field, "rem", modes, 60, 0)
    z = torch.zeros(1, field.code_dims["rem"])
    z[0, :2] = torch.tensor([2.0, -1.0])
    codes = {name: torch.zeros(1, dim) for name, dim in field.code_dims.items()} | {"rem": z}
    found = field.registered(field.condition(codes))["rem"][0]
    wanted = (fields[0] + 2 * fields[1] - fields[2]).float()
    assert float((found - wanted).abs().mean()) < 0.01 * float(wanted.abs().mean())


def test_a_parts_net_is_still_around_its_part(config: Config, table: IdTable) -> None:
    """What it leaves just outside is a crease at the mask's edge."""
    skin = 0.5 * sphere(1000).float()
    sector = 1 + ((torch.atan2(skin[:, 1], skin[:, 0]) / (2 * math.pi)) % 1 * len(table.parts.names)).long()
    labels = torch.where(skin[:, 2].abs() < 0.25, sector, 0).to(torch.uint8)
    field = build_field(config, table, replace(toy_template(table.parts), points=skin, parts=labels, topology=None), 100.0)
    assert isinstance(field, Morph)
    name, points = field.parts.names[0], field.template_points
    own = field.template_parts == field.parts.label(name)
    depth = torch.cdist(points, points[~own]).amin(1)
    shape = torch.where(own[:, None], (0.5 * depth[:, None]).expand(-1, 3), 0.0).double()
    regress(field, name, Modes(torch.zeros_like(shape), shape[None], torch.zeros(1, 1)), 60, 0)
    z = torch.zeros(1, field.code_dims[name])
    z[0, 0] = 1.0
    net = field.nets[name]
    assert isinstance(net, BasisNet)
    moved = at_shared_points(points, net(z))[0].detach().norm(dim=1)
    apart = torch.cdist(points, points[own]).amin(1) * field.mm_per_unit
    around = ~own & (apart < AROUND_MM)
    assert int(around.sum()) > 5 and int(own.sum()) > 20
    wanted = shape.norm(dim=1)
    torch.testing.assert_close(moved[own].mean().double(), wanted[own].mean(), rtol=0.2, atol=0)
    assert float(moved[around].mean()) < 0.1 * float(wanted[own].mean())


def test_normals_across_a_sphere_are_its_radii() -> None:
    points = sphere(2000).float()
    assert float((surface_normals(points) * points).sum(1).abs().min()) > 0.95


# -- the start ----------------------------------------------------------------------------------------------------------


def heads_with_mouths(gaps: list[float]) -> RegisteredHeads:
    """Heads of three points whose lips are so many units apart in the scan, and closed in all other stages."""
    landmarks = torch.zeros(len(gaps), 6, 68, 3)
    stages = torch.zeros(len(gaps), 6, 3, 3)
    for head, gap in enumerate(gaps):
        landmarks[head, 0, 66, 1] = -gap
        stages[head, 0, 2, 1] = -gap
    neutral = torch.tensor([gap == 0 for gap in gaps])
    return RegisteredHeads(stages, landmarks, torch.arange(3), {}, neutral, 100.0)


def test_the_template_opens_its_mouth_as_the_wide_expressions_do() -> None:
    points, landmarks = mouth_opening(heads_with_mouths([0, 0.3, 0.02, 0.2]))
    assert points[2, 1].item() == pytest.approx(-0.25 * OPENED) == landmarks[66, 1].item()
    assert float(points[:2].abs().max()) == 0


def test_a_template_without_open_mouths_stays_as_it_is() -> None:
    for gaps in ([0, 0], [0, 0.01]):
        points, landmarks = mouth_opening(heads_with_mouths(gaps))
        assert float(points.abs().max()) == 0 == float(landmarks.abs().max())


def test_vertices_go_to_the_open_mouth_with_their_neighbours(meshed: Morph) -> None:
    """Two halves that part: no vertex stays with the other half, where the nets, not trained yet, would leave it."""
    topology = meshed.topology
    assert topology is not None
    closed = topology.vertices.clone()
    upper = closed[:, 1:2] > 0
    opening = torch.where(upper, 0.1, -0.1) * torch.tensor([0.0, 1.0, 0.0], dtype=F64)
    known = torch.arange(len(closed)) % 4 != 1
    registered = torch.where(known, known.cumsum(0) - 1, -1)
    weights = vertex_weights(topology, registered, int(known.sum()))
    open_topology(meshed, weights, opening[known], registered, None)
    opened = meshed.topology_vertices
    torch.testing.assert_close(opened[known], closed[known] + opening[known])
    # An unknown vertex moves as its neighbours do, but for a search nearby: so as its half where they are of one half.
    moved = (opened - closed)[~known]
    wanted = follow(weights, opening[None, known])[0][~known]
    assert float((moved - wanted).norm(dim=1).max()) < ASTRAY_MM / meshed.mm_per_unit
    assert ((moved[:, 1:2] > 0) == upper[~known])[closed[~known][:, 1].abs() > 0.15].all()
