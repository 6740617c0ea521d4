"""Stop a run by a signal."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Self


class StopSignals:
    """SIGTERM and Ctrl-C end training after the step that is under way, with a checkpoint."""

    asked = False

    def __enter__(self) -> Self:
        try:
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not the main thread: only that one can handle signals
            self._before = {}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
