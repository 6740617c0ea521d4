"""A clock that jumps, as it does when a machine's time is set or a virtual machine is moved: `time.time` and `time.time_ns` of a process.

The clock that never jumps (`time.monotonic`) is left alone, because the system leaves it alone too; so are the times of files.
"""

from __future__ import annotations

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
