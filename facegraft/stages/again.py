"""The stage that made a folder, and its plan made again: a folder never decides which code is run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from facegraft.engine import StagePlan, read_run
from facegraft.errors import FacegraftError
from facegraft.stages import StageDefinition, stage_at
from facegraft.store.remote import Location, place


def stage_of(folder: Location) -> StageDefinition:
    """Which of facegraft's own stages made a folder. Raises FacegraftError where none did."""
    path = read_run(folder).stage
    stage = stage_at(path)
    if stage is None:
        raise FacegraftError(
            f"{folder}: made by stage {path!r}, which is not one of facegraft's own; run it again from Python"
        )
    return stage


def plan_again(stage: StageDefinition, inputs: list[str], parameters: Mapping[str, Any], seed: int) -> StagePlan:
    """The plan of a stage from the inputs and parameters that a run.json records. Raises as the stage does."""
    return stage.plan([place(path) for path in inputs], stage.parameters.parse(parameters), seed)
