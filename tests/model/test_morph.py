"""The template's morph: neural bases, masks, the search for points, and the derivatives by the codes."""

from __future__ import annotations

from facegraft_model.testing import FieldSuite

SMALL = (
    "model.nets=basis",
    "model.features=24",
    "model.part_features=16",
    "model.exp_features=16",
    "model.basis_omega=5",
)


class TestMorph(FieldSuite):
    settings = SMALL
    moved = 0.001
