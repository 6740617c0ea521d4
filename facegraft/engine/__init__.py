"""The engine: it runs a stage over a plan on Dask, writes a dataset shard by shard, and survives the death of any process."""

from facegraft.engine.cluster import ShardClient, SharedClient, start_client
from facegraft.engine.deep import DeepReport, verify_deep
from facegraft.engine.errors import EngineError, ItemRejected, OptionError, RunInterrupted, StageSetupError
from facegraft.engine.evidence import Evidence
from facegraft.engine.options import EngineOptions, Tls
from facegraft.engine.plan import StagePlan
from facegraft.engine.run import RunSummary, already_complete, execute, retry
from facegraft.engine.run_record import RunRecord, read_run
from facegraft.engine.stage import ItemOutput, PlannedItem, Stage, StageContext
from facegraft.engine.status import RunStatus, status

__all__ = [
    "DeepReport",
    "EngineError",
    "EngineOptions",
    "Evidence",
    "ItemOutput",
    "ItemRejected",
    "OptionError",
    "PlannedItem",
    "RunInterrupted",
    "RunRecord",
    "RunStatus",
    "RunSummary",
    "ShardClient",
    "SharedClient",
    "Stage",
    "StageContext",
    "StagePlan",
    "StageSetupError",
    "Tls",
    "already_complete",
    "execute",
    "read_run",
    "retry",
    "start_client",
    "status",
    "verify_deep",
]
