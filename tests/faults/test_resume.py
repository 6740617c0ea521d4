"""Resuming with something changed, or over damage; and reading what is damaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fault_rows as rows
import pytest
from fault_checks import check_change_is_refused, check_damage_is_mended, check_damage_is_noticed, read_all
from run_toys import plan, toys

from facegraft.testing.damage import flip

QUICK = plan(seconds=0.0)
OTHER_INPUT = replace(QUICK, input_fingerprint={"toy": "2"})


@pytest.mark.row(rows.CHANGED)
@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"scale": 2.0}, r"parameters\.parameters\.scale: 1\.0 there, 2\.0 now"),
        ({"faults": {}}, r"parameters\.faults"),
        ({"seed": 1}, "seed: 0 there, 1 now"),
        ({"of": OTHER_INPUT}, r"input_fingerprint\.toy: .1. there, .2. now"),
        ({"of": plan(shard_items=4, seconds=0.0)}, "shard_items: 3 there, 4 now"),
        ({"of": plan(items=47, seconds=0.0)}, "plan_sha256"),
    ],
)
def test_a_change_is_refused(tmp_path: Path, change: dict[str, Any], field: str, finished: bool) -> None:
    make(tmp_path, finished)
    check_change_is_refused(
        lambda: toys(tmp_path / "out", **{"of": QUICK, "scheduler": "sync", **change}), tmp_path / "out", field
    )


@pytest.mark.row(rows.CHANGED)
@pytest.mark.parametrize("finished", [True, False])
def test_another_version_is_refused(tmp_path: Path, finished: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, finished)
    monkeypatch.setattr("facegraft.__version__", "99.0")
    check_change_is_refused(
        lambda: toys(tmp_path / "out", of=QUICK, scheduler="sync"),
        tmp_path / "out",
        'code_version: "[^"]+" there, "99.0" now',
    )


def make(folder: Path, finished: bool) -> None:
    toys(folder / "out", of=QUICK, scheduler="sync")
    if not finished:
        (folder / "out" / "dataset.json").unlink()
        (folder / "out" / "shards" / "00007-of-00016.json").unlink()


def _flipped(shard: Path) -> None:
    data = shard.read_bytes()
    shard.write_bytes(flip(data, len(data) - 1))


def _swapped(shard: Path) -> None:
    shard.write_bytes((shard.parent / "00000-of-00016.safetensors").read_bytes())


def _emptied(shard: Path) -> None:
    shard.write_bytes(b"")


def _record_of_another(shard: Path) -> None:
    shard.with_suffix(".json").write_bytes((shard.parent / "00000-of-00016.json").read_bytes())


def _record_cut(shard: Path) -> None:
    record = shard.with_suffix(".json")
    record.write_bytes(record.read_bytes()[:-20])


HARMS: list[Callable[[Path], None]] = [
    _flipped,
    _swapped,
    _emptied,
    _record_of_another,
    _record_cut,
    Path.unlink,
    lambda shard: shard.with_suffix(".json").unlink(),
]


@pytest.mark.row(rows.DAMAGED_RESUME)
@pytest.mark.parametrize("harm", HARMS)
def test_damage_is_mended(tmp_path: Path, quick: dict[str, str], harm: Callable[[Path], None]) -> None:
    toys(tmp_path / "out", of=QUICK, scheduler="sync")
    check_damage_is_mended(lambda output: toys(output, of=QUICK, scheduler="sync"), tmp_path / "out", harm, quick)


@pytest.mark.row(rows.READER)
@pytest.mark.parametrize("count", [2, pytest.param(200, marks=pytest.mark.faults)])
def test_damage_is_noticed(tmp_path: Path, count: int, record_property: Callable[[str, object], None]) -> None:
    toys(tmp_path / "out", of=plan(5, 3, seconds=0.0), faults={"item_002": "refusal"}, scheduler="sync")
    tried = check_damage_is_noticed(tmp_path / "out", list(read_all(tmp_path / "out")), count)
    record_property("note", f"{tried} damages")
