"""Splits are by subject, disjoint, and decided by names and seed alone."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facegraft.heads.errors import SourceError
from facegraft.heads.split import (
    IMFACE_TEST,
    IMFACE_TRAIN,
    read_subject_list,
    split_at_random,
    split_by_list,
    split_imface,
)

names = st.lists(st.from_regex(r"[a-z]{0,2}[0-9]{1,4}", fullmatch=True), max_size=40, unique=True)


@given(names, st.floats(0, 0.99), st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_sizes_and_independence_of_order(subjects, fraction, seed, random):
    split = split_at_random(subjects, fraction, seed)
    assert set(split) == set(subjects)
    test = [s for s, side in split.items() if side == "test"]
    if len(subjects) < 4 or fraction == 0:
        assert not test
    else:
        assert 2 <= len(test) <= len(subjects) - 2
        assert abs(len(test) - fraction * len(subjects)) <= 2
    shuffled = subjects * 2
    random.shuffle(shuffled)
    assert split_at_random(shuffled, fraction, seed) == split


@given(names, st.integers(0, 1000))
def test_one_more_subject_moves_at_most_one_other(subjects, seed):
    before = split_at_random(subjects, 0.2, seed)
    after = split_at_random([*subjects, "newcomer"], 0.2, seed)
    moved = [s for s in subjects if before[s] != after[s]]
    assert len(moved) <= (2 if len(subjects) == 3 else 1)


def test_the_seed_decides():
    subjects = [f"s{i:04d}" for i in range(100)]
    splits = [split_at_random(subjects, 0.1, seed) for seed in range(5)]
    assert all(list(s.values()).count("test") == 10 for s in splits)
    assert len({tuple(s.items()) for s in splits}) == 5


def test_a_test_list_and_a_training_list():
    assert split_by_list(["a", "b", "c"], ["b"]) == {"a": "train", "b": "test", "c": "train"}
    assert split_by_list(["a", "b", "c"], ["b"], ["c"]) == {"b": "test", "c": "train"}


@pytest.mark.parametrize(
    ("test", "train", "says"),
    [
        (["anna1"], None, "'anna1' on the test list is not a subject here (did you mean 'anna_1'?)"),
        (["zzz"], None, "there are 2, for example 'anna_1'"),
        (["anna_1"], ["anna_1"], "anna_1 is on the test list and on the training list"),
        (["anna_1"], ["bert"], "'bert' on the training list is not a subject here"),
    ],
)
def test_lists_that_do_not_fit(test, train, says):
    with pytest.raises(SourceError) as caught:
        split_by_list(["anna_1", "ben"], test, train)
    assert says in str(caught.value)


def test_imface_lists_are_those_published(caplog):
    assert len(IMFACE_TRAIN) == 355
    assert len(IMFACE_TEST) == 10
    with caplog.at_level(logging.WARNING, "facegraft"):
        split = split_imface([str(i) for i in range(1, 848)])
    assert sorted(int(s) for s, side in split.items() if side == "train") == list(IMFACE_TRAIN)
    assert sorted(int(s) for s, side in split.items() if side == "test") == list(IMFACE_TEST)
    assert "355 of 355 training and 10 of 10 test subjects are here; 482 others are left out" in caplog.text
    with pytest.raises(SourceError, match="none of them is here"):
        split_imface(["anna"])


def test_lists_from_files(tmp_path):
    file = tmp_path / "test.txt"
    file.write_text("12, 13 # two\n\n14\n")
    assert read_subject_list(str(file)) == ["12", "13", "14"]
    assert read_subject_list([3, "x"]) == ["3", "x"]
    file.write_text("# none\n")
    with pytest.raises(SourceError, match=r"test\.txt: the list of subjects is empty"):
        read_subject_list(str(file))
    with pytest.raises(SourceError, match=r"no\.txt: cannot read the list of subjects \(No such file"):
        read_subject_list(str(tmp_path / "no.txt"))
