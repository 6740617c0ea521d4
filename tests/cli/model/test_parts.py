"""Options named after parts, without a model."""

from __future__ import annotations

import json
from typing import Any

import click
import pytest
from click.testing import CliRunner

from facegraft.cli.model.parts import DONOR, PartsCommand, check_donors, read_donors


@click.command("toy", cls=PartsCommand)
@click.argument("folder")
@click.option("--host", required=True)
@click.option(DONOR, "donors", multiple=True, metavar="PART=KEY", callback=read_donors)
@click.option("--quiet/--loud")
@click.option("-o", "--output")
@click.pass_context
def toy(ctx: click.Context, /, donors: dict[str, str], **rest: Any) -> None:
    """Prints what it was given."""
    check_donors(ctx, donors, ["nose", "ear_left"])
    click.echo(json.dumps([donors, rest]))


def answer(*args: str) -> str:
    return CliRunner().invoke(toy, list(args)).output.strip()


@pytest.mark.parametrize(
    "args",
    [
        ("--nose", "a", "--ear-left", "b", "in", "--host", "h", "-o", "out"),
        ("in", "--host=h", "--nose=a", "--ear_left", "b", "-o", "out"),
        ("--host", "h", "--donor", "nose=a", "--output", "out", "--donor", "ear_left=b", "in"),
        ("--nose", "a", "--ear-left=b", "-o", "out", "--host", "h", "--", "in"),
    ],
)
def test_parts_may_stand_anywhere_and_be_written_in_all_ways(args: tuple[str, ...]) -> None:
    rest = {"folder": "in", "host": "h", "quiet": False, "output": "out"}
    assert json.loads(answer(*args)) == [{"nose": "a", "ear_left": "b"}, rest]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("in", "--host", "h", "--nose"), "Option '--nose' requires an argument."),
        (("in", "--nose", "--host", "h"), "Option '--nose' requires an argument."),
        (("--quet", "in", "--host", "h"), "Missing argument 'FOLDER'. (--quet was read as a part and its donor)"),
        (("in", "--host", "h", "--nose", "a", "--donor", "nose=b"), "nose is given twice: a and b"),
        (("in", "--host", "h", "--donor", "nose"), "'nose' must be PART=KEY"),
        (("in", "--host", "h", "--ear-lfet", "a"), "the parts of this model are nose, ear_left; 'ear_lfet' is neither a part nor an option (did you mean 'ear_left'?)"),
        (("in", "--host", "h", "--lout", "a"), "'lout' is neither a part nor an option (did you mean 'loud'?)"),
        (("in", "--host", "h", "--donor", "host=a"), "the parts of this model are nose, ear_left; host is none of them, but an option: --host KEY"),
        (("in", "--host", "h", "--Nose", "a"), "No such option '--Nose'."),
        (("in", "-x", "h"), "No such option '-x'."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_the_last_line(args: tuple[str, ...], message: str) -> None:
    assert message in answer(*args).splitlines()[-1]


def test_help_names_the_form() -> None:
    from facegraft.cli.main import cli

    text = CliRunner().invoke(cli, ["model", "swap", "--help"]).output
    assert "--PART KEY" in text.splitlines()[0] and "--donor PART=KEY" in text and "--expression" in text


def test_swap_needs_a_donor() -> None:
    from commands import refused

    assert "name at least one donor: --PART KEY" in refused("swap", "fits", "--host", "a", "-o", "out")
