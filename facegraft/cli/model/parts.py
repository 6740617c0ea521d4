"""Options named after the parts of a model: `--nose KEY` for a model that has a nose, `--ears KEY` for one that has ears.

The parts are known only after the fits have been read, and these are an argument of the command. So an unknown option is first
taken for a part, and looked up once the model is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import click

from facegraft.errors import nearest, printable

_OPTION = re.compile(r"--([a-z][a-z0-9_-]*)(?:=(.*))?", re.DOTALL)
DONOR = "--donor"


class PartsCommand(click.Command):
    """A command with an option `--donor PART=KEY`, which can be shortened to `--PART KEY`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Raises UsageError for a part without a key; for any other error the message also says which options were taken for parts."""
        rewritten, taken = self._as_donors(ctx, args)
        try:
            return super().parse_args(ctx, rewritten)
        except click.UsageError as error:
            if not taken:
                raise
            options = ", ".join(f"--{name}" for name in taken)
            raise click.UsageError(f"{error.format_message()} ({options} was read as a part and its donor)", ctx) from error

    def _as_donors(self, ctx: click.Context, args: list[str]) -> tuple[list[str], list[str]]:
        known = {name for param in self.get_params(ctx) for name in (*param.opts, *param.secondary_opts)}
        rewritten: list[str] = []
        taken: list[str] = []
        rest = iter(args)
        for argument in rest:
            found = _OPTION.fullmatch(argument)
            if argument == "--":
                return [*rewritten, argument, *rest], taken
            if found is None or f"--{found[1]}" in known:
                rewritten.append(argument)
                continue
            key = found[2] if found[2] is not None else next(rest, None)
            if key is None or key.startswith("--"):
                raise click.BadOptionUsage(argument, f"Option {argument!r} requires an argument.", ctx)
            taken.append(found[1])
            rewritten += [DONOR, f"{found[1].replace('-', '_')}={key}"]
        return rewritten, taken


def read_donors(ctx: click.Context, param: click.Parameter, values: Iterable[str]) -> dict[str, str]:
    """The key of each part, from texts `PART=KEY`. Raises BadParameter for another form, or a part given twice."""
    donors: dict[str, str] = {}
    for value in values:
        part, equals, key = value.partition("=")
        if not (part and equals and key):
            raise click.BadParameter(f"{printable(value)!r} must be PART=KEY, such as nose=s0007_neutral", ctx, param)
        if part in donors:
            raise click.BadParameter(f"{part} is given twice: {donors[part]} and {key}", ctx, param)
        donors[part] = key
    return donors


def check_donors(ctx: click.Context, donors: Mapping[str, Any], parts: Iterable[str]) -> None:
    """Raises UsageError for a name that is not a part of the model, with the known parts and the most similar one."""
    parts = list(parts)
    own = [option.lstrip("-") for param in ctx.command.get_params(ctx) for option in (*param.opts, *param.secondary_opts)]
    for name in donors:
        if name in own and name not in parts:
            raise click.UsageError(
                f"the parts of this model are {', '.join(parts)}; {name} is none of them, but an option: --{name} KEY", ctx
            )
        if name not in parts:
            raise click.UsageError(
                f"the parts of this model are {', '.join(parts)}; {printable(name)!r} is neither a part nor an option"
                f"{nearest(name, [*parts, *own], 'see --help')}",
                ctx,
            )
