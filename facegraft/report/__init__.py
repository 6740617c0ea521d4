"""Reports: one self-contained HTML page of pictures and figures about a run or a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facegraft.stages.census import Census
    from facegraft.store.remote import Location

PAGE = "index.html"


def write_report(folder: Location, output: Location) -> Location:
    """Write `output`/index.html about a run's folder (with all or some stages) or one dataset's folder; returns its path.

    The page is one file: pictures, charts and styles are embedded, and it loads nothing. It is written atomically.
    Raises ReportError where there is nothing to report on or this machine cannot draw, StoreError for damaged data.
    """
    # Imported here: the command line imports this package for every command, and VTK and matplotlib take seconds.
    from facegraft.report.compose import compose_page
    from facegraft.store.atomic import write_bytes_atomic
    from facegraft.store.remote import place

    path = place(output) / PAGE
    write_bytes_atomic(path, compose_page(place(folder)).encode("utf-8"))
    return path


def write_check(census: Census, path: Location) -> Location:
    """Write one page about a source of heads that is not ingested yet: what is there, what looks odd, thumbnails; returns its path.

    Raises ReportError where this machine cannot draw.
    """
    from facegraft.report.checkpage import compose_check
    from facegraft.store.atomic import write_bytes_atomic

    write_bytes_atomic(path, compose_check(census).encode("utf-8"))
    return path


__all__ = ["PAGE", "write_check", "write_report"]
