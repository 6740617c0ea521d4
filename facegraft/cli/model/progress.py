"""Progress of the model's commands: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Display
    from rich.progress import TaskID


class Progress:
    """One bar on stderr at a time, for the steps of the work; use it in a `with` block.

    The bar of a finished step is removed, so that it does not overwrite other output between the steps, such as that of training.
    """

    def __init__(self, what: str, quiet: bool) -> None:
        self._what, self._shown = what, not quiet and sys.stderr.isatty()
        self._bar: tuple[Display, TaskID] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, done: int, total: int, loss: float) -> None:
        """Show the iterations of a fit, and the mean loss per head."""
        self._update(self._what, done, total, f"loss {loss:.4g}")

    def heads(self, done: int, total: int) -> None:
        """Show how many of the heads are done."""
        self._update(self._what, done, total, "heads")

    def named(self, what: str, done: int, total: int) -> None:
        """Start a named step of the work."""
        self._update(what, done, total, "")

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar[0].stop()
            self._bar = None

    def _update(self, what: str, done: int, total: int, note: str) -> None:
        if not self._shown:
            return
        display, task = self._bar = self._bar or _start()
        display.update(task, description=what, completed=done, total=total, note=note)
        if done >= total:
            self.close()


def _start() -> tuple[Display, TaskID]:
    # Imported here, because commands without progress do not need it.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Display

    columns: tuple[Any, ...] = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    display = Display(*columns, console=Console(stderr=True), transient=True)
    display.start()
    return display, display.add_task("", total=None, note="")
