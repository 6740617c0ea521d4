"""Reading of HTML pages that facegraft wrote: their commands and tables."""

from __future__ import annotations

import html
import re
import shlex
from pathlib import Path
from typing import Any

import click

from facegraft.cli.main import cli


def commands_on(page: Path) -> list[str]:
    """The commands on a page."""
    return [html.unescape(text) for text in re.findall(r"<pre>(.*?)</pre>", page.read_text(), re.DOTALL)]


def tables_on(page: Path) -> list[list[list[str]]]:
    """The rows of each table on a page, as texts."""
    return [
        [
            [html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)]
            for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)[1:]
        ]
        for table in re.findall(r"<table>(.*?)</table>", page.read_text(), re.DOTALL)
    ]


def parsed(command: str) -> dict[str, Any]:
    """The parameters that facegraft's command line reads from a command. Raises UsageError where it is none."""
    words = shlex.split(command)
    assert words.pop(0) == "facegraft"
    found: click.Command = cli
    context = None
    while isinstance(found, click.Group):
        context = found.make_context(found.name, words[:1], parent=context, resilient_parsing=True)
        _, chosen, words = found.resolve_command(context, words)
        assert chosen is not None
        found = chosen
    return found.make_context(found.name, words, parent=context).params
