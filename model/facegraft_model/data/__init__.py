"""Make batches from shards: id tables, a stateless sampler, resident and streaming back ends."""

from facegraft_model.data.batches import BatchSource
from facegraft_model.data.ids import DataError, IdTable

__all__ = ["BatchSource", "DataError", "IdTable"]
