"""Loaded by the workers of a local cluster when they start (Dask's preload hook)."""

from __future__ import annotations

import signal


def dask_setup(worker: object) -> None:
    """Ctrl-C reaches every process of the terminal, but stopping is up to the one that the user started."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
