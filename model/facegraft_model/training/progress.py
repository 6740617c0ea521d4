"""Progress of training: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import TextIO

REDRAW_SECONDS = 0.1
LINE_SECONDS = 30.0
QUIET_SECONDS = 3.0
_BAR_WIDTH = 24


class ProgressLine:
    """One line on `stream` about a run of `total` steps: bar, step, loss, rates, time left.

    The time left is estimated from the wall clock since the first update, so that saving and validation count, but compilation
    before the first step does not. now: seconds, for tests.
    """

    def __init__(self, total: int, stream: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.stream = stream
        self._now = now
        self._terminal = stream.isatty()
        self._first: tuple[int, float] | None = None
        self._shown_at: float | None = None
        self._drawn = False

    def update(self, step: int, items_per_s: float, loss: float, points_per_s: float | None = None) -> None:
        """Show a finished step, unless the last line is too recent; the last step is always shown."""
        now = self._now()
        if self._first is None:
            self._first = (step, now)
        pause = REDRAW_SECONDS if self._terminal else LINE_SECONDS
        if self._shown_at is not None and now - self._shown_at < pause and step < self.total:
            return
        self._shown_at = now
        rates = f"{items_per_s:.1f} items/s" + ("" if points_per_s is None else f", {_short(points_per_s)} points/s")
        text = f"step {step}/{self.total}, loss {loss:.4g}, {rates}, {self._time_left(step, now)} left"
        if not self._terminal:
            print(text, file=self.stream, flush=True)
            return
        filled = _BAR_WIDTH if self.total <= 0 else min(_BAR_WIDTH, _BAR_WIDTH * step // self.total)
        width = shutil.get_terminal_size().columns - 1
        self.stream.write("\r\x1b[K" + f"[{'=' * filled}{' ' * (_BAR_WIDTH - filled)}] {text}"[:width])
        self.stream.flush()
        self._drawn = True

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        if self._drawn:
            self.stream.write("\r\x1b[K")
        print(text, file=self.stream, flush=True)

    def close(self) -> None:
        """Leave the bar and move to the next line."""
        if self._drawn:
            print(file=self.stream, flush=True)
        self._drawn = False

    def _time_left(self, step: int, now: float) -> str:
        assert self._first is not None
        first, start = self._first
        if step >= self.total:
            return "0:00:00"
        if step <= first:
            return "-:--:--"
        seconds = round((self.total - step) * (now - start) / (step - first))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


class ReadingLine:
    """One line on `stream` about reading that takes long: nothing in the first seconds, then a line that is redrawn on a terminal, and a
    new one now and then elsewhere. Call it with what is done and with all. now: seconds, for tests."""

    def __init__(self, what: str, stream: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        self._what, self._stream, self._now, self._terminal = what, stream, now, stream.isatty()
        self._shown_at, self._drawn = now() + QUIET_SECONDS - self._pause, False

    @property
    def _pause(self) -> float:
        return REDRAW_SECONDS if self._stream.isatty() else LINE_SECONDS

    def __call__(self, done: int, total: int) -> None:
        """Show the state, unless the last line is too recent; on a terminal the line goes when all is done."""
        now = self._now()
        if now - self._shown_at >= self._pause and done < total:
            text = f"{self._what}: {done:,} of {total:,}"
            self._stream.write(f"\r\x1b[K{text}" if self._terminal else f"{text}\n")
            self._stream.flush()
            self._shown_at, self._drawn = now, self._terminal
        elif self._drawn and done >= total:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False


def _short(number: float) -> str:
    """A rate with three digits: 812, 15.2 k, 3.41 M."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"
