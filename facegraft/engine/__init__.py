"""The engine: a stage over a plan becomes a dataset, shard by shard, on Dask, whatever dies on the way."""

from facegraft.engine.client import ShardClient, start_client
from facegraft.engine.errors import EngineError, ItemRejected, RunInterrupted, StageSetupError
from facegraft.engine.fingerprint import RunRecord, read_run
from facegraft.engine.options import EngineOptions
from facegraft.engine.plan import StagePlan
from facegraft.engine.run import RunSummary, execute, retry
from facegraft.engine.stage import ItemOutput, PlannedItem, Stage, StageContext
from facegraft.engine.status import RunStatus, status

__all__ = [
    "EngineError",
    "EngineOptions",
    "ItemOutput",
    "ItemRejected",
    "PlannedItem",
    "RunInterrupted",
    "RunRecord",
    "RunStatus",
    "RunSummary",
    "ShardClient",
    "Stage",
    "StageContext",
    "StagePlan",
    "StageSetupError",
    "execute",
    "read_run",
    "retry",
    "start_client",
    "status",
]
