"""The root command."""

from __future__ import annotations

import click

from facegraft import __version__

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True}


class Commands(click.Group):
    """A group that keeps the commands in the order of the pipeline."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=Commands, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="facegraft")
def cli() -> None:
    """Composite 3D heads by the thousand, and the signed-distance datasets made of them.

    \b
    facegraft demo                                   everything, on built-in heads, ending in a page of pictures
    facegraft run ict --input FaceXModel -o out      a whole recipe: ingest, graft, clean, sample, report
    """
