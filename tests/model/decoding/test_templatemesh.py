"""The template's surface: finer than a head's grid, with few triangles, closed, and cut at the ball."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
import trimesh
from facegraft_model.data.topology import Topology
from facegraft_model.decoding.extract import EmptyFieldError, Mesh, extract_surface
from facegraft_model.decoding.grid import Grid
from facegraft_model.decoding.templatemesh import SIMPLIFIED_MM, SPHERE, template_mesh
from facegraft_model.method import Field
from torch import Tensor

MM = 100.0
OPTIONS: dict[str, Any] = {"mode": "sparse", "clip_radius": 1.0, "keep": "all", "polish": True}


class Template(torch.nn.Module):
    """A field that is nothing but its template's distance."""

    mm_per_unit = MM
    topology: Topology | None = None

    def __init__(self, distance: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.template_points, self.distance, self.asked = torch.zeros(1, 3), distance, 0
        self.derived: dict[Any, Any] = {}
        self.eval()

    def template_sdf(self, points: Tensor) -> Tensor:
        self.asked += points.shape[1]
        return self.distance(points)


def made(distance: Callable[[Tensor], Tensor], resolution: int = 48, **options: Any) -> Mesh:
    return template_mesh(cast(Field, Template(distance)), resolution, OPTIONS | options)


def sphere(centre: float, radius: float) -> Callable[[Tensor], Tensor]:
    return lambda p: torch.linalg.vector_norm(p - torch.tensor([centre, 0.0, 0.0]), dim=-1) - radius


def slab(p: Tensor) -> Tensor:
    """A box with a slit of 4 mm, narrower than the cells of a grid of 48 nodes (4.3 mm), wider than those of one of 96."""
    box = (p.abs() - torch.tensor([0.5, 0.5, 0.5])).amax(-1)
    slit = torch.maximum(p[..., 0].abs() - 0.02, 0.3 - p[..., 1])
    return torch.maximum(box, -slit)


def test_sphere_stays_within_the_tolerance() -> None:
    mesh = made(sphere(0.1, 0.6))
    on_faces, _ = trimesh.sample.sample_surface(trimesh.Trimesh(mesh.vertices, mesh.faces), 50_000, seed=0)
    marched = extract_surface(lambda p: np.linalg.norm(p - [0.1, 0, 0], axis=1) - 0.6, Grid.cube(96))
    on_grid, _ = trimesh.sample.sample_surface(trimesh.Trimesh(marched.vertices, marched.faces), 50_000, seed=0)
    off, flat = (np.abs(np.linalg.norm(points - [0.1, 0, 0], axis=1) - 0.6).max() * MM for points in (on_faces, on_grid))
    assert flat < off < flat + SIMPLIFIED_MM
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert solid.is_watertight
    assert solid.volume == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=2e-3)


def test_a_slit_narrower_than_the_cells_of_the_heads_grid_is_found() -> None:
    mesh = made(slab)
    floor = np.abs(mesh.vertices - [0.0, 0.3, 0.0])[:, :2] < [0.019, 0.01]
    assert floor.all(axis=1).any()
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert solid.is_watertight
    assert solid.volume == pytest.approx(1 - 0.04 * 0.2, rel=1e-3)
    grid = extract_surface(lambda p: slab(torch.from_numpy(p)).numpy(), Grid.cube(96))
    assert len(mesh.faces) < len(grid.faces) / 10  # flat sides need few


def test_surface_that_leaves_the_ball_is_open_there_and_nothing_of_the_ball_is_left() -> None:
    mesh = made(sphere(0.5, 0.7))
    radii = np.linalg.norm(mesh.vertices, axis=1)
    assert radii.max() < 1
    off = np.abs(np.linalg.norm(mesh.vertices - [0.5, 0, 0], axis=1) - 0.7)
    assert off[radii < 0.97].max() * MM < SIMPLIFIED_MM
    assert off.max() < SPHERE / 2  # where an edge of the grid crosses both surfaces
    assert radii.max() > 0.97  # the surface goes on up to the ball
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert not solid.is_watertight
    # The part of the sphere that lies in the unit ball: x < 0.76, by the law of cosines; less the rim's cells.
    whole = 2 * np.pi * 0.7 * (0.76 - (0.5 - 0.7))
    assert 0.97 * whole < solid.area < whole


@pytest.mark.parametrize("value", [-0.3, 0.3])
def test_template_without_surface_is_an_error(value: float) -> None:
    with pytest.raises(EmptyFieldError, match="no "):
        made(lambda p: torch.full(p.shape[:-1], value))


def test_largest_piece() -> None:
    two = lambda p: torch.minimum(sphere(-0.3, 0.4)(p), sphere(0.6, 0.1)(p))  # noqa: E731
    assert made(two).vertices[:, 0].max() > 0.6
    assert made(two, keep="largest").vertices[:, 0].max() < 0.2


def test_one_extraction_serves_all_heads_but_not_those_of_a_model_in_training() -> None:
    field = Template(sphere(0.0, 0.5))
    first = template_mesh(cast(Field, field), 16, OPTIONS)
    asked = field.asked
    assert template_mesh(cast(Field, field), 16, OPTIONS) is first
    assert field.asked == asked
    field.train()
    template_mesh(cast(Field, field), 16, OPTIONS)
    assert field.asked == 2 * asked


def test_resolutions_that_mean_the_same_grid_share_it() -> None:
    field = Template(sphere(0.0, 0.5))
    assert template_mesh(cast(Field, field), 256, OPTIONS) is template_mesh(cast(Field, field), 512, OPTIONS)


def test_a_bubble_away_from_the_template_of_the_data_is_left_out_and_a_piece_on_it_is_kept() -> None:
    two = lambda p: torch.minimum(sphere(-0.3, 0.4)(p), sphere(0.6, 0.1)(p))  # noqa: E731
    balls = [trimesh.creation.icosphere(4, radius).apply_translation([x, 0, 0]) for x, radius in ((-0.3, 0.4), (0.6, 0.1))]

    def shown(*parts: trimesh.Trimesh) -> float:
        joined = trimesh.util.concatenate(list(parts))
        count = len(joined.vertices)
        field = Template(two)
        field.topology = Topology(
            torch.tensor(joined.vertices, dtype=torch.float32),
            torch.tensor(joined.faces),
            torch.zeros(count, dtype=torch.uint8),
            torch.arange(count),
            torch.zeros(0, 3),
            torch.zeros(0, 3, dtype=torch.int64),
        )
        return float(template_mesh(cast(Field, field), 32, OPTIONS).vertices[:, 0].max())

    assert shown(*balls) > 0.6
    assert shown(balls[0]) < 0.2
