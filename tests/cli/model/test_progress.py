"""The bar of the model's commands, on a terminal and without one."""

from __future__ import annotations

import io
import sys

import pytest

from facegraft.cli.model.progress import Progress


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_each_step_has_a_bar_that_goes_when_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Progress("fit", quiet=False) as bar:
        bar(5, 10, 0.25)
        assert bar._bar is not None
        bar._bar[0].refresh()
        assert "fit" in terminal.getvalue() and "5/10" in terminal.getvalue() and "loss 0.25" in terminal.getvalue()
        bar(10, 10, 0.1)
        assert bar._bar is None
        bar.named("leakage", 1, 3)
        assert bar._bar is not None
        bar._bar[0].refresh()
        assert "leakage" in terminal.getvalue() and "1/3" in terminal.getvalue()
    assert bar._bar is None


def test_an_error_takes_the_bar_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = Progress("extract", quiet=False)
    with pytest.raises(ValueError, match="broken"), bar:
        bar.heads(1, 2)
        assert bar._bar is not None
        raise ValueError("broken")
    assert bar._bar is None


@pytest.mark.parametrize("quiet", [False, True])
def test_nothing_is_written_where_there_is_no_terminal_or_none_is_wanted(quiet: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal() if quiet else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress("fit", quiet) as bar:
        bar(1, 2, 0.5)
    assert stream.getvalue() == ""
