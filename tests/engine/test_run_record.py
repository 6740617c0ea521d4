"""Is this the same run? If not, what differs."""

from dataclasses import replace
from pathlib import Path

import pytest
from toy_stages import toy_plan

from facegraft.engine.errors import EngineError
from facegraft.engine.plan import StagePlan, shard_plan
from facegraft.engine.run_record import RunRecord, differences, read_run, refuse_other_run, run_record, write_run
from facegraft.store import DamagedError


def record(plan: StagePlan | None = None, **parameters: object) -> RunRecord:
    plan = plan or toy_plan()
    return run_record(
        "toy_stages:ToyStage", plan, shard_plan(plan), ["in"], {"near": 5000, "sigmas": (1, 2.5), **parameters}, 0
    )


def test_disk_and_back(tmp_path: Path) -> None:
    write_run(tmp_path, record())
    assert read_run(tmp_path) == record()
    assert differences(read_run(tmp_path), record()) == []


def test_the_diff_names_fields_and_both_values(tmp_path: Path) -> None:
    now = replace(record(near=8000, mode={"name": "head"}), seed=1)
    assert differences(record(), now) == [
        "parameters.near: 5000 there, 8000 now",
        'parameters.mode.name: absent there, "head" now',
        "seed: 0 there, 1 now",
    ]
    with pytest.raises(
        EngineError,
        match=r"holds a different run \(parameters.near: 5000 there, 8000 now; .*choose another output folder \(-o\) or delete",
    ):
        refuse_other_run(tmp_path, record(), now)


def test_every_cause_is_compared() -> None:
    base = record()
    assert differences(base, replace(base, code_version="9.9")) == [
        f'code_version: "{base.code_version}" there, "9.9" now'
    ]
    changed = replace(toy_plan(), input_fingerprint={"toy": "2"})
    assert differences(base, record(changed)) == ['input_fingerprint.toy: "1" there, "2" now']
    assert "shard_items: 4 there, 5 now" in differences(base, record(toy_plan(shard_items=5)))
    # What follows from a cause is shown only when no cause is known: the planner itself has changed, say.
    only_plan = differences(base, record(toy_plan(21)))
    assert len(only_plan) == 1 and only_plan[0].startswith("plan_sha256: ")
    assert differences(base, record(replace(toy_plan(), shared={})))[0].startswith("shared_sha256")


def test_whatever_makes_a_difference_changes_what_commits_carry() -> None:
    base = record()
    for other in (
        record(near=1),
        replace(base, seed=1),
        record(toy_plan(21)),
        replace(base, code_version="9"),
        record(replace(toy_plan(), region_map=None)),
    ):
        assert other.commit_sha256() != base.commit_sha256()
    assert replace(base, inputs=["elsewhere"]).commit_sha256() == base.commit_sha256()


def test_where_inputs_lie_is_no_difference() -> None:
    assert differences(record(), replace(record(), inputs=["moved"])) == []


def test_no_run_and_damaged_run(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"holds no facegraft run \(run.json is missing\)"):
        read_run(tmp_path)
    write_run(tmp_path, record())
    raw = bytearray((tmp_path / "run.json").read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "run.json").write_bytes(raw)
    with pytest.raises(DamagedError, match=r"run\.json is damaged"):
        read_run(tmp_path)


def test_parameters_must_be_plain() -> None:
    with pytest.raises(EngineError, match="parameters of this run cannot be recorded"):
        record(path=Path("x"))
