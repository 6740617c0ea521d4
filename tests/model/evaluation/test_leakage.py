"""Leakage of the heads of bump_heads, for which it is known."""

from __future__ import annotations

import json
import math

import bump_heads as heads
import numpy as np
import pytest
import torch
from facegraft_model.editing.edit import DecodeSettings
from facegraft_model.editing.partcodes import trained_head
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.leakage import choose_pairs, leakage, leakage_study

Bumps, codes, MM = heads.Bumps, heads.codes, heads.MM
QUICK = DecodeSettings(resolution=64)


@pytest.mark.parametrize("part", ["nose", "eyes", "mouth"])
def test_compact_parts_do_not_leak(part: str) -> None:
    found = leakage(Bumps(), codes(), codes(nose=0.06, eyes=0.05, mouth=-0.05, rem=0.1), part, QUICK)
    assert found.ratio == pytest.approx(0.0, abs=1e-5) and found.inside_mm > 1 and found.outside_mm < 1e-4
    assert found.excluded_percent < 0.1 and found.n_outside > 5 * found.n_inside > 500


@pytest.mark.parametrize("leak", [0.05, 0.3])
def test_leakage_is_the_ratio_of_the_known_displacements(leak: float) -> None:
    field = Bumps(leak=leak)
    found = leakage(field, codes(), codes(nose=0.05), "nose", QUICK)
    share = float((field.template_parts == 1).float().mean())  # of the sphere; labels follow the template's points
    angle = np.linspace(0, heads.BUMP, 10_001)
    bump = (1 - (angle / heads.BUMP) ** 2) ** 3
    inside = math.sqrt(leak**2 + np.trapezoid((bump**2 + 2 * leak * bump) * np.sin(angle), angle) / (2 * share))
    assert found.outside_mm == pytest.approx(5.0 * leak, rel=0.025)
    assert found.inside_mm == pytest.approx(5.0 * inside, rel=0.02)
    assert found.ratio == pytest.approx(leak / inside, rel=0.04)


def test_parts_that_do_not_move_have_no_ratio() -> None:
    found = leakage(Bumps(), codes(), codes(eyes=0.05), "nose", QUICK)
    assert found.ratio is None and found.inside_mm == 0.0


def test_the_remainder_has_no_leakage() -> None:
    with pytest.raises(ModelError, match="leakage is defined for nose, eyes, mouth, not 'rem'"):
        leakage(Bumps(), codes(), codes(rem=0.1), "rem")
    with pytest.raises(ModelError, match="method is imface: it has no part codes"):
        leakage(Bumps(method="imface"), codes(), codes(), "nose")


def test_study_over_pairs() -> None:
    field = Bumps(leak=0.2)
    people = [trained_head(field, f"p{i:02}") for i in range(4)]
    with torch.no_grad():
        field.tables["eyes"][1:3] = field.tables["eyes"][0]
    study = leakage_study(field, people, parts=("nose", "eyes"), pairs=8, settings=DecodeSettings(resolution=32))
    nose, eyes = study.parts["nose"], study.parts["eyes"]
    assert (nose.n_pairs, nose.n_hosts, nose.unmoved) == (8, 4, 0)
    ratios = [pair.ratio for pair in study.pairs if pair.part == "nose"]
    assert nose.ratio is not None and nose.ratio.mean == pytest.approx(np.mean(ratios)) == pytest.approx(0.45, abs=0.05)
    assert (
        nose.ratio.low is not None
        and nose.ratio.high is not None
        and nose.ratio.low <= nose.ratio.mean <= nose.ratio.high
    )
    assert nose.pooled == pytest.approx(nose.outside_mm / nose.inside_mm)
    same = {frozenset(pair) for pair in (("p00", "p01"), ("p00", "p02"), ("p01", "p02"))}
    assert (
        eyes.unmoved
        == sum(frozenset((pair.host, pair.donor)) in same for pair in study.pairs if pair.part == "eyes")
        > 0
    )
    assert json.loads(json.dumps(study.to_json(), allow_nan=False))["parts"]["nose"]["n_pairs"] == 8


def test_pairs_are_distinct_and_balanced() -> None:
    pairs = choose_pairs(7, 20, 3)
    assert len(set(pairs)) == 20 and all(a != b for a, b in pairs)
    hosts = np.bincount([a for a, _ in pairs], minlength=7)
    assert hosts.max() - hosts.min() <= 1
    assert sorted(choose_pairs(4, 100, 0)) == [(a, b) for a in range(4) for b in range(4) if a != b]
    with pytest.raises(ModelError, match="at least 2 heads"):
        choose_pairs(1, 1, 0)
