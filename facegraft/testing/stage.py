"""Tests of a stage against the engine's guarantees: a pytest class to inherit from.

    class TestMine(StageSuite):
        stage = "my.package:MyStage"

        def case(self, folder):
            plan = plan_mine(...)  # a few items in two shards or more, quick to make
            return StageCase(plan, inputs=[str(folder / "input")], parameters={"size": 3})

Every test runs the stage through `facegraft.engine.execute`, in this process, on workers, or in a separate process that is killed.
The stage's module must be importable by name in all of them (sys.path of this process is passed on).
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from facegraft.engine import EngineOptions, RunSummary, StagePlan, execute
from facegraft.engine.plan import shard_plan
from facegraft.store import Dataset, open_dataset, verify_dataset
from facegraft.store.writer import DATASET_FILE, REJECT_FOLDER, SHARD_FOLDER
from facegraft.testing.disk import DiskFault, recorded
from facegraft.testing.hashes import dataset_hash
from facegraft.testing.inject import environment
from facegraft.testing.killer import committed, family, kill
from facegraft.testing.poison import POISONED, poisoned

_RUN = """
import pickle, sys
from facegraft.engine import execute
if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        execute(**pickle.load(file))
"""


@dataclass(frozen=True)
class StageCase:
    """The case of a suite: a plan of a few items, and the other arguments of `execute`. `rejected`: keys of items to be refused."""

    plan: StagePlan
    inputs: list[str] = field(default_factory=list)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    rejected: frozenset[str] = frozenset()


class StageSuite:
    """Inherit from this class, set the stage's import path, and define a case.

    item_timeout_s, item_memory_gb: the limits of an item in all runs. empty_columns: index columns that no item of the case fills.
    """

    stage: ClassVar[str]
    item_timeout_s: ClassVar[float] = 600.0
    item_memory_gb: ClassVar[float] = 4.0
    empty_columns: ClassVar[frozenset[str]] = frozenset()

    def case(self, folder: Path) -> StageCase:
        """The plan to run; inputs may be written to the folder. Called once for all tests of the class."""
        raise NotImplementedError(f"{type(self).__name__} must say which plan to run: override case(folder)")

    # -- what the tests share ----------------------------------------------------------------------------------------

    @pytest.fixture
    def made_case(self, tmp_path_factory: pytest.TempPathFactory) -> StageCase:
        case: StageCase = self._once("case", lambda: self.case(tmp_path_factory.mktemp("case")))
        return case

    @pytest.fixture
    def made(self, made_case: StageCase, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The dataset of an undisturbed run in this process."""

        def make() -> Path:
            output = tmp_path_factory.mktemp("made") / "out"
            self.run(made_case, output)
            return output

        folder: Path = self._once("made", make)
        return folder

    @pytest.fixture
    def made_wrapped(self, made_case: StageCase, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The dataset of the stage inside `PoisonedStage`, without any fault: its random streams depend on that stage's name."""

        def make() -> Path:
            output = tmp_path_factory.mktemp("wrapped") / "out"
            self._run_poisoned(made_case, output, {})
            return output

        folder: Path = self._once("wrapped", make)
        return folder

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        """The result of `make`, made once for all tests of the class (pytest makes an instance for each test)."""
        kept = f"_kept_{name}"
        if kept not in vars(type(self)):
            setattr(type(self), kept, make())
        return vars(type(self))[kept]

    def run(self, case: StageCase, output: Path, **changes: Any) -> RunSummary:
        """Run a case; `changes` are engine options, by default for a run in this process."""
        return execute(**self._arguments(case, output, **{"scheduler": "sync", **changes}))

    def _arguments(self, case: StageCase, output: Path, **changes: Any) -> dict[str, Any]:
        limits = {"item_timeout_s": self.item_timeout_s, "item_memory_gb": self.item_memory_gb, "max_rejects": 1.0}
        return {
            "stage_path": self.stage,
            "plan": case.plan,
            "inputs": case.inputs,
            "output": output,
            "parameters": case.parameters,
            "seed": case.seed,
            "options": EngineOptions(**{**limits, "progress": False, **changes}),
        }

    # -- guarantees --------------------------------------------------------------------------------------------------

    def test_the_case_is_fit_for_the_suite(self, made_case: StageCase) -> None:
        sharded = shard_plan(made_case.plan)
        assert sharded.shard_count >= 2, "a case needs two shards or more: give fewer shard_items"
        assert made_case.rejected < {item.key for item in sharded.items}, "rejected items must be planned, and not be all"

    def test_every_item_is_made_and_fits_the_schema(self, made_case: StageCase, made: Path) -> None:
        """Fields, index columns and numbers are those that the schema declares, and only the items to be refused are rejected."""
        dataset = open_dataset(made)
        rows = {row["key"]: row for row in dataset.index.to_pylist()}
        rejected = {key: row["reason"] for key, row in rows.items() if row["status"] == "rejected"}
        assert set(rejected) == made_case.rejected, f"rejected: {rejected}"
        assert set(rows) == {item.key for item in made_case.plan.items}
        assert verify_dataset(made) == []
        written = [row for key, row in rows.items() if key not in rejected]
        empty = {column for column in made_case.plan.schema.columns if all(row[column] is None for row in written)}
        assert empty == self.empty_columns, f"no item fills the columns {sorted(empty)}"

    @pytest.mark.parametrize("workers", [1, 2])
    def test_workers_make_the_same_bytes(
        self, made_case: StageCase, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
    ) -> None:
        """Child processes of one worker and of two give the same bytes as this process."""
        monkeypatch.setenv("PYTHONPATH", _import_path())
        self.run(made_case, tmp_path / "out", scheduler=None, workers=workers)
        assert dataset_hash(tmp_path / "out") == dataset_hash(made)

    def test_a_killed_run_goes_on_to_the_same_bytes(self, made_case: StageCase, made: Path, tmp_path: Path) -> None:
        """SIGKILL before the second shard is committed; what was committed before is not made again."""
        output, gate = tmp_path / "out", tmp_path / "gate"
        script, arguments = tmp_path / "script.py", tmp_path / "arguments"
        script.write_text(_RUN)
        arguments.write_bytes(pickle.dumps(self._arguments(made_case, output, scheduler="sync")))
        ledger = tmp_path / "ledger"
        shards = str(output / SHARD_FOLDER)
        fault = DiskFault(shards, str(ledger), nth=2, operations=("replace",), match="*.json", gate=str(gate))
        env = environment(disk=fault, base={**os.environ, "PYTHONPATH": _import_path()})
        process = subprocess.Popen(
            [sys.executable, str(script), str(arguments)], env=env, stderr=subprocess.PIPE, text=True
        )
        try:
            while len(recorded(ledger)) < 2:
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.01)
        finally:
            kill(family(process.pid))
            process.communicate()
        before = committed(output)
        assert len(before) == 1 and not (output / DATASET_FILE).exists()
        summary = self.run(made_case, output)
        assert summary.kept == made_case.plan.shard_items
        assert {name: committed(output)[name] for name in before} == before, "a committed shard was made again"
        assert dataset_hash(output) == dataset_hash(made)

    def test_the_order_of_planning_does_not_count(self, made_case: StageCase, made: Path, tmp_path: Path) -> None:
        plan = replace(made_case.plan, items=made_case.plan.items[::-1])
        self.run(replace(made_case, plan=plan), tmp_path / "out")
        assert dataset_hash(tmp_path / "out") == dataset_hash(made)

    def test_an_item_does_not_depend_on_the_items_before_it(
        self, made_case: StageCase, made: Path, tmp_path: Path
    ) -> None:
        """The last item is the same made alone and after all others."""
        whole = open_dataset(made)
        last = whole.keys()[-1]
        alone = replace(made_case.plan, items=[item for item in made_case.plan.items if item.key == last])
        self.run(replace(made_case, plan=alone), tmp_path / "out")
        _assert_same_item(open_dataset(tmp_path / "out"), whole, last)

    @pytest.mark.parametrize(("fault", "reason"), [("refusal", "poison"), ("exception", "error: ValueError: poison")])
    def test_a_bad_item_is_rejected_alone_and_recorded(
        self, made_case: StageCase, made_wrapped: Path, tmp_path: Path, fault: str, reason: str
    ) -> None:
        """The item before the last fails; all others are the same as without the failure."""
        whole = open_dataset(made_wrapped)
        bad = whole.keys()[-2]
        self._run_poisoned(made_case, tmp_path / "out", {bad: fault})
        dataset = open_dataset(tmp_path / "out")
        assert dataset.keys() == [key for key in whole.keys() if key != bad]  # noqa: SIM118 (a dataset is no dict)
        for key in dataset:
            _assert_same_item(dataset, whole, key)
        assert dataset.row(bad)["reason"] == reason
        record = json.loads((tmp_path / "out" / REJECT_FOLDER / f"{bad}.json").read_text())
        assert record["key"] == bad and record["reason"] == reason and "Traceback" in record["traceback"]

    def _run_poisoned(self, case: StageCase, output: Path, faults: Mapping[str, str]) -> None:
        arguments = self._arguments(case, output, scheduler="sync")
        arguments |= {"stage_path": POISONED, "parameters": poisoned(self.stage, case.parameters, faults)}
        execute(**arguments)


def _assert_same_item(dataset: Dataset, whole: Dataset, key: str) -> None:
    there, wanted = dataset[key], whole[key]
    assert there.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(there[name], array, err_msg=f"field {name}")
    row, other = ({**found.row(key), "shard": None} for found in (dataset, whole))
    assert row == other


def _import_path() -> str:
    return os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
