"""Clocks for tests: one that jumps, and one that stands still until the test moves it.

`jumping_clock` changes `time.time` and `time.time_ns` of a process, as happens when a machine's time is set or a virtual machine is
moved. The clock that never jumps (`time.monotonic`) is left alone, because the system leaves it alone too; so are the times of files.
`HeldClock` replaces the engine's own clock (`facegraft.engine.clock`), so that a test of a waiting time need not wait and does not
depend on the load of the machine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any
from unittest import mock


@dataclass(frozen=True)
class ClockJump:
    """After `after_s` seconds of the process's life the clock jumps by `by_s` seconds (back, when negative)."""

    after_s: float
    by_s: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@contextmanager
def jumping_clock(jumps: Sequence[ClockJump]) -> Iterator[None]:
    """The jumps, counted from now, in this process, for as long as the block lasts."""
    seconds, nanoseconds = _clocks(jumps)
    with mock.patch.object(time, "time", seconds), mock.patch.object(time, "time_ns", nanoseconds):
        yield


def install(jumps: Sequence[ClockJump]) -> None:
    """The jumps, in this process, from now on."""
    time.time, time.time_ns = _clocks(jumps)


def _clocks(jumps: Sequence[ClockJump]) -> tuple[Callable[[], float], Callable[[], int]]:
    real, real_ns, start = time.time, time.time_ns, time.monotonic()

    def offset() -> float:
        age = time.monotonic() - start
        return sum(jump.by_s for jump in jumps if age >= jump.after_s)

    return lambda: real() + offset(), lambda: real_ns() + int(offset() * 1e9)


class HeldClock:
    """A clock that moves only by `advance`, by `step_s` at every reading, and by `sleep`, which returns at once.

    `while_asleep` is called in every sleep, to simulate events elsewhere. Safe to use from several threads.
    """

    def __init__(self, step_s: float = 0.0, while_asleep: Callable[[], None] | None = None) -> None:
        self.step_s = step_s
        self.while_asleep = while_asleep
        self._now = 0.0
        self._moved = threading.Condition()

    def monotonic(self) -> float:
        with self._moved:
            self._now += self.step_s
            return self._now

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        if self.while_asleep is not None:
            self.while_asleep()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until the event is set, or the clock has been moved that far."""
        with self._moved:
            end = self._now + seconds
            while not event.is_set() and self._now < end:
                # Setting the event does not notify this clock, so the event is polled.
                self._moved.wait(0.01)
        return event.is_set()

    def advance(self, seconds: float) -> None:
        """Let that much time pass."""
        with self._moved:
            self._now += seconds
            self._moved.notify_all()
