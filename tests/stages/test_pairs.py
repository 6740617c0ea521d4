"""The graft plan: everybody donates equally often, and nothing is planned twice."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facegraft.stages.pairs import plan_pairings
from facegraft.store import check_key


@given(st.integers(1, 40), st.integers(1, 9), st.data(), st.floats(0, 1), st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_plan_is_balanced_complete_and_unique(
    count: int, parts: int, data: st.DataObject, independent: float, seed: int
) -> None:
    donors = data.draw(st.integers(0, count - 1))
    subjects = [f"s{i:04d}" for i in range(count)]
    plan = plan_pairings(subjects, parts, donors, independent, np.random.default_rng(seed))
    assert len(plan) == count * (donors + 1)
    assert len({p.key for p in plan}) == len(plan)
    assert sum({*p.donors, p.recipient} == {p.recipient} for p in plan) == count
    for part in range(parts):
        given_to_others = Counter(p.donors[part] for p in plan if p.donors[part] != p.recipient)
        assert all(given_to_others[s] == donors for s in subjects), part
    if independent == 0:
        assert all(len(set(p.donors)) == 1 for p in plan)
    assert plan == plan_pairings(subjects, parts, donors, independent, np.random.default_rng(seed))


def test_independent_donors_are_mixed() -> None:
    plan = plan_pairings([f"s{i}" for i in range(20)], 3, 16, 0.5, np.random.default_rng(0))
    mixed = [p for p in plan if len(set(p.donors)) == 3]
    assert len(mixed) == 20 * 8
    assert "-" in mixed[0].key.split("--")[1]


def test_keys_of_many_donors_stay_short_and_apart() -> None:
    subjects = [f"a_subject_with_a_rather_long_name_{i}" for i in range(12)]
    plan = plan_pairings(subjects, 8, 6, 1.0, np.random.default_rng(0))
    assert any(len(set(p.donors)) > 4 for p in plan)
    assert len({check_key(p.key) for p in plan}) == len(plan)


def test_too_few_subjects_are_named() -> None:
    with pytest.raises(ValueError, match="16 donors for each of 5 subjects: at most 4"):
        plan_pairings(list("abcde"), 3, 16, 0.0, np.random.default_rng(0))
