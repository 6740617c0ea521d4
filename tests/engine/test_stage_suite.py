"""The suite that proves stages right: the toy stage passes it, and stages with the classic faults do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_stages
from toy_runs import STAGE
from toy_stages import toy_plan

from facegraft.engine import ItemOutput, PlannedItem, StageContext
from facegraft.testing.stage import StageCase, StageSuite


class TestToyStage(StageSuite):
    stage = STAGE
    empty_columns = frozenset(["note"])

    def case(self, folder: Path) -> StageCase:
        return StageCase(
            toy_plan(8, 3, {4: "refuse"}), [str(folder)], {"scale": 2.0}, seed=5, rejected=frozenset(["item_004"])
        )


class Remembering:
    """What it makes of an item depends on how many it has made before."""

    def __init__(self, context: StageContext) -> None:
        self.made = 0

    def process(self, item: PlannedItem, rng: np.random.Generator) -> ItemOutput:
        self.made += 1
        return ItemOutput({"vertices": np.full((4, 3), self.made, np.float32), "extra": np.zeros(1, np.int64)}, {"mean": 1.0})


class Dicing:
    """Its random numbers are not those of the item."""

    def __init__(self, context: StageContext) -> None:
        self.rng = np.random.default_rng()

    def process(self, item: PlannedItem, rng: np.random.Generator) -> ItemOutput:
        vertices = self.rng.normal(size=(4, 3)).astype(np.float32)
        return ItemOutput({"vertices": vertices, "extra": np.zeros(1, np.int64)}, {"mean": 1.0})


class Silent:
    """Leaves a column empty that the schema declares."""

    def __init__(self, context: StageContext) -> None: ...

    def process(self, item: PlannedItem, rng: np.random.Generator) -> ItemOutput:
        return ItemOutput({"vertices": np.zeros((4, 3), np.float32), "extra": np.zeros(1, np.int64)})


@pytest.mark.parametrize(
    ("wrong", "found_by"),
    [
        (Remembering, "test_an_item_does_not_depend_on_the_items_before_it"),
        (Dicing, "test_the_order_of_planning_does_not_count"),
        (Silent, "test_every_item_is_made_and_fits_the_schema"),
    ],
)
def test_a_wrong_stage_does_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: type[Any], found_by: str
) -> None:
    monkeypatch.setattr(toy_stages, "WrongStage", wrong, raising=False)
    suite = TestToyStage()
    monkeypatch.setattr(TestToyStage, "stage", "toy_stages:WrongStage")
    case = StageCase(toy_plan(8, 3), [str(tmp_path)])
    suite.run(case, tmp_path / "made")
    more = [] if "schema" in found_by else [tmp_path / "again"]
    with pytest.raises(AssertionError):
        getattr(suite, found_by)(case, tmp_path / "made", *more)
