"""Heads that are one head, found by few numbers and judged by all vertices."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from facegraft.arrays import Floats
from facegraft.heads.extent import one_decides
from facegraft.heads.source import Head
from facegraft.heads.twins import NEAR_MM, Twins, joined, near_heads, signature, subjects_with_one_file, together
from facegraft.store.fingerprint import FileHash


def heads(count: int = 60) -> dict[str, Floats]:
    rng = np.random.default_rng(4)
    mean = rng.normal(0, 60, (900, 3))
    return {f"h{i}": mean + rng.normal(0, 2.0, mean.shape) for i in range(count)}


def groups(known: dict[str, Floats]) -> tuple[list[tuple[str, ...]], list[str]]:
    """The groups of near heads, and which heads were loaded for them."""
    loaded = list[str]()

    def load(name: str) -> Floats:
        loaded.append(name)
        return known[name]

    found = near_heads({name: signature(v) for name, v in known.items()}, load)
    return [group.names for group in found], loaded


def test_other_heads_are_not_even_loaded() -> None:
    assert groups(heads()) == ([], [])


def test_a_head_moved_rigidly_is_the_same_head() -> None:
    known = heads()
    turn = Rotation.from_euler("xyz", [40, -70, 10], degrees=True)
    noise = np.random.default_rng(1).uniform(-0.3, 0.3, known["h7"].shape) * NEAR_MM
    known["x"] = turn.apply(known["h7"]) + noise + np.array([5.0, 300.0, -2.0])
    known["y"] = known["h9"].copy()
    known["z"] = known["h9"].copy()
    found, loaded = groups(known)
    assert found == [("h7", "x"), ("h9", "y", "z")]
    assert set(loaded) == {"h7", "x", "h9", "y", "z"}
    assert groups(dict(reversed(known.items())))[0] == found


@pytest.mark.parametrize("change", ["one vertex", "mirrored", "larger"])
def test_a_head_that_differs_by_more_is_another(change: str) -> None:
    known = heads(3)
    other = known["h1"].copy()
    if change == "one vertex":
        other[17] += [0.0, 0.0, 3 * NEAR_MM]
    known["x"] = other * {"one vertex": 1.0, "mirrored": np.array([-1.0, 1, 1]), "larger": 1.001}[change]
    assert groups(known)[0] == []


def test_groups_with_a_common_name_are_one() -> None:
    assert joined([["a", "b"], ["c", "d"], ["e"], ["d", "a10", "a2"], ["b", "x"]]) == [("a2", "a10", "c", "d"), ("a", "b", "x")]
    assert together([Twins(("a", "b"), True), Twins(("b", "c"), False), Twins(("x", "y"), True)]) == [Twins(("a", "b", "c"), False), Twins(("x", "y"), True)]


def test_one_file_with_several_heads_makes_no_twins() -> None:
    def head(subject: str, source: str) -> Head:
        return Head(subject, "neutral", None, {}, source)

    same = FileHash(3, "f00")
    assert subjects_with_one_file([head("a", "all.npz"), head("b", "all.npz")], {"all.npz": same}) == []
    assert subjects_with_one_file([head("a", "a.obj"), head("b", "b.obj")], {"a.obj": same, "b.obj": same}) == [Twins(("a", "b"), True)]


def test_which_subject_decides_the_scale() -> None:
    assert one_decides({"a": 150.0, "b": 155.0, "c": 163.0}) is None
    assert one_decides({"a": 150.0, "b": 200.0}) is None, "of two heads one is the larger"
    said = one_decides({"a": 150.0, "b": 160.0, "c": 200.0})
    assert said is not None and "subject c alone decides" in said and "200 mm" in said and "25% farther than the next largest (160 mm" in said
