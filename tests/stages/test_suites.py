"""Our own stages keep the engine's promises: each passes the suite that facegraft gives to those who write stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from facegraft.engine import EngineOptions
from facegraft.pipeline import run_stage
from facegraft.stages import CLEAN, GRAFT, INGEST, SAMPLE, STAGES, StageDefinition
from facegraft.testing.stage import StageCase, StageSuite

HEADS = {"kind": "synthetic", "subjects": 4, "expressions": 2, "shard_items": 2}
COMPOSITES = {"donors": 1, "stage_points": 64, "shard_items": 4}
SURFACES = {"shard_items": 3}
SAMPLES = {"surface": 400, "near": 200, "free": 100, "shard_items": 3}
SYNC = EngineOptions(scheduler="sync", progress=False)

pytestmark = pytest.mark.slow


def made(stage: StageDefinition, inputs: Sequence[Path], folder: Path, parameters: Mapping[str, Any]) -> Path:
    """The folder of what a stage makes."""
    run_stage(stage, inputs, folder / stage.makes, parameters, 3, SYNC)
    return folder / stage.makes


def case_of(stage: StageDefinition, inputs: list[Path], parameters: Mapping[str, Any]) -> StageCase:
    checked = stage.parameters.parse(parameters)
    plan = stage.plan(inputs, checked, 3)
    return StageCase(plan, [str(path) for path in inputs], checked.as_json(), seed=3)


class TestIngest(StageSuite):
    stage = INGEST.path
    empty_columns = frozenset(["source", "source_sha256"])  # heads that are computed come from no file

    def case(self, folder: Path) -> StageCase:
        return case_of(INGEST, [], HEADS)


class TestGraft(StageSuite):
    stage = GRAFT.path

    def case(self, folder: Path) -> StageCase:
        return case_of(GRAFT, [made(INGEST, [], folder, HEADS)], COMPOSITES)


class TestClean(StageSuite):
    stage = CLEAN.path

    def case(self, folder: Path) -> StageCase:
        return case_of(CLEAN, [made(INGEST, [], folder, HEADS)], SURFACES)


class TestSample(StageSuite):
    stage = SAMPLE.path

    def case(self, folder: Path) -> StageCase:
        heads = made(INGEST, [], folder, HEADS)
        return case_of(SAMPLE, [made(CLEAN, [heads], folder, SURFACES)], SAMPLES)


def test_every_stage_has_its_suite() -> None:
    suites = [value for value in globals().values() if isinstance(value, type) and issubclass(value, StageSuite)]
    assert {suite.stage for suite in suites if suite is not StageSuite} == {stage.path for stage in STAGES}
