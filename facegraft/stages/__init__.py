"""The four stages: parameters, plan and item function of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facegraft.engine.fingerprint import read_run
from facegraft.engine.plan import StagePlan
from facegraft.errors import FacegraftError
from facegraft.store import open_dataset

STAGE_PATHS = (
    "facegraft.stages.ingest:IngestStage",
    "facegraft.stages.graft:GraftStage",
    "facegraft.stages.clean:CleanStage",
    "facegraft.stages.sample:SampleStage",
)


def plan_again(stage_path: str, inputs: list[str], parameters: Mapping[str, Any], seed: int) -> StagePlan:
    """The plan of one of facegraft's own stages, from the inputs and parameters that a run.json records. Raises as the stage does."""
    if stage_path == STAGE_PATHS[0]:
        from facegraft.stages.ingest import IngestParameters, plan_ingest

        return plan_ingest(Path(inputs[0]) if inputs else None, IngestParameters.parse(parameters), seed)
    datasets = [open_dataset(path) for path in inputs]
    if stage_path == STAGE_PATHS[1]:
        from facegraft.stages.graft import GraftParameters, plan_graft

        return plan_graft(datasets[0], GraftParameters.parse(parameters), seed)
    if stage_path == STAGE_PATHS[2]:
        from facegraft.stages.clean import CleanParameters, plan_clean

        return plan_clean(datasets, CleanParameters.parse(parameters), seed)
    if stage_path == STAGE_PATHS[3]:
        from facegraft.stages.sample import SampleParameters, plan_sample

        return plan_sample(datasets[0], SampleParameters.parse(parameters), seed)
    raise FacegraftError(f"stage {stage_path!r} is not one of facegraft's own")


def stage_path_of(folder: Path) -> str:
    """Which of facegraft's own stages made a folder; a folder never decides which code is run."""
    stage = read_run(folder).stage
    if stage not in STAGE_PATHS:
        raise FacegraftError(
            f"{folder}: made by stage {stage!r}, which is not one of facegraft's own; run it again from Python"
        )
    return stage
