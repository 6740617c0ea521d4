"""Fits by Gauss-Newton, of heads and of scans with their pose."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from facegraft_model.config import Config
from facegraft_model.data.ids import IdTable
from facegraft_model.errors import ModelError
from facegraft_model.fitting.gaussnewton import STAGES, Posed, gauss_newton
from facegraft_model.method import Field
from facegraft_model.models import build_field
from facegraft_model.morph import morph
from facegraft_model.morph.morph import Morph
from facegraft_model.morph.regression import regress
from facegraft_model.nets.modes import Modes
from facegraft_model.testing import toy_batch, toy_config, toy_template
from small_morphs import small_config, small_morph, sphere, three_parts
from torch import Tensor

F64 = torch.float64


@pytest.fixture
def table() -> IdTable:
    return three_parts()


@pytest.fixture
def config() -> Config:
    return small_config()


@pytest.fixture
def field(table: IdTable) -> Morph:
    return small_morph(table)


@pytest.fixture
def ball(config: Config, table: IdTable) -> Morph:
    """A field whose template is nearly a sphere, and whose remainder's code scales and shears it."""
    field = build_field(config, table, toy_template(table.parts), 100.0)
    assert isinstance(field, Morph)
    optimiser = torch.optim.Adam(field.template_weights.parameters(), lr=3e-3)
    g = torch.Generator().manual_seed(0)
    for _ in range(400):
        x = torch.randn(512, 3, generator=g) * 0.4
        loss = (field.template_distance(x[None]).sdf[0] - (x.norm(dim=1) - 0.5)).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    points = field.template_points.double()
    shapes = torch.stack([0.1 * points, 0.1 * points[:, [1, 0, 2]], 0.1 * points * torch.tensor([1.0, 0, 0])])
    regress(field, "rem", Modes(torch.zeros_like(points), shapes, torch.zeros(1, 3)), 40, 0)
    return field.eval().requires_grad_(False)


def fit_batch(field: Morph, codes: dict[str, Tensor], count: int = 600) -> dict[str, Tensor]:
    """Points on the surface of a head of these codes."""
    q = 0.5 * sphere(count, 9).float()
    for _ in range(5):
        there = field.template_distance(q[None])
        q = q - (there.sdf.unsqueeze(2) * there.grad / there.grad.square().sum(2, keepdim=True))[0]
    points = field.unwarp(q[None], codes)
    empty = points[:, :0]
    return {
        "item": torch.zeros(1, dtype=torch.int64),
        "surface_points": points,
        "surface_normals": torch.zeros_like(points),
        **dict.fromkeys(("near_points", "near_normals", "free_points", "free_normals"), empty),
        **dict.fromkeys(("near_sdf", "free_sdf"), empty[..., 0]),
    }


def head(field: Morph) -> dict[str, Tensor]:
    codes = {name: torch.zeros(1, dim) for name, dim in field.code_dims.items()}
    codes["rem"][0, :3] = torch.tensor([0.8, -0.6, 1.0])
    return codes


ROWS: Callable[[Field], dict[str, Tensor]] = lambda field: dict.fromkeys(field.code_dims, torch.zeros(1, dtype=torch.int64))  # noqa: E731


def test_a_points_normal_tells_on_which_side_it_lies(ball: Morph, monkeypatch: pytest.MonkeyPatch) -> None:
    """A point nearer to one side of a head, but facing as the other side does, is looked for there: as with touching lips."""
    conditioning = ball.condition({name: torch.zeros(1, dim) for name, dim in ball.code_dims.items()})
    anchors = ball.template_points[ball.anchors]
    facing = torch.nn.functional.normalize(ball.template_distance(anchors[None]).grad[0], dim=1)
    shift = torch.stack(list(ball.registered(conditioning).values())).sum(0)[0][ball.anchors]
    # Guesses are shifted as the registered point is; around the middle of the ball all of them are equally near.
    points, normals = 0.01 * facing[:8], -facing[:8]
    monkeypatch.setattr(morph, "TURNED_MM", 50.0)
    squares = torch.cdist(points, anchors + shift).square()
    for given, wanted in (
        (None, squares),
        (torch.zeros_like(normals), squares),
        (normals, squares - (50.0 / ball.mm_per_unit) ** 2 / 2 * normals @ facing.T),
    ):
        found = ball.start(points[None], conditioning, None if given is None else given[None])[0]
        nearest = wanted.argmin(1)
        torch.testing.assert_close(found, points - shift[nearest], atol=1e-5, rtol=0)
        if given is normals:
            assert ((normals * facing[nearest]).sum(1) > 0.5).all()
        else:
            assert ((normals * facing[nearest]).sum(1) < -0.5).all()


def test_gauss_newton_finds_a_head_in_a_few_steps(ball: Morph) -> None:
    codes, fit = head(ball), replace(ball.config.fit, solver="gauss-newton", steps=30, noise_mm=0.05)
    batch = fit_batch(ball, codes)
    start = {name: torch.zeros_like(code) for name, code in codes.items()}
    found = gauss_newton(ball, batch, ROWS(ball), fit, start)
    assert found.steps <= 16
    torch.testing.assert_close(found.codes["rem"], codes["rem"], rtol=0, atol=0.1)
    assert float(ball.sdf(batch["surface_points"], found.codes).abs().mean()) * 100 < 0.05


def test_a_warm_start_goes_on_from_a_trial(ball: Morph) -> None:
    """The same fit in no more steps; the priors stay about the first codes, and the trial's own codes are left as they are."""
    codes, fit = head(ball), replace(ball.config.fit, solver="gauss-newton", steps=30, noise_mm=0.05)
    batch = fit_batch(ball, codes)
    start = {name: torch.zeros_like(code) for name, code in codes.items()}
    cold = gauss_newton(ball, batch, ROWS(ball), fit, start)
    one = replace(fit, steps=1)
    trial = gauss_newton(ball, batch, ROWS(ball), one, start, stages=STAGES[:1])
    before = {name: code.clone() for name, code in trial.codes.items()}
    again = gauss_newton(ball, batch, ROWS(ball), one, start, stages=STAGES[:1], warm_start=trial)
    assert again.cost < trial.cost
    warm = gauss_newton(ball, batch, ROWS(ball), fit, start, warm_start=trial)
    assert warm.steps <= cold.steps
    assert abs(warm.cost / cold.cost - 1) < 0.01
    assert all(torch.equal(trial.codes[name], code) for name, code in before.items())


def test_gauss_newton_with_outliers_and_a_pose(ball: Morph) -> None:
    codes = head(ball)
    batch = fit_batch(ball, codes)
    points = batch["surface_points"]
    g = torch.Generator().manual_seed(4)
    points[:, ::10] += 0.3 * torch.randn(points[:, ::10].shape, generator=g)
    shifted = Posed(torch.eye(4), False).moved(torch.tensor([0.05, -0.04, 0.03, 0.02, -0.03, 0.01]))
    truth = points.clone()
    batch["surface_points"] = shifted(points)
    fit = replace(ball.config.fit, solver="gauss-newton", steps=60, noise_mm=0.05, robust_mm=1.0)
    start = {name: torch.zeros_like(code) for name, code in codes.items()}
    found = gauss_newton(ball, batch, ROWS(ball), fit, start, pose=Posed(torch.eye(4), False))
    assert found.pose is not None
    inliers = torch.arange(points.shape[1]) % 10 != 0
    error = ball.sdf(found.pose(batch["surface_points"]), found.codes)[:, inliers].abs().mean() * 100
    assert float(error) < 0.2
    # A sphere does not fix its own rotation, but its centre.
    assert float((found.pose(batch["surface_points"]) - truth)[:, inliers].mean(1).abs().max()) < 0.02


def test_gauss_newton_needs_derivatives(table: IdTable) -> None:
    field = build_field(toy_config(), table, toy_template(table.parts), 100.0)
    batch = toy_batch(table)
    with pytest.raises(ModelError, match=r"use fit\.solver=adam"):
        gauss_newton(field, batch, {}, field.config.fit, {})


def test_heads_that_share_a_code_are_fitted_together(field: Morph, table: IdTable) -> None:
    batch = toy_batch(table)
    rows = {name: torch.tensor([0, 0, 1, 1]) if name != "exp" else torch.arange(4) for name in field.code_dims}
    start = {name: torch.zeros(int(rows[name].max()) + 1, dim, dtype=F64) for name, dim in field.code_dims.items()}
    fit = replace(field.config.fit, solver="gauss-newton", steps=3)
    found = gauss_newton(field, batch, rows, fit, start)
    assert {name: len(code) for name, code in found.codes.items()} == {name: 4 if name == "exp" else 2 for name in rows}
    assert math.isfinite(found.cost)
