"""The engine: it runs a stage over a plan on Dask, writes a dataset shard by shard, and survives the death of any process."""

from facegraft.engine.cluster import ShardClient, start_client
from facegraft.engine.deep import DeepReport, verify_deep
from facegraft.engine.errors import EngineError, ItemRejected, OptionError, RunInterrupted, StageSetupError
from facegraft.engine.options import EngineOptions, Tls
from facegraft.engine.plan import StagePlan
from facegraft.engine.run import RunSummary, execute, retry
from facegraft.engine.run_record import RunRecord, read_run
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
