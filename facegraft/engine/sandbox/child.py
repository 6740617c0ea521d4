"""The child process, from its worker's side: start it, exchange messages under a time limit, kill it.

A `subprocess` and not `multiprocessing`, because Dask's workers are daemons and may not have multiprocessing children. The child is
`facegraft.engine.child_main`.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from facegraft.engine.clock import SYSTEM_CLOCK, Clock
from facegraft.engine.errors import EngineError
from facegraft.engine.sandbox import wire
from facegraft.engine.signs import FILES_S, SIGNS
from facegraft.engine.threads import SINGLE_THREAD

_READ = 1 << 20
_TAIL_BYTES = 8192
_SLICE_S = 1.0
# Signals from outside (an operator, the system when memory is short), not from the running code.
_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class ChildTimeout(Exception):
    """No answer within the limit; the child has been killed."""


class ChildDied(Exception):
    """The child ended, or its answer was not a message. `outside`: it was killed by a signal that its own code does not raise."""

    def __init__(self, reason: str, outside: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.outside = outside


class Child:
    """One child process. Not thread-safe: it belongs to the thread that started it (and dies with that thread)."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        # -P and an explicit PYTHONPATH: the child must import the same modules as this process, and none from the current folder.
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        command = [
            sys.executable,
            "-P",
            "-m",
            "facegraft.engine.sandbox.child_main",
            str(os.getpid()),
            str(memory_bytes),
        ]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env={**os.environ, **SINGLE_THREAD, "PYTHONPATH": path},
                # Own session: Ctrl-C reaches only the user's process, and processes that the item started can be killed with it.
                start_new_session=True,
            )
        except OSError as error:
            raise _refused("process", error.strerror or str(error)) from error
        assert self._process.stdin is not None and self._process.stdout is not None and self._process.stderr is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        # A bounded tail of its output; read continuously, so that a library that prints much never blocks on a full pipe.
        self._output = bytearray()
        self._drain = threading.Thread(target=self._read_stderr, args=(self._process.stderr,), daemon=True)
        try:
            self._drain.start()
        except RuntimeError as error:
            self.kill()
            raise _refused("thread", str(error)) from error
        # From its answers: the number of items processed, and the bytes in use when its stage was ready.
        self.served = 0
        self.base_memory = 0

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def exchange(
        self, header: Mapping[str, Any], limit_s: float, clock: Clock = SYSTEM_CLOCK
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Send a request and wait for the answer, `limit_s` by the clock. Raises ChildTimeout or ChildDied; in both cases the child is gone."""
        self._output.clear()
        limit = _TimeLimit(limit_s, clock)
        SIGNS.give(limit_s)
        try:
            self._send(wire.encode(header), limit)
            sizes = wire.read_prefix(self._receive(wire.PREFIX.size, limit), self._memory_bytes)
            return wire.decode(self._receive(sizes[0], limit), self._receive(sizes[1], limit))
        except wire.WireError as error:
            self.kill()
            raise ChildDied(f"crashed: broken answer ({error})", outside=False) from error
        except (BrokenPipeError, EOFError) as error:
            raise self._death() from error
        except BaseException:
            # A Ctrl-C or a timeout between request and answer: a late answer must not be taken for that of another item.
            self.kill()
            raise
        finally:
            SIGNS.give(FILES_S)

    def last_output(self) -> str:
        """The last lines that the child (or a native library in it) wrote to stdout or stderr since the last request."""
        return self._output.decode(errors="replace")

    def kill(self) -> None:
        """End the child and everything it started, at once."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            self._process.kill()
        self._process.wait()
        if self._drain.ident is not None:  # it was started
            self._drain.join(timeout=2.0)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _send(self, buffers: list[bytes | memoryview], limit: _TimeLimit) -> None:
        for buffer in buffers:
            view = memoryview(buffer)
            while view:
                limit.wait(self._to, select.POLLOUT)
                try:
                    view = view[os.write(self._to, view) :]
                except BlockingIOError:
                    continue

    def _receive(self, size: int, limit: _TimeLimit) -> bytearray:
        data, filled = bytearray(size), 0
        view = memoryview(data)
        while filled < size:
            limit.wait(self._from, select.POLLIN)
            try:
                count = os.readv(self._from, [view[filled : filled + _READ]])
            except BlockingIOError:
                continue
            if count == 0:
                raise EOFError
            filled += count
        return data

    def _death(self) -> ChildDied:
        try:
            code = self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self.kill()
            return ChildDied("crashed: closed its pipe", outside=False)
        self.kill()
        if code >= 0:
            return ChildDied(f"crashed: exit code {code}", outside=False)
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = "unknown"
        if -code in _OUTSIDE:
            return ChildDied(
                f"killed: signal {-code} ({name}), most likely the machine's memory was full", outside=True
            )
        return ChildDied(f"crashed: signal {-code} ({name})", outside=False)

    def _read_stderr(self, stderr: IO[bytes]) -> None:
        with stderr:
            while data := stderr.read(4096):
                self._output += data
                del self._output[:-_TAIL_BYTES]


def _refused(what: str, why: str) -> EngineError:
    return EngineError(
        f"no {what} for the items can be started on {socket.gethostname()} ({why}); raise the limits there (ulimit -u, ulimit -v, "
        "ulimit -n), or use fewer --workers; what was committed is kept"
    )


class _TimeLimit:
    """A time limit that does not run while the parent is stopped or suspended: each wait counts for one second at most."""

    def __init__(self, limit_s: float, clock: Clock) -> None:
        self._left = limit_s
        self._clock = clock

    def wait(self, descriptor: int, event: int) -> None:
        """Wait until the descriptor is ready (or closed). Raises ChildTimeout."""
        poll = select.poll()
        poll.register(descriptor, event)
        while self._left > 0:
            start = self._clock.monotonic()
            ready = poll.poll(1000 * min(self._left, _SLICE_S))
            self._left -= min(self._clock.monotonic() - start, _SLICE_S)
            if ready:
                return
        raise ChildTimeout
