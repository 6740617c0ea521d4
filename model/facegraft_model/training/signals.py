"""Stop a run by a signal."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Self

ECHO_SECONDS = 5.0
"""A Ctrl-C this soon after the first is its echo: the terminal sends one to every process, and torchrun passes its own on."""


class StopSignals:
    """Signals that end a job end training after the step that is under way, with a checkpoint: SIGTERM, Ctrl-C, and, where nobody
    else handles them, SIGHUP (a terminal that is closed) and SIGUSR1 (Slurm's --signal).

    Each may come several times, since torchrun and Slurm both send them; only a second Ctrl-C of the user ends at once, by
    KeyboardInterrupt. now: seconds, for tests.
    """

    asked = False

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._interrupted: float | None = None

    def __enter__(self) -> Self:
        numbers = [signal.SIGTERM, signal.SIGINT]
        # One that is ignored (nohup) stays ignored, and another's handler stays, too.
        numbers += [n for n in (signal.SIGHUP, signal.SIGUSR1) if signal.getsignal(n) is signal.SIG_DFL]
        try:
            self._before = {number: signal.signal(number, self._ask) for number in numbers}
        except ValueError:  # not the main thread: only that one can handle signals
            self._before = {}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if number != signal.SIGINT:
            return
        if self._interrupted is None:
            self._interrupted = self._now()
        elif self._now() - self._interrupted > ECHO_SECONDS:
            raise KeyboardInterrupt
