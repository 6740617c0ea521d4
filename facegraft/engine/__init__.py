"""The engine: a stage over a plan becomes a dataset, shard by shard, on Dask, whatever dies on the way."""

from facegraft.engine.client import ShardClient, start_client
from facegraft.engine.deep import DeepReport, verify_deep
from facegraft.engine.errors import EngineError, ItemRejected, OptionError, RunInterrupted, StageSetupError
from facegraft.engine.fingerprint import RunRecord, read_run
from facegraft.engine.options import EngineOptions, Tls
from facegraft.engine.plan import StagePlan
from facegraft.engine.run import RunSummary, execute, retry
from facegraft.engine.stage import ItemOutput, PlannedItem, Stage, StageContext
from facegraft.engine.status import RunStatus, status

__all__ = [
    "DeepReport",
    "EngineError",
    "EngineOptions",
    "ItemOutput",
    "ItemRejected",
    "OptionError",
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
    "Tls",
    "execute",
    "read_run",
    "retry",
    "start_client",
    "status",
    "verify_deep",
]
