"""Running commands in tests."""

from __future__ import annotations

from click.testing import CliRunner

from facegraft.cli.main import cli


def run_model(*arguments: object) -> str:
    """Output of `facegraft model …`; its errors are raised."""
    result = CliRunner().invoke(cli, ["model", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: object) -> str:
    """What `facegraft model …` says of a wrong command line."""
    result = CliRunner().invoke(cli, ["model", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 2, result.output
    return result.output
