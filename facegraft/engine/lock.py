"""One run at a time on an output folder: a lock that the system releases when the process dies, however it dies."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from facegraft.engine.errors import EngineError
from facegraft.engine.remote_lock import is_locked_remotely, locked_remotely
from facegraft.store.atomic import unwritable
from facegraft.store.remote import remote_of

LOCK_FILE = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[Callable[[], None]]:
    """Hold the folder's lock; gives a function that raises EngineError when it was lost, as can happen in an object store.

    Raises EngineError naming the process that holds it.
    """
    path = folder / LOCK_FILE
    remote = remote_of(path)
    if remote is not None:
        with locked_remotely(remote, folder) as lock:
            yield lock.check
        return
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EngineError(
                f"{folder} is in use by another run ({_holder(descriptor)}); wait for it or stop it, or choose another folder"
            ) from None
        except OSError as error:
            raise EngineError(
                f"{path} cannot be locked ({error.strerror}); choose a folder on a file system that has locks"
            ) from error
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        except OSError as error:
            raise unwritable(path, error) from error
        yield lambda: None
    finally:
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Whether a run is going on in the folder."""
    remote = remote_of(folder / LOCK_FILE)
    if remote is not None:
        return is_locked_remotely(remote)
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        return "a process that has just started"
