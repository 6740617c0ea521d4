"""Options that several commands share, and the parsing of their values."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from facegraft.engine import RunSummary, Tls


class Place(click.Path):
    """A folder or file: a path, or the URL of one in an object store."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from facegraft.store.errors import StoreError
        from facegraft.store.remote import RemotePath, place, recordable

        try:
            found = recordable(place(value))
        except StoreError as error:
            self.fail(str(error), param, ctx)
        return found if isinstance(found, RemotePath) else super().convert(found, param, ctx)


class LocalPath(Place):
    """A folder or file on this machine."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "://" in str(value):
            self.fail(f"{value}: this must be on this machine, not a URL", param, ctx)
        return super().convert(value, param, ctx)


def output_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """-o DIR or -o URL."""
    return click.option(
        "-o", "--output", type=Place(file_okay=False), required=True, help="Folder to write, or its URL."
    )(command)


def check_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--check, and -o DIR, which with --check is a page."""
    command = click.option(
        "--check", is_flag=True, help="Write no dataset: read and judge every head, and print what is there; exit 1 where a head would be rejected."
    )(command)
    return click.option(
        "-o", "--output", type=Place(), default=None, help="Folder to write, or its URL; with --check: an HTML page of pictures.", show_default=False
    )(command)


def scheduler_options(help_text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """--scheduler and the TLS files for a scheduler at tls://…. Passed on as `scheduler` and `tls`."""
    pem = click.Path(exists=True, dir_okay=False)

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @click.option("--scheduler", default=None, metavar="ADDRESS", help=help_text)
        @click.option(
            "--tls-ca", type=pem, default=None, help="Authority's certificate (PEM), for a scheduler at tls://…."
        )
        @click.option("--tls-cert", type=pem, default=None, help="Your certificate (PEM), signed by that authority.")
        @click.option("--tls-key", type=pem, default=None, help="Key of your certificate (PEM), if it is not in the same file.")
        @wraps(command)
        def wrapped(
            *args: Any,
            scheduler: str | None,
            tls_ca: str | None,
            tls_cert: str | None,
            tls_key: str | None,
            **kwargs: Any,
        ) -> Any:
            from facegraft.engine import Tls

            if (tls_ca is None) != (tls_cert is None) or (tls_key is not None and tls_cert is None):
                raise click.UsageError("--tls-ca and --tls-cert (and --tls-key) must be given together")
            tls = None if tls_ca is None or tls_cert is None else Tls(tls_ca, tls_cert, tls_key)
            return command(*args, scheduler=scheduler, tls=tls, **kwargs)

        return wrapped

    return decorate


def limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--item-timeout and --item-memory."""
    command = click.option(
        "--item-memory", type=click.FloatRange(min=0.25), default=6.0, help="Gigabytes that one item may use."
    )(command)
    return click.option(
        "--item-timeout", type=click.FloatRange(min=1), default=300.0, help="Seconds that one item may take."
    )(command)


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of all commands that run on the engine; they do not change what is written. Passed on as `options`."""

    @click.option(
        "--workers",
        type=click.IntRange(1),
        default=None,
        help="Worker processes of the local cluster; default: one per core.",
        show_default=False,
    )
    @scheduler_options("Dask scheduler (tcp://…, tls://… or a scheduler file), or 'sync' for this process.")
    @click.option(
        "--max-rejects",
        type=click.FloatRange(0, 1),
        default=0.02,
        help="Share of items that may be rejected before the run stops.",
    )
    @limit_options
    @click.option("--quiet", is_flag=True, help="No progress display.")
    @wraps(command)
    def wrapped(
        *args: Any,
        workers: int | None,
        scheduler: str | None,
        tls: Tls | None,
        max_rejects: float,
        item_timeout: float,
        item_memory: float,
        quiet: bool,
        **kwargs: Any,
    ) -> Any:
        from facegraft.engine import EngineOptions

        options = EngineOptions(
            workers=workers,
            scheduler=scheduler,
            max_rejects=max_rejects,
            item_timeout_s=item_timeout,
            item_memory_gb=item_memory,
            progress=not quiet,
            tls=tls,
        )
        return command(*args, options=options, **kwargs)

    return wrapped


def stage_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--seed and --set of a command that runs one stage."""
    command = click.option("--seed", type=click.IntRange(0), default=0, help="Seed of everything random.")(command)
    return click.option(
        "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Any parameter of the stage; repeatable."
    )(command)


def gathered(stage: str, settings: tuple[str, ...], **named: Any) -> dict[str, Any]:
    """Parameters of a stage: --set values and named options (those that were given), which must not contradict each other."""
    from facegraft.recipe import stage_settings

    values = stage_settings(stage, settings)
    for name, value in named.items():
        if value is None:
            continue
        if name in values and values[name] != value:
            raise click.UsageError(
                f"{name} is given twice: --{name.replace('_', '-')} {value} and --set {name}={values[name]}"
            )
        values[name] = value
    return values


def say(summary: RunSummary) -> None:
    """Print what was written where."""
    if summary.already_complete:
        click.echo(f"{summary.output}: already complete, {summary.written} items written, {summary.rejected} rejected")
        return
    kept = f", {summary.kept} of them kept from before" if summary.kept else ""
    click.echo(
        f"{summary.output}: {summary.written} items written, {summary.rejected} rejected{kept}, in {summary.seconds:.1f} s"
    )
    for reason, count in sorted(summary.reasons.items(), key=lambda pair: (-pair[1], pair[0]))[:5]:
        click.echo(f"  rejected {count}: {reason}")


def count_or_names(_: click.Context, __: click.Parameter, text: str | None) -> int | list[str] | None:
    """A number, or names separated by commas. A number that has another spelling (010, ²) is a name."""
    if text is None:
        return None
    return int(text) if text.isascii() and text.isdigit() and text == str(int(text)) else [name.strip() for name in text.split(",")]
