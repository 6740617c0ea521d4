"""Running toy plans, in tests and in the scripts that tests start."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from facegraft.engine import EngineOptions, RunSummary, StagePlan, execute
from facegraft.engine.cluster.client import ShardClient

STAGE = "toy_stages:ToyStage"


def options(**changes: Any) -> EngineOptions:
    return EngineOptions(
        **{"progress": False, "item_timeout_s": 30.0, "item_memory_gb": 1.0, "max_rejects": 1.0, **changes}
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


def dataset_hash(folder: Path) -> dict[str, str]:
    """Hash of every file of the dataset. Not of logs, lock and tracebacks, nor of run.json, which names the input folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    kept = [path for path in files if path.relative_to(folder).parts[0] not in ("logs", "rejects", ".lock", "run.json")]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}
