"""What the processes of a local cluster print on standard error: held back, so that a failure is one line and not a hundred.

Workers inherit standard error from the process that starts them. While they start (and again while they are closed after a failure)
that is a pipe which is read here: tracebacks are cut to their last line, and the reasons for which a worker ends by itself are found.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from facegraft.engine.shortage import shortage

MARK = "facegraft-worker: "
"""Starts a line that a worker prints for its client, and then ends."""

_KEPT = 50
_LONGEST = 1000
_STDERR = 2
_TRACEBACK = "Traceback (most recent call last):"
_NO_NEWS = (
    "During handling of the above exception",
    "The above exception was the direct cause",
    "Process Dask Worker process",
)


class Overheard:
    """The last lines that were printed, and what they mean. Raises RuntimeError where no thread can be started to read them."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=_KEPT)
        self.marks: list[str] = []
        self.shortage: str | None = None
        self._silent = True
        self._in_traceback = False
        self._reading, self._writing = os.pipe()
        self._outside: int | None = None
        self._listeners = 0
        self._closed = False
        self._lock = threading.Lock()
        try:
            self.reader = threading.Thread(target=self._read, name="facegraft: output of workers", daemon=True)
            self.reader.start()
        except RuntimeError:
            os.close(self._reading)
            os.close(self._writing)
            raise

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Standard error of this process, and of those that it starts meanwhile, is read here."""
        with self._lock:
            self._listeners += 1
            if self._listeners == 1 and not self._closed:
                # Closed, as in a daemon: nobody sees what is printed.
                with suppress(OSError):
                    self._outside = os.dup(_STDERR)
                self._point_stderr_at(self._writing)
        try:
            yield
        finally:
            with self._lock:
                self._listeners -= 1
                if self._listeners == 0:
                    self._give_back()

    def _give_back(self) -> None:
        if self._outside is not None:
            self._point_stderr_at(self._outside)
            outside, self._outside = self._outside, None
            os.close(outside)

    def _point_stderr_at(self, descriptor: int) -> None:
        if self._outside is not None:
            _flush()
            os.dup2(descriptor, _STDERR)

    def forgotten(self, loop: object, context: dict[str, Any]) -> None:
        """A handler for asyncio: exceptions of tasks that nobody waits for, which it would print with their tracebacks."""
        self._hear(f"{context.get('message', '')}: {context.get('exception')!r}")

    def pass_on(self, wanted: bool) -> None:
        """Whether lines are passed on to standard error from now on."""
        self._silent = not wanted

    def close(self) -> None:
        """Stop listening, also where a coroutine of Dask was left in the middle of it; the reading ends with the last process that has
        the pipe."""
        with self._lock:
            self._closed = True
            self._give_back()
        os.close(self._writing)

    def last(self) -> str:
        """The last line that says something; empty where nothing was printed."""
        return next((line for line in reversed(self.lines) if line.strip(" ^~")), "")

    def _read(self) -> None:
        with os.fdopen(self._reading, "rb") as pipe:
            while data := pipe.readline(_LONGEST):
                self._hear(data.decode(errors="replace").rstrip())

    def _hear(self, line: str) -> None:
        if line.startswith(MARK):
            self.marks.append(line.removeprefix(MARK))
            return
        short = shortage(line) is not None
        if short:
            self.shortage = line.strip()
        if line.startswith(_TRACEBACK):
            self._in_traceback = True
            return
        if self._in_traceback and (not line or line.startswith(" ")):
            return
        self._in_traceback = False
        if not line or line.startswith(_NO_NEWS):
            return
        self.lines.append(line)
        if not self._silent and not short:
            # Under the lock, so that the descriptor is not given back between its choice and the writing: the line would be lost.
            with self._lock, suppress(OSError):
                os.write(_STDERR if self._outside is None else self._outside, f"{line}\n".encode())


def _flush() -> None:
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
