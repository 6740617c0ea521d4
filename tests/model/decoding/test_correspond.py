"""Correspondence against warps whose inverse is known."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from facegraft_model.decoding.correspond import corresponding_points
from facegraft_model.decoding.decode import Decoded, decode
from facegraft_model.decoding.extract import Mesh
from facegraft_model.errors import ModelError
from facegraft_model.method import Field
from torch import Tensor


class Wavy(torch.nn.Module):
    """A sphere seen through a smooth warp of amplitude `codes["id"]`; far from an isometry."""

    has_warp, has_unwarp = True, False
    template_points = torch.zeros(0, 3)
    template_parts = torch.zeros(0)

    def warp(self, points: Tensor, codes: dict[str, Tensor]) -> Tensor:
        return points + codes["id"][:, None] * torch.sin(3 * points.roll(1, -1) + 1)

    def sdf(self, points: Tensor, codes: dict[str, Tensor]) -> Tensor:
        return torch.linalg.norm(self.warp(points, codes), dim=-1) - 0.6


def unwarp(field: Wavy, target: Tensor, codes: dict[str, Tensor]) -> Tensor:
    """The point that warps to `target`, by fixed-point iteration (the warp's displacement is a contraction)."""
    x = target
    for _ in range(80):
        x = x + target - field.warp(x, codes)
    return x


def test_known_correspondence() -> None:
    field = Wavy()
    codes = [
        {"id": torch.tensor([amplitude], dtype=torch.float64)}
        for amplitude in ((0.08, 0.02, -0.05), (-0.06, 0.07, 0.03))
    ]
    single = [{name: code.float() for name, code in head.items()} for head in codes]
    a, b = (decode(cast(Field, field), head, resolution=112) for head in single)
    assert a.parts is None  # no stage points
    points, distance = corresponding_points(a, b)
    template = field.warp(torch.from_numpy(a.mesh.vertices)[None], codes[0])
    exact = unwarp(field, template, codes[1])[0].numpy()
    assert np.linalg.norm(exact - a.mesh.vertices, axis=1).max() > 0.1
    assert np.linalg.norm(points - exact, axis=1).max() < 1e-3
    assert distance.max() < 1e-3


def test_missing_region_shows_as_template_distance() -> None:
    codes = {"id": torch.zeros(1, 3)}
    a = decode(cast(Field, Wavy()), codes, resolution=48)
    assert a.template_coords is not None
    half = Decoded(
        Mesh(a.mesh.vertices, a.mesh.faces[(a.mesh.vertices[a.mesh.faces, 2] > 0).all(axis=1)]), a.template_coords, None
    )
    _, distance = corresponding_points(a, half)
    assert distance[a.mesh.vertices[:, 2] > 0.05].max() < 1e-9
    assert distance[a.mesh.vertices[:, 2] < -0.5].min() > 0.4


def test_needs_template_coordinates() -> None:
    mesh = Mesh(np.eye(3), np.array([[0, 1, 2]]))
    with pytest.raises(ModelError, match="no warp to a template"):
        corresponding_points(Decoded(mesh, None, None), Decoded(mesh, np.eye(3), None))
