"""Heads whose every bump is known: a sphere with radial bumps for parts, so displacement and codes have closed forms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from facegraft_model.config import Config, ModelConfig
from facegraft_model.data.ids import IdTable
from facegraft_model.editing.partcodes import part_codes
from facegraft_model.method import Batch, Codes, Field, SDFGrad, TemplateFacts, Terms
from torch import Tensor
from toy_parts import EYES

CODES = part_codes(EYES)
RADIUS, MM = 0.6, 100.0
DIRECTIONS = {"nose": ((0.0, 0.0),), "eyes": ((-0.75, 0.75), (0.75, 0.75)), "mouth": ((0.0, -1.3),), "rem": ()}
BUMP, PART = 0.35, 0.45
"""Angles: where a bump ends, and its part."""


class Bumps(Field):
    """|x| = 0.6 + Σ code₀ · bump(angle to the part's direction); code₀ of the remainder adds to the sphere's radius.

    leak: share of a part's code₀ that moves the whole head as well. modes: see `_mixed`.

    The warp takes that off again, along the radius. So corresponding points lie on one radius, and move by the change of codes.
    """

    def __init__(self, subjects: int = 6, method: str = "parts", leak: float = 0.0, modes: str = "first") -> None:
        people = tuple(f"p{i:02}" for i in range(subjects))
        table = IdTable(EYES, people, (), tuple((name,) * 4 for name in people), (), ())
        names = CODES if method == "parts" else ("id",)
        rows = dict.fromkeys(names, "subject")
        config = Config(model=ModelConfig(method=method, code_init=0.02))  # type: ignore[arg-type]
        torch.manual_seed(0)
        super().__init__(config, table, _template(), MM, dict.fromkeys(names, 3), rows)
        self.leak, self.modes = leak, modes

    def height(self, x: Tensor, codes: Codes) -> Tensor:
        direction = torch.nn.functional.normalize(x, dim=-1)
        total = self._mixed(codes["rem"], direction)
        for name, where in DIRECTIONS.items():
            for d in where:
                axis = _unit(d).to(x)
                angle = torch.acos((direction @ axis).clamp(-1, 1))
                bump = (1 - (angle / BUMP) ** 2).clamp_min(0) ** 3
                total = total + self._mixed(codes[name], 4 * (direction - axis)) * bump
                total = total + self.leak / len(where) * codes[name][:, :1]
        return total

    def _mixed(self, code: Tensor, offset: Tensor) -> Tensor:
        """What the entries of a code [B,3] do at points [B,N,3]: only the first counts; all in the same way; or each in its own."""
        if self.modes == "first":
            return code[:, :1].expand(offset.shape[:2])
        if self.modes == "same":
            return code.sum(1, keepdim=True).expand(offset.shape[:2])
        return code[:, :1] + code[:, 1:2] * offset[..., 0] + code[:, 2:] * offset[..., 1]

    def warp(self, points: Tensor, codes: Codes) -> Tensor:
        radius = points.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        return points * (1 - self.height(points, codes)[..., None] / radius)

    def sdf(self, points: Tensor, codes: Codes) -> Tensor:
        return points.norm(dim=-1) - RADIUS - self.height(points, codes)

    def sdf_and_grad(self, points: Tensor, codes: Codes) -> SDFGrad:
        raise NotImplementedError

    def training_terms(self, batch: Batch, codes: Codes, step: int) -> Terms:
        raise NotImplementedError

    def fit_terms(self, batch: Batch, codes: Codes, fit: object) -> Terms:
        raise NotImplementedError


def _unit(xy: Sequence[float]) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor([*xy, 1.0]), dim=0)


def _template() -> TemplateFacts:
    k = torch.arange(4000, dtype=torch.float64)  # a spiral with equal areas
    z = 1 - (2 * k + 1) / 4000
    turn = k * math.pi * (3 - math.sqrt(5))
    ring = (1 - z**2).sqrt()
    points = torch.stack([ring * turn.cos(), ring * turn.sin(), z], 1).float()
    parts = torch.zeros(len(points), dtype=torch.uint8)
    for name in EYES:
        for d in DIRECTIONS[name]:
            parts[points @ _unit(d) > math.cos(PART)] = EYES.label(name)
    return TemplateFacts(torch.zeros(68, 3), RADIUS * points, parts)


def codes(**first: float) -> dict[str, Tensor]:
    return {name: torch.tensor([[first.get(name, 0.0), 0.0, 0.0]]) for name in CODES}
