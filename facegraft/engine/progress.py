"""Progress of a run: a bar on a terminal, a plain line now and then elsewhere. Always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

_LINE_EVERY_S = 15.0


class Progress(Protocol):
    """A progress display. `done` counts items, including rejected ones; `kept` of them were made before this run."""

    def update(self, done: int, rejected: int, kept: int) -> None: ...


class _Silent:
    def update(self, done: int, rejected: int, kept: int) -> None:
        pass


class _Lines:
    def __init__(self, title: str, planned: int) -> None:
        self._title, self._planned = title, planned
        self._start = time.monotonic()
        self._last: tuple[float, int] = (self._start, -1)

    def update(self, done: int, rejected: int, kept: int) -> None:
        now = time.monotonic()
        finished = done >= self._planned
        if done == self._last[1] or (now - self._last[0] < _LINE_EVERY_S and not finished):
            return
        self._last = (now, done)
        rate = (done - kept) / max(now - self._start, 1e-9)
        parts = [f"{self._title}: {done}/{self._planned} items", f"{rejected} rejected"]
        if rate > 0:
            parts.append(f"{rate:.3g} items/s")
            if not finished:
                parts.append(f"{_clock((self._planned - done) / rate)} to go")
        print(", ".join(parts), file=sys.stderr, flush=True)


@contextmanager
def show_progress(title: str, planned: int, wanted: bool) -> Iterator[Progress]:
    """The display for stderr: a bar on a terminal, else lines."""
    if not wanted:
        yield _Silent()
    elif not sys.stderr.isatty():
        yield _Lines(title, planned)
    else:
        with _bar(title, planned) as bar:
            yield bar


@contextmanager
def _bar(title: str, planned: int) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    columns = (
        SpinnerColumn(),
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rejected]} rejected"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with RichProgress(*columns, console=Console(stderr=True)) as display:
        task = display.add_task(title, total=planned, rejected=0, rate="", left="")
        start = time.monotonic()

        class Bar:
            def update(self, done: int, rejected: int, kept: int) -> None:
                rate = (done - kept) / max(time.monotonic() - start, 1e-9)
                left = f"{_clock((planned - done) / rate)} to go" if rate > 0 else ""
                display.update(
                    task, completed=done, rejected=rejected, rate=f"{rate:.3g}/s" if rate > 0 else "", left=left
                )

        yield Bar()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
