"""Look at a source of heads before anything is written: `ingest --check` and `doctor SOURCE`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from facegraft.errors import printable

if TYPE_CHECKING:
    from facegraft.engine import EngineOptions
    from facegraft.store.remote import Location

REJECTS_SHOWN = 20


def check_source(source: str | None, parameters: Mapping[str, Any], seed: int, page: Location | None, options: EngineOptions) -> None:
    """Print what ingest would make of a source with these options and what looks odd, and write the page if one is asked for.

    Exits with 1 where a head would be rejected; a source that would be refused raises the error that ingest raises.
    """
    from facegraft.heads.oddities import listed
    from facegraft.stages.census import rows, take_census
    from facegraft.stages.ingest import IngestParameters
    from facegraft.store.remote import place, recordable

    bar = sys.stderr
    shown = options.progress and bar.isatty()

    def tick(done: int, of: int) -> None:
        if shown:
            bar.write(f"\r{done:,} of {of:,} heads read" + ("\n" if done == of else ""))
            bar.flush()

    found = take_census(None if source is None else recordable(place(source)), IngestParameters.parse(parameters), seed, tick)
    click.echo(f"{found.where}, kind {found.kind} (nothing was written)")
    table = [*rows(found), *((one.what, f"{one.found} [bound: {one.bound}]" if one.bound != "–" else one.found) for one in found.statistics)]
    wide = max(len(what) for what, _ in table)
    for what, told in table:
        click.echo(f"  {what:<{wide}}  {printable(told, 2000)}")
    for one in found.statistics:
        if one.odd:
            click.echo(f"  odd: {one.what}: {printable(listed(one.odd, 10), 2000)}")
    if not any(one.odd for one in found.statistics) and not found.rejected:
        click.echo("  nothing looks odd")
    if len(found.rejected) > (limit := options.reject_limit(len(found.items))):
        click.echo(f"  ingest would stop: more than the {limit:,} rejected heads that --max-rejects {options.max_rejects:g} allows")
    for number, (key, reason) in enumerate(found.rejected.items()):
        if number == REJECTS_SHOWN:
            click.echo(f"  and {len(found.rejected) - REJECTS_SHOWN} more would be rejected")
            break
        click.echo(f"  would be rejected: {key}: {reason}")
    if page is not None:
        from facegraft.report import write_check

        click.echo(f"page: {write_check(found, page)}")
    if found.rejected:
        raise click.exceptions.Exit(1)
