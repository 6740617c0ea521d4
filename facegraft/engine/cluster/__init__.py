"""Making shards in this process, on a local Dask cluster, or on an existing cluster."""

from facegraft.engine.cluster.client import Outcome, ShardClient, SyncClient, start_client

__all__ = ["Outcome", "ShardClient", "SyncClient", "start_client"]
