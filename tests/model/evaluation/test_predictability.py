"""Variation predictability of the heads of bump_heads, whose codes are separable or not by construction."""

from __future__ import annotations

import json
from typing import Any

import bump_heads as heads
import numpy as np
import pytest
import torch
from facegraft_model.editing.edit import DecodeSettings
from facegraft_model.editing.partcodes import trained_head
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.leakage import leakage_study
from facegraft_model.evaluation.predictability import variation_predictability

Bumps, codes, MM = heads.Bumps, heads.codes, heads.MM


def axes(modes: str) -> Any:
    """Codes whose principal components are the entries themselves."""
    field = Bumps(modes=modes)
    with torch.no_grad():
        for name in heads.CODES:
            table = torch.tensor([[3.0, 0, 0], [0, 2, 0], [0, 0, 1]])
            field.tables[name].copy_(0.01 * torch.cat([table, -table]))
    return field


def test_separable_components_are_told_apart() -> None:
    found = variation_predictability(axes("own"), bases=4, points=400, settings=DecodeSettings(resolution=24))
    assert (found.chance, found.part_chance, found.n_train, found.n_test) == (1 / 12, 1 / 4, 24, 24)
    assert found.accuracy.mean == found.part_accuracy.mean == 1.0
    assert np.array_equal(found.confusion, 2 * np.eye(12))
    json.dumps(found.to_json(), allow_nan=False)


def test_components_that_do_the_same_are_guessed() -> None:
    settings = DecodeSettings(resolution=24)
    found = variation_predictability(axes("same"), parts=("nose", "mouth"), bases=30, points=200, settings=settings)
    assert found.part_accuracy.mean > 0.9
    assert found.accuracy.mean == pytest.approx(1 / 3, abs=0.15)  # of 3 in the right part


def test_the_seed_decides_everything() -> None:
    settings = DecodeSettings(resolution=24)
    first, again, other = (
        variation_predictability(axes("own"), parts=("nose",), bases=2, points=400, seed=seed, settings=settings)
        for seed in (0, 0, 1)
    )
    assert first == again != other
    field = Bumps(leak=0.2)
    people = [trained_head(field, f"p{i:02}") for i in range(3)]
    assert leakage_study(field, people, pairs=1, settings=settings) == leakage_study(
        field, people, pairs=1, settings=settings
    )


def test_nothing_to_predict() -> None:
    field = axes("first")
    with torch.no_grad():
        field.tables["rem"].zero_()
    with pytest.raises(ModelError, match="all trained codes of part 'rem' are the same"):
        variation_predictability(field, bases=2, points=50, settings=DecodeSettings(resolution=24))
    with pytest.raises(ModelError, match="training and test bases"):
        variation_predictability(field, bases=1)
