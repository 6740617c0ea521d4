"""Running toy plans, in tests and in the scripts that tests start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facegraft.engine import EngineOptions, RunSummary, StagePlan, execute
from facegraft.engine.cluster import ShardClient
from facegraft.testing.hashes import dataset_hash

__all__ = ["STAGE", "dataset_hash", "options", "run"]

STAGE = "toy_stages:ToyStage"


def options(**changes: Any) -> EngineOptions:
    return EngineOptions(
        **{"progress": False, "item_timeout_s": 120.0, "item_memory_gb": 1.0, "max_rejects": 1.0, **changes}
    )


def run(
    plan: StagePlan,
    output: Path,
    client: ShardClient | None = None,
    scale: float = 1.0,
    seed: int = 0,
    stage: str = STAGE,
    **changes: Any,
) -> RunSummary:
    """The folder that holds the output is the input: faults leave their marks there."""
    return execute(
        stage, plan, [str(output.parent)], output, {"scale": scale, "near": 3}, seed, options(**changes), client=client
    )
