"""One client for several runs, started by the first of them that has something to make."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from facegraft.engine.cluster.client import ShardClient, start_client
from facegraft.engine.options import EngineOptions


class SharedClient:
    """A context manager: what it started ends with it."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._held = ExitStack()
        self._client: ShardClient | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._held.__exit__(kind, error, trace)
        self._client = None

    def started(self) -> ShardClient:
        """The client. Raises EngineError when its cluster cannot be reached."""
        if self._client is None:
            self._client = self._held.enter_context(start_client(self._options))
        return self._client
