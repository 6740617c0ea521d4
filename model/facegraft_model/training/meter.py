"""Measure the speed of training."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Rates(NamedTuple):
    """Average times of the steps since the last `Meter.restart`."""

    items_per_s: float
    points_per_s: float
    step_ms: float
    data_wait_ms: float


class Meter:
    """Times steps of `items` heads of `points` points each."""

    def __init__(self, items: int, points: int, step: int) -> None:
        self.items, self.points = items, points
        self.restart(step)

    def restart(self, step: int) -> None:
        """Restart at a finished step, so that work between steps, such as validation, is not counted."""
        self._waited, self._since, self._first = 0.0, time.perf_counter(), step

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A context whose time counts as waiting for data."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    def rates(self, step: int) -> Rates:
        """Averages over the steps up to `step`, which is finished."""
        elapsed, count = time.perf_counter() - self._since, step - self._first
        items_per_s = self.items * count / elapsed
        return Rates(items_per_s, self.points * items_per_s, 1e3 * elapsed / count, 1e3 * self._waited / count)
