"""Checksums of a dataset that several processes are going to read: each is compared by one process of a machine."""

from __future__ import annotations

from pathlib import Path

from facegraft.store import Location, StoreError, open_dataset
from facegraft_model.data.resident import Report
from facegraft_model.errors import ModelError
from facegraft_model.training.parallel import Processes


def check_together(samples: Location, processes: Processes, report: Report | None = None) -> bool:
    """Compare the sha256 of all shards before they are read, each process of a machine those of its share; returns whether this was done.

    It is not for one process alone, which compares each shard when it first opens it, nor for a dataset in an object store, whose
    shards are compared as they are fetched. Raises DamagedError for a damaged shard, and ModelError in the other processes.
    """
    if processes.world == 1 or not isinstance(samples, Path):
        return False
    fault: StoreError | None = None
    try:
        store = open_dataset(samples, verify=False)
        own = [shard.name for shard in store.shards][processes.local_rank :: processes.local_world]
        for number, name in enumerate(own, 1):
            store.check_shard(name)
            if report is not None:
                report(number, len(own))
    except StoreError as error:
        fault = error  # the others must not wait for this process for ever
    (anywhere,) = processes.any(fault is not None)
    if fault is not None:
        raise fault
    if anywhere:
        raise ModelError(f"{samples}: another process found a damaged shard; see its message")
    return True
