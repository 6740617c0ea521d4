"""Where shards are made: in this process, on a local Dask cluster, or on one that somebody else started."""

from facegraft.engine.cluster.client import Outcome, ShardClient, SyncClient, start_client

__all__ = ["Outcome", "ShardClient", "SyncClient", "start_client"]
