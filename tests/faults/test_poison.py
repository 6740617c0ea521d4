"""Poison items: exactly those are rejected, with the right reason, and the run is not held up by trying them again and again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fault_rows as rows
import pytest
from fault_checks import check_poison
from run_toys import plan, toys
from toy_runs import options

from facegraft.engine import EngineError, execute
from facegraft.stages import INGEST, ingest
from facegraft.testing.poison import FAULTS, POISONED, poisoned

# The others take milliseconds.
TIMEOUT_S = 15.0
FAULT_OF = {f"item_{3 + 4 * number:03d}": fault for number, fault in enumerate(FAULTS)}
REASONS = {
    "exception": "error: ValueError: poison",
    "refusal": "poison",
    "segfault": "crashed: signal 11 (SIGSEGV)",
    "abort": "crashed: signal 6 (SIGABRT)",
    "exit": "crashed: exit code 3",
    "hang": "timeout after 15 s",
    "sleep": "timeout after 15 s",
    "memory": "killed: memory limit 1 GB",
    "killed": "killed: signal 9 (SIGKILL), most likely the machine's memory was full",
}
ONCE = {"exception", "refusal", "hang", "sleep", "nan"}


@pytest.mark.slow
@pytest.mark.row(rows.POISON)
def test_all_kinds_in_one_run(tmp_path: Path, cluster: Any) -> None:
    quick = plan(seconds=0.0)
    toys(tmp_path / "clean" / "out", of=quick, faults={}, scheduler="sync")
    journal = tmp_path / "journal"
    toys(tmp_path / "out", cluster, of=quick, faults=FAULT_OF, journal=journal, item_timeout_s=TIMEOUT_S)
    reasons = {**REASONS, "nan": "invalid output: field vertices: 1 of 12 values are NaN or infinite"}
    expected = {key: reasons[fault] for key, fault in FAULT_OF.items()}
    once = {key for key, fault in FAULT_OF.items() if fault in ONCE}
    check_poison(tmp_path / "out", tmp_path / "clean" / "out", expected, journal, once, workers=2)


@pytest.mark.faults
@pytest.mark.row(rows.POISON_REAL)
def test_a_real_stage(tmp_path: Path, cluster: Any) -> None:
    parameters = ingest.IngestParameters.parse(
        {"kind": "synthetic", "subjects": 12, "expressions": 1, "shard_items": 3}
    )
    heads = ingest.plan_ingest(None, parameters, 0)
    keys = sorted(item.key for item in heads.items)
    faults = dict(zip(keys[1::2], ("segfault", "hang", "memory", "exception", "nan"), strict=False))
    journal = tmp_path / "journal"
    for name, chosen in (("clean", {}), ("out", faults)):
        given = poisoned(INGEST.path, parameters.as_json(), chosen, journal if name == "out" else None)
        execute(POISONED, heads, [], tmp_path / name, given, 0, options(item_timeout_s=20.0), cluster)
    reasons = {**REASONS, "hang": "timeout after 20 s"}
    vertices = heads.schema.topology["vertex_count"]
    reasons["nan"] = f"invalid output: field vertices: 1 of {3 * vertices} values are NaN or infinite"
    once = {key for key, fault in faults.items() if fault in ONCE}
    check_poison(
        tmp_path / "out",
        tmp_path / "clean",
        {key: reasons[fault] for key, fault in faults.items()},
        journal,
        once,
        workers=2,
    )


@pytest.mark.row(rows.KIT)
def test_an_unknown_fault_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="there is no fault 'segfualt'; there are exception, refusal, segfault"):
        toys(tmp_path / "out", faults={"item_001": "segfualt"}, scheduler="sync")
