"""Loaded by the workers of a local cluster when they start (Dask's preload hook)."""

from __future__ import annotations

import os
import signal
import threading

from facegraft.engine.cluster.overheard import MARK
from facegraft.engine.shortage import NO_THREADS, shortage

_start = threading.Thread.start


def dask_setup(worker: object) -> None:
    """Ctrl-C reaches every process of the terminal, but stopping is up to the one that the user started."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def end_without_threads() -> None:
    """From now on this process ends where a thread cannot be started, and says so. Dask's coroutines would lose the error, and with it
    the shard or its answer: the run would wait for ever. A worker that ends is replaced, and its shard made again."""

    def start(thread: threading.Thread) -> None:
        try:
            _start(thread)
        except RuntimeError as error:
            if shortage(str(error)) is not None:
                os.write(2, f"{MARK}{NO_THREADS}\n".encode())
                os._exit(1)
            raise

    threading.Thread.start = start  # type: ignore[assignment, method-assign]


# At import, because Dask starts threads before it calls dask_setup.
end_without_threads()
