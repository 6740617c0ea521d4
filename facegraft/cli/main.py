"""The entry point: all commands, and the handling of their errors."""

from __future__ import annotations

import logging
import sys

import click

from facegraft.cli.datasets import doctor, inspect, report, retry, status, verify
from facegraft.cli.group import cli
from facegraft.cli.model import model, paper
from facegraft.cli.regions import regions
from facegraft.cli.stages import STAGE_COMMANDS, demo, run
from facegraft.errors import FacegraftError, printable

for command in (
    demo,
    run,
    *STAGE_COMMANDS,
    verify,
    status,
    inspect,
    retry,
    report,
    doctor,
    regions,
    model,
    paper,
):
    cli.add_command(command)


def main() -> None:
    """Entry point: one line and exit code 1 for a failed run, 2 for wrong usage, 130 for Ctrl-C."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("facegraft: %(message)s"))
    logger = logging.getLogger("facegraft")  # only our own messages: users do not need those of libraries
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except FacegraftError as error:
        click.echo(f"facegraft: error: {printable(error, 10_000)}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("facegraft: interrupted; finished shards are kept, run the same command again to continue", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
