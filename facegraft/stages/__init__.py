"""The four stages: parameters, plan and item function of each."""

from __future__ import annotations

from pathlib import Path

from facegraft.engine.fingerprint import read_run
from facegraft.errors import FacegraftError

STAGE_PATHS = (
    "facegraft.stages.ingest:IngestStage",
    "facegraft.stages.graft:GraftStage",
    "facegraft.stages.clean:CleanStage",
    "facegraft.stages.sample:SampleStage",
)


def stage_path_of(folder: Path) -> str:
    """Which of facegraft's own stages made a folder; a folder never decides which code is run."""
    stage = read_run(folder).stage
    if stage not in STAGE_PATHS:
        raise FacegraftError(
            f"{folder}: made by stage {stage!r}, which is not one of facegraft's own; run it again from Python"
        )
    return stage
