"""Find the stage that made a folder, and repeat its plan; only facegraft's own stages are run, whatever the folder says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from facegraft.engine import StagePlan, read_run
from facegraft.errors import FacegraftError
from facegraft.stages import StageDefinition, stage_at
from facegraft.store.remote import Location, place


def stage_of(folder: Location) -> StageDefinition:
    """The stage of facegraft that made a folder. Raises FacegraftError where it was another."""
    path = read_run(folder).stage
    stage = stage_at(path)
    if stage is None:
        raise FacegraftError(
            f"{folder}: made by stage {path!r}, which is not one of facegraft's own; run it again from Python"
        )
    return stage


def plan_again(stage: StageDefinition, inputs: list[str], parameters: Mapping[str, Any], seed: int) -> StagePlan:
    """The plan of a stage from the inputs and parameters in a run.json. Raises the errors of the stage's own `plan`."""
    return stage.plan([place(path) for path in inputs], stage.parameters.parse(parameters), seed)
