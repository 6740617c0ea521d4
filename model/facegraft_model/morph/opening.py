"""The open mouth of the template: how far it opens, and where the topology's vertices go then."""

from __future__ import annotations

import torch
from torch import Tensor

from facegraft.vocabulary import EXP
from facegraft_model.losses import length
from facegraft_model.method import RegisteredHeads
from facegraft_model.morph.caps import CapMesh
from facegraft_model.morph.following import follow
from facegraft_model.morph.morph import Morph

OPENING_MM = 2.0
"""An expression opens the mouth if its inner lips are farther apart than the neutral ones by this."""
OPENED = 0.5
"""How far the template opens its mouth, as a share of what they do: half-way, so that neither they nor closed mouths are far from it."""
UPPER_LIP, LOWER_LIP = 62, 66
"""The middles of the inner lips (iBUG 68)."""
ASTRAY_MM = 1.0
"""A vertex that the search moves farther than this has been taken to the other lip."""


def mouth_opening(heads: RegisteredHeads) -> tuple[Tensor, Tensor]:
    """How far the template's registered points [M,3] and landmarks [68,3] are moved to open its mouth; 0 if no expression opens it.

    It is the share OPENED of the mean of the widest expression and those at least half as wide.
    """
    lips = heads.landmarks[:, :2, UPPER_LIP] - heads.landmarks[:, :2, LOWER_LIP]
    gaps = torch.linalg.vector_norm(lips, dim=2)
    wider = gaps[:, 0] - gaps[:, 1]
    widest = float(wider.max())
    chosen = (wider >= widest / 2) & ~heads.neutral
    if not bool(chosen.any()) or widest < OPENING_MM / heads.mm_per_unit:
        return torch.zeros_like(heads.stages[0, 0]), torch.zeros_like(heads.landmarks[0, 0])
    return (
        OPENED * (heads.stages[chosen, 0] - heads.stages[chosen, 1]).mean(0),
        OPENED * (heads.landmarks[chosen, 0] - heads.landmarks[chosen, 1]).mean(0),
    )


@torch.no_grad()
def open_topology(field: Morph, weights: Tensor, opening: Tensor, registered: Tensor, caps: CapMesh | None) -> None:
    """Move the topology's vertices from the template as it is in the data, with its mouth closed, to the field's own.

    opening [M,3]: how far the registered points were moved, and weights [n,M], sparse, those by which the vertices move with them;
    registered [n]: the row of each vertex among these, -1 for none; caps: the caps, opened. The lips of the closed mouth touch, so a vertex
    is looked for from where its weights take it, and nearby only.
    """
    topology = field.topology
    assert topology is not None
    vertices = topology.vertices
    registered = registered.to(vertices.device)
    known = registered >= 0
    opened = vertices + follow(weights, opening[None])[0].to(vertices)
    codes = {name: table[:1].detach() * 0 for name, table in field.tables.items()}
    conditioning = field.condition(codes)
    closing = conditioning._replace(weights={EXP: conditioning.weights[EXP]})
    found = field.locate(vertices[None], closing, opened[None]).q[0]
    right = ~known & (length(found - opened) < ASTRAY_MM / field.mm_per_unit)
    cap_vertices = topology.cap_vertices if caps is None else caps.own_vertices.to(vertices)
    field.set_topology(torch.where(right[:, None], found, opened), cap_vertices)
