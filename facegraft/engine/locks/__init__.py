"""One run at a time on an output folder, on disk or in an object store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from facegraft.engine.locks.local import is_locked_locally, locked_locally
from facegraft.engine.locks.remote import is_locked_remotely, locked_remotely
from facegraft.store.remote import Location, RemotePath

LOCK_FILE = ".lock"


@contextmanager
def locked(folder: Location) -> Iterator[Callable[[], None]]:
    """Hold the folder's lock; yields a function that raises EngineError when the lock was lost, as can happen in an object store.

    Raises EngineError naming the process that holds it.
    """
    path = folder / LOCK_FILE
    if isinstance(path, RemotePath):
        with locked_remotely(path, folder) as lock:
            yield lock.check
    else:
        with locked_locally(path):
            yield lambda: None


def is_locked(folder: Location) -> bool:
    """Whether a run is active in the folder."""
    path = folder / LOCK_FILE
    return is_locked_remotely(path) if isinstance(path, RemotePath) else is_locked_locally(path)
