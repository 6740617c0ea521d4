"""Extraction against analytic surfaces, and sparse against dense."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from facegraft_model.decoding.decode import decode
from facegraft_model.decoding.extract import EmptyFieldError, Mesh, _covers_cell, extract_surface
from facegraft_model.decoding.grid import Grid
from facegraft_model.errors import ModelError
from facegraft_model.method import Field
from numpy.typing import NDArray
from torch import Tensor

Points = NDArray[np.float32]
CENTRE = np.array([0.05, -0.03, 0.02])


class Counted:
    """A field that counts its evaluations and remembers where they were."""

    def __init__(self, sdf: Callable[[Points], NDArray[Any]]) -> None:
        self.sdf, self.points = sdf, list[Points]()

    def __call__(self, points: Points) -> NDArray[Any]:
        self.points.append(points)
        return self.sdf(points)

    @property
    def count(self) -> int:
        return sum(map(len, self.points))


def ball(radius: float, centre: NDArray[np.float64] = CENTRE) -> Callable[[Points], NDArray[Any]]:
    return lambda p: np.linalg.norm(p - centre, axis=1) - radius


def bumpy_torus(p: Points) -> NDArray[Any]:
    ring = np.hypot(p[:, 0], p[:, 1]) - 0.55
    return np.hypot(ring, p[:, 2]) - 0.2 + 0.02 * np.sin(9 * p[:, 0]) * np.cos(8 * p[:, 1] + 3 * p[:, 2])


def two_pieces(p: Points) -> NDArray[Any]:
    small = ball(0.04, np.array([-0.61, 0.52, 0.4]))
    return np.minimum(ball(0.5)(p), small(p))


def volume(mesh: Mesh) -> float:
    a, b, c = mesh.vertices[mesh.faces].transpose(1, 0, 2)
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def is_closed(mesh: Mesh) -> bool:
    """Every directed edge occurs once, and its opposite once."""
    edges = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    n = len(mesh.vertices)
    forward, backward = np.unique(edges[:, 0] * n + edges[:, 1]), np.unique(edges[:, 1] * n + edges[:, 0])
    return len(forward) == len(edges) and np.array_equal(forward, backward)


@pytest.mark.parametrize(("resolution", "polish", "error"), [(64, False, 2e-4), (64, True, 5e-6), (128, False, 5e-5)])
def test_sphere_has_its_radius_and_centre(resolution: int, polish: bool, error: float) -> None:
    mesh = extract_surface(ball(0.7), Grid.cube(resolution), polish=polish)
    x, y = mesh.vertices, np.ones((len(mesh.vertices), 1))
    fit = np.linalg.lstsq(np.hstack([2 * x, y]), (x**2).sum(axis=1), rcond=None)[0]
    assert np.abs(fit[:3] - CENTRE).max() < 1e-5
    assert abs(np.sqrt(fit[3] + fit[:3] @ fit[:3]) - 0.7) < 1e-4
    assert np.abs(np.linalg.norm(x - CENTRE, axis=1) - 0.7).max() < error
    assert is_closed(mesh)
    assert volume(mesh) == pytest.approx(4 / 3 * np.pi * 0.7**3, rel=3e-3)  # positive: wound outwards


def test_grid_off_centre_with_unequal_sides() -> None:
    grid = Grid(np.array([-0.9, -0.8, -0.7]), 0.023, (77, 71, 64))
    mesh = extract_surface(ball(0.6), grid, polish=True)
    assert np.abs(np.linalg.norm(mesh.vertices - CENTRE, axis=1) - 0.6).max() < 1e-5
    assert grid.points(grid.nodes(grid.ids(np.array([76, 70, 63])))) == pytest.approx(
        grid.origin + 0.023 * np.array([76, 70, 63])
    )


@pytest.mark.parametrize("field", [ball(0.7), bumpy_torus, two_pieces])
@pytest.mark.parametrize("resolution", [65, 96])
def test_sparse_gives_the_dense_mesh(field: Callable[[Points], NDArray[Any]], resolution: int) -> None:
    sparse = extract_surface(field, Grid.cube(resolution), clip_radius=1.0)
    dense = extract_surface(field, Grid.cube(resolution), mode="dense", clip_radius=1.0)
    assert np.array_equal(sparse.vertices, dense.vertices)
    assert np.array_equal(sparse.faces, dense.faces)
    assert is_closed(sparse)


def test_steep_field_is_followed_to_its_end() -> None:
    """A thin finger, 4 times as steep as a distance: found where it leaves the body, then followed."""

    def field(p: Points) -> NDArray[Any]:
        finger = np.hypot(p[:, 0] - 0.013, p[:, 1] - 0.017) - 0.03
        tip = np.maximum(4 * finger, np.maximum(-p[:, 2], p[:, 2] - 0.9))
        return np.minimum(ball(0.4)(p), tip)

    grid = Grid.cube(97)
    sparse, dense = extract_surface(field, grid), extract_surface(field, grid, mode="dense")
    assert sparse.vertices[:, 2].max() > 0.88
    assert np.array_equal(sparse.vertices, dense.vertices)


def test_every_node_is_evaluated_once_and_few_are() -> None:
    field, grid = Counted(ball(0.7)), Grid.cube(256)
    extract_surface(field, grid, chunk=100_000)
    points = np.concatenate(field.points)
    nodes = np.rint((points - grid.origin) / grid.spacing).astype(np.int64)
    assert np.abs(grid.points(nodes) - points).max() < 1e-7
    assert len(np.unique(grid.ids(nodes))) == len(points)
    assert field.count < 0.06 * 256**3
    assert max(map(len, field.points)) <= 100_000
    dense = Counted(ball(0.7))
    extract_surface(dense, Grid.cube(33), mode="dense")
    assert dense.count == 33**3


def test_two_balls_cover_a_cell_as_brute_force_says() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 2, (2, 400))
    line = np.linspace(0, 1, 41)
    points = np.array(list(itertools.product(line, repeat=3)))
    near, far = np.linalg.norm(points, axis=1), np.linalg.norm(points - 1, axis=1)
    brute = np.array([((near <= x) | (far <= y)).all() for x, y in zip(a, b, strict=True)])
    claimed = _covers_cell(a, b)
    assert not (claimed & ~brute).any()
    shrunk = np.array([((near <= x - 0.05) | (far <= y - 0.05)).all() for x, y in zip(a, b, strict=True)])
    assert not (shrunk & ~claimed).any()


def test_noise_and_exact_zeros_give_closed_meshes() -> None:
    grid = Grid.cube(24)
    noise = np.random.default_rng(1).integers(-1, 2, grid.shape).astype(np.float64)  # a third of the nodes exactly 0
    noise[[0, -1]] = noise[:, [0, -1]] = noise[:, :, [0, -1]] = 1

    def field(p: Points) -> NDArray[Any]:
        return noise[tuple(np.rint((p - grid.origin) / grid.spacing).astype(int).T)]

    mesh = extract_surface(field, grid, mode="dense")
    corners = mesh.vertices[mesh.faces]
    assert is_closed(mesh)
    assert np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).min() > 0


def test_largest_keeps_one_piece() -> None:
    every = extract_surface(two_pieces, Grid.cube(96))
    largest = extract_surface(two_pieces, Grid.cube(96), keep="largest")
    assert 0 < len(largest.vertices) < len(every.vertices)
    assert np.abs(np.linalg.norm(largest.vertices - CENTRE, axis=1) - 0.5).max() < 1e-3
    assert is_closed(largest)


@pytest.mark.parametrize("mode", ["sparse", "dense"])
def test_nothing_outside_the_ball(mode: Any) -> None:
    def field(p: Points) -> NDArray[Any]:
        return np.minimum(ball(0.5)(p), ball(0.2, np.array([0.8, 0.8, 0.8]))(p))

    mesh = extract_surface(field, Grid.cube(64), mode=mode, clip_radius=1.0)
    assert np.linalg.norm(mesh.vertices, axis=1).max() < 0.7
    with pytest.raises(EmptyFieldError, match=r"no zero crossing inside the ball of radius 1 "):
        extract_surface(ball(0.2, np.array([0.8, 0.8, 0.8])), Grid.cube(64), mode=mode, clip_radius=1.0)


@pytest.mark.parametrize("mode", ["sparse", "dense"])
def test_empty_field_is_an_error(mode: Any) -> None:
    with pytest.raises(EmptyFieldError, match="no zero crossing on the 32×32×32 grid"):
        extract_surface(lambda p: np.linalg.norm(p, axis=1) + 0.1, Grid.cube(32), mode=mode)


def test_refusals() -> None:
    with pytest.raises(ModelError, match="the field is nan at"):
        extract_surface(lambda p: np.where(p[:, 0] > 0.2, np.nan, 1.0), Grid.cube(16))
    with pytest.raises(ModelError, match="gave shape"):
        extract_surface(lambda p: p, Grid.cube(16))
    with pytest.raises(ModelError, match="'sparse' or 'dense'"):
        extract_surface(ball(0.5), Grid.cube(16), mode=cast(Any, "octree"))
    with pytest.raises(ModelError, match="resolution 1024"):
        Grid.cube(1024)
    with pytest.raises(ModelError, match="at least 2 nodes"):
        Grid(np.zeros(3), 0.1, (5, 1, 5))


class WarpedSphere(torch.nn.Module):
    """A sphere about 0 in the template's space, its front half labelled 1; the code moves it."""

    has_warp, has_unwarp = True, False

    def __init__(self) -> None:
        super().__init__()
        self.sizes = list[int]()
        directions = torch.nn.functional.normalize(
            torch.randn(2000, 3, generator=torch.Generator().manual_seed(0)), dim=1
        )
        self.template_points = 0.6 * directions
        self.template_parts = (directions[:, 2] > 0).to(torch.uint8)

    def warp(self, points: Tensor, codes: dict[str, Tensor]) -> Tensor:
        self.sizes.append(points.shape[1])
        assert not torch.is_grad_enabled()
        return points - codes["rem"][:, None]

    def sdf(self, points: Tensor, codes: dict[str, Tensor]) -> Tensor:
        return torch.linalg.norm(self.warp(points, codes), dim=-1) - 0.6


def test_decode_gives_mesh_template_coordinates_and_parts() -> None:
    field = WarpedSphere()
    shift = torch.tensor([[0.1, -0.05, 0.2]])
    decoded = decode(cast(Field, field), {"rem": shift}, resolution=64, chunk=5000)
    assert max(field.sizes) <= 5000
    assert decoded.template_coords is not None and decoded.parts is not None
    assert np.abs(decoded.mesh.vertices - shift.numpy() - decoded.template_coords).max() < 1e-6
    assert np.abs(np.linalg.norm(decoded.template_coords, axis=1) - 0.6).max() < 1e-5
    sure = np.abs(decoded.template_coords[:, 2]) > 0.06  # away from the border, where the nearest stage point decides
    assert np.array_equal(decoded.parts[sure], (decoded.template_coords[sure, 2] > 0).astype(np.uint8))
    field.has_warp = False
    bare = decode(cast(Field, field), {"rem": shift}, resolution=64)
    assert bare.template_coords is None and bare.parts is None
    assert np.array_equal(bare.mesh.vertices, decoded.mesh.vertices)


def test_decode_takes_one_head() -> None:
    with pytest.raises(ModelError, match=r"codes of one head.*rem \(2, 3\)"):
        decode(cast(Field, WarpedSphere()), {"rem": torch.zeros(2, 3)})


@pytest.mark.slow
def test_largest_grid() -> None:
    counted = Counted(ball(0.8))
    sparse = extract_surface(counted, Grid.cube(512), clip_radius=1.0)
    assert counted.count < 0.03 * 512**3
    assert np.abs(np.linalg.norm(sparse.vertices - CENTRE, axis=1) - 0.8).max() < 1e-5
    assert is_closed(sparse)
