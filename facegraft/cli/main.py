"""The entry point: all commands, and the handling of their errors."""

from __future__ import annotations

import logging
import os
import sys
import traceback

import click

from facegraft.cli.datasets import doctor, inspect, report, retry, status, verify
from facegraft.cli.group import cli
from facegraft.cli.model import model, paper
from facegraft.cli.regions import regions
from facegraft.cli.stages import STAGE_COMMANDS, demo, run
from facegraft.engine.shortage import shortage
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
        _discard_stdout()
        sys.exit(141)
    except (OSError, ImportError, MemoryError, RuntimeError) as error:
        if limit := shortage(f"{type(error).__name__}: {error}"):
            click.echo(f"facegraft: error: {limit}; what was made is kept", err=True)
            sys.exit(1)
        if not isinstance(error, OSError) or not _is_of_echo(error):
            raise
        _discard_stdout()
        click.echo(f"facegraft: error: cannot write to standard output ({error.strerror or error}); what was made is kept", err=True)
        sys.exit(1)


def _is_of_echo(error: OSError) -> bool:
    """Whether the error is of printing, which is not the program's: all other files are written by the store, which names them."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return frames[-1].f_globals.get("__name__") == click.utils.__name__


def _discard_stdout() -> None:
    """Let Python flush standard output at its end without an error: what cannot be written is dropped."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
