"""Signs of life of the shards that this process makes, for a client that wants to tell a slow shard from one that hangs.

Each thread that makes a shard gives a sign at every step, with the seconds that the step may take at most: those of the time limit that
it runs under. Nobody is stopped here; the client decides (`facegraft.engine.cluster.watch`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

FILES_S = 1800.0
"""What reading a plan or writing a shard may take, on the slowest of network file systems."""


class Signs:
    """(shard, number of the sign, seconds that this step may take) of each thread at work."""

    def __init__(self) -> None:
        self._now: dict[int, tuple[int, int, float]] = {}

    @contextmanager
    def of_shard(self, shard: int) -> Iterator[None]:
        thread = threading.get_ident()
        self._now[thread] = (shard, 0, FILES_S)
        try:
            yield
        finally:
            del self._now[thread]

    def give(self, limit_s: float) -> None:
        """A step begins that takes `limit_s` at most; nothing where this thread makes no shard."""
        thread = threading.get_ident()
        if thread in self._now:
            shard, number, _ = self._now[thread]
            self._now[thread] = (shard, number + 1, limit_s)

    def all(self) -> dict[int, tuple[int, int, float]]:
        """By thread."""
        return dict(self._now)


SIGNS = Signs()
