"""Making shards in this process, on a local Dask cluster, or on an existing cluster."""

from facegraft.engine.cluster.client import Outcome, ShardClient, SyncClient, start_client
from facegraft.engine.cluster.local import refuse_second_import
from facegraft.engine.cluster.shared import SharedClient

__all__ = ["Outcome", "ShardClient", "SharedClient", "SyncClient", "refuse_second_import", "start_client"]
