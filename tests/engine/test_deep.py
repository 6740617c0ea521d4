"""A dataset against what its inputs make: the same code path, bit by bit, and clear lines where they cannot be compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_runs import STAGE, options, run
from toy_stages import toy_plan

from facegraft.engine import DeepReport, EngineError, read_run, verify_deep
from facegraft.engine.deep import chosen_keys
from facegraft.engine.run_record import write_run
from facegraft.store import IncompleteError

PLAN = toy_plan(12, 4, {2: "drift", 5: "refuse", 7: "breaks"})


def deep(folder: Path, plan: Any = PLAN, items: int = 99, seed: int = 0, stage: str = STAGE) -> DeepReport:
    return verify_deep(folder, stage, lambda inputs, parameters, run_seed: plan, items, seed, options())


@pytest.fixture
def made(tmp_path: Path) -> Path:
    run(PLAN, tmp_path / "out", scheduler="sync")
    return tmp_path / "out"


def test_what_the_inputs_make_is_what_is_there(made: Path) -> None:
    report = deep(made)
    assert report.findings == []
    assert report.checked == [f"item_{i:03d}" for i in range(12) if i != 5]


def test_what_differs_is_named_by_item_and_field(made: Path) -> None:
    (made.parent / "drifted").touch()
    findings = deep(made).findings
    assert findings[0] == f"{made}: item item_002, field vertices: 1 of 12 values differ, by up to 1"
    assert findings[1].startswith(f"{made}: item item_002, index column mean: ")
    assert (
        findings[2] == f"{made}: item item_007 was written, and is now rejected: error: ValueError: no longer possible"
    )
    assert len(findings) == 3


def test_the_sample_is_the_seeds_and_no_larger_than_the_dataset() -> None:
    keys = [f"k{i:02d}" for i in range(40)]
    assert chosen_keys(keys, 5, 1) == chosen_keys(keys, 5, 1) != chosen_keys(keys, 5, 2)
    assert len(set(chosen_keys(keys, 5, 1))) == 5 and chosen_keys(keys, 5, 1) == sorted(chosen_keys(keys, 5, 1))
    assert chosen_keys(keys[:3], 5, 1) == keys[:3]
    assert {key for seed in range(40) for key in chosen_keys(keys, 5, seed)} == set(keys)


def test_other_inputs_are_refused_with_the_difference(made: Path) -> None:
    with pytest.raises(
        EngineError,
        match=r'are not those it was made from \(input_fingerprint.toy: "1" there, "2" now\); put the old ones back',
    ):
        deep(made, replace(PLAN, input_fingerprint={"toy": "2"}))


def test_inputs_that_have_moved_are_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    run(PLAN, tmp_path / "a" / "out", scheduler="sync")
    (tmp_path / "a").rename(tmp_path / "b")
    with pytest.raises(EngineError, match=rf"was made from {tmp_path / 'a'}, which is not there; put it back, or run"):
        deep(tmp_path / "b" / "out")
    # As the message says: the same command notes where the inputs are now, and makes nothing again.
    assert run(PLAN, tmp_path / "b" / "out", scheduler="sync").already_complete
    assert deep(tmp_path / "b" / "out").findings == []


def test_another_version_and_another_stage_are_named(made: Path) -> None:
    with pytest.raises(EngineError, match="was made by stage toy_stages:ToyStage, not other:Stage"):
        deep(made, stage="other:Stage")
    write_run(made, replace(read_run(made), code_version="0.0.9"))
    with pytest.raises(EngineError, match=r"was made by facegraft 0.0.9, this is .* install that version to compare"):
        deep(made)


def test_an_unfinished_dataset_is_refused(made: Path) -> None:
    (made / "dataset.json").unlink()
    with pytest.raises(IncompleteError):
        deep(made)
