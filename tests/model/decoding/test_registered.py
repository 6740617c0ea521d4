"""Heads on the template's vertices, against warps whose inverse is known and against a trained model of spheres."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import trimesh
from facegraft_model.data.topology import Topology
from facegraft_model.decoding import registered
from facegraft_model.decoding.registered import LEVEL_MM, Registered, RegistrationError, registered_vertices
from facegraft_model.method import Codes, Field, SDFGrad
from facegraft_model.models import load_field
from torch import Tensor

RADIUS = 0.6


def ball(subdivisions: int = 3) -> Topology:
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions)
    vertices = torch.from_numpy(RADIUS * np.asarray(mesh.vertices)).float()
    count = len(vertices)
    faces = torch.from_numpy(np.asarray(mesh.faces, dtype=np.int64))
    caps = (torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    return Topology(vertices, faces, torch.zeros(count, dtype=torch.uint8), torch.arange(count), *caps)


class Wavy(torch.nn.Module):
    """A sphere seen through a smooth warp of amplitude `codes["id"]`; far from an isometry, and its distances are scaled."""

    has_warp, has_unwarp, mm_per_unit = True, False, 100.0
    template_points = torch.zeros(0, 3)
    template_parts = torch.zeros(0)

    def __init__(self) -> None:
        super().__init__()
        self.topology = ball()

    def warp(self, points: Tensor, codes: Codes) -> Tensor:
        return points + codes["id"][:, None] * torch.sin(3 * points.roll(1, -1) + 1)

    def sdf(self, points: Tensor, codes: Codes) -> Tensor:
        return 0.8 * (torch.linalg.norm(self.warp(points, codes), dim=-1) - RADIUS)

    def sdf_and_grad(self, points: Tensor, codes: Codes) -> SDFGrad:
        with torch.enable_grad():
            x = points.detach().requires_grad_()
            sdf = self.sdf(x, codes)
            return SDFGrad(sdf.detach(), torch.autograd.grad(sdf.sum(), x)[0])


class Inverting(Wavy):
    """Says itself where the template's points are, by a fixed-point iteration; its warp need not be asked."""

    has_unwarp = True
    asked = 0

    def unwarp(self, template_points: Tensor, codes: Codes) -> Tensor:
        self.asked += template_points.shape[1]
        x = template_points
        for _ in range(60):
            x = x + template_points - super().warp(x, codes)
        return x

    def template_distance(self, template_points: Tensor) -> SDFGrad:
        length = torch.linalg.norm(template_points, dim=-1, keepdim=True)
        return SDFGrad(0.8 * (length[..., 0] - RADIUS), 0.8 * template_points / length)


CODES = {"id": torch.tensor([[0.08, 0.02, -0.05]])}


def exact(topology: Topology) -> np.ndarray:
    return Inverting().unwarp(topology.vertices.double()[None], {"id": CODES["id"].double()})[0].numpy()


def run(field: Any, codes: Codes = CODES) -> Registered:
    return registered_vertices(cast(Field, field), codes)


@pytest.mark.parametrize("kind", [Wavy, Inverting])
def test_vertices_are_those_that_warp_to_the_template(kind: type[Wavy]) -> None:
    field = kind()
    result = run(field)
    assert (result.lost, result.folded) == (0, 0)
    assert result.vertices.dtype == np.float64 and np.abs(result.sdf_mm).max() < 0.1 * LEVEL_MM
    truth = exact(field.topology)
    assert 100 * np.linalg.norm(field.topology.vertices.numpy() - truth, axis=1).max() > 5
    assert 100 * np.linalg.norm(result.vertices - truth, axis=1).max() < 0.01
    assert not isinstance(field, Inverting) or field.asked == 2 * len(truth)  # and the way out of the head


def test_vertices_reach_the_level_where_the_template_itself_is_off_it() -> None:
    """A model's template is only nearly the zero level: here it is 1 mm too large."""
    field = Wavy()
    field.topology = replace(field.topology, vertices=field.topology.vertices * (1 + 0.01 / RADIUS))
    result = run(field)
    assert np.abs(result.sdf_mm).max() <= LEVEL_MM
    distance = np.linalg.norm(result.vertices - exact(ball()), axis=1)
    assert 100 * distance.max() < 0.5  # not 1 mm: moved to the level, nearly along the normals


def test_a_head_that_is_turned_over_is_refused_with_the_count() -> None:
    field = Wavy()
    field.topology = replace(field.topology, faces=field.topology.faces.flip(1))
    with pytest.raises(RegistrationError, match=r" 1280 of 1280 triangles fold, 100.0% of the area \(at most 2% may\)"):
        run(field)


class Cut(Wavy):
    """Nothing warps beyond z = 0.3."""

    def warp(self, points: Tensor, codes: Codes) -> Tensor:
        warped = super().warp(points, codes)
        return torch.cat([warped[..., :2], warped[..., 2:].clamp_max(0.3)], -1)

    def sdf(self, points: Tensor, codes: Codes) -> Tensor:
        return torch.linalg.norm(Wavy.warp(self, points, codes), dim=-1) - RADIUS


def test_vertices_without_counterpart_are_counted() -> None:
    field = Cut()
    beyond = int((field.topology.vertices[:, 2] > 0.301).sum())
    with pytest.raises(RegistrationError, match=f"{beyond} of 642 vertices have no counterpart, 0 miss"):
        run(field)


def test_a_few_lost_vertices_are_accepted_but_none_off_the_surface(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registered, "LARGEST_SHARE", 1.0)
    result = run(Cut())
    assert result.lost > 100 and np.abs(result.sdf_mm).max() <= LEVEL_MM
    monkeypatch.setattr(registered, "LEVEL_MM", 1e-9)  # finer than float32
    with pytest.raises(RegistrationError, match=r" [1-9]\d* miss the surface by more than 1e-09 mm"):
        run(Wavy())


def test_a_field_without_a_warp_has_no_topology() -> None:
    field = Wavy()
    field.has_warp = False
    field.config = type("C", (), {"model": type("M", (), {"method": "deepsdf"})})  # type: ignore[assignment]
    with pytest.raises(RegistrationError, match="method deepsdf has no warp"):
        run(field)


def test_heads_of_a_trained_model(trained: Path) -> None:
    """Spheres of radius 0.5 and 0.6: every vertex is on the level, and near where the same place of the template is."""
    field = load_field(trained)
    assert field.topology is not None
    direction = torch.nn.functional.normalize(field.topology.vertices, dim=1).numpy()
    for name, radius in (("anna", 0.5), ("cleo", 0.6)):
        row = field.id_table.subject(name)
        result = run(field, {code: table[row : row + 1] for code, table in field.tables.items() if code != "exp"})
        assert np.abs(result.sdf_mm).max() <= LEVEL_MM and result.folded <= 12 and result.lost <= 6
        off = np.linalg.norm(result.vertices - radius * direction, axis=1)
        assert np.median(off) < 0.05
        assert result.describe()["vertices"] == 642
