"""`facegraft paper`: the tables and figures of the paper from a run's folder, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from facegraft.cli.model.group import FOLDER, require_torch
from facegraft.cli.model.progress import Progress
from facegraft.cli.model.scoring import comparison_options, model_compare, task_of
from facegraft.errors import FacegraftError

QUICK: dict[str, Any] = {
    "methods": "linear,linear-parts,deepsdf-small,i3dmm-small,imface-small,paper-small,tiny",
    "steps": 60,
    "fit_steps": 15,
    "resolution": 80,
    "pairs": 0,
    "points": 5_000,
    "part_points": 1_000,
    "settings": ("data.items=4",),
}
"""What --quick puts in place of the defaults."""
HEADSPACE_PART_POINTS = 10_000
"""Points of a part in the paper's scores on Headspace."""


class NoSamplesError(FacegraftError):
    """A folder without samples to learn from."""


@click.command("paper")
@click.argument("folder", metavar="OUT", type=FOLDER)
@click.option("-o", "--output", type=FOLDER, default=None, help="Folder to write.  [default: OUT/paper]", show_default=False)
@comparison_options
@click.option(
    "--figures", default=None, metavar="METHOD", help="Method whose model Figures 1, 2, 7 and 8 show; default: the last that has codes of parts."
)
@click.option(
    "--quick",
    is_flag=True,
    help="A few steps of every method on small grids: minutes, to see that all of it runs; its numbers say nothing about the methods.",
)
@click.pass_context
def paper(ctx: click.Context, /, folder: Path, output: Path | None, figures: str | None, quick: bool, **common: Any) -> None:
    """Make the tables and figures of the paper (Gu & Pears 2024) from a run folder OUT, on one page with their commands; resumes.

    \b
    Example: facegraft run facescape_paper --input FACESCAPE -o out
             facegraft paper out
             facegraft paper out --methods linear,deepsdf,i3dmm,imface,paper,facegraft     as published, for a GPU
    Trains, fits and scores the methods as `facegraft model compare` does, also with the five landmarks of Tables 3 and 4, edits the heads
    of one model, and writes OUT/paper/index.html. What the folder does not allow is named there.
    """
    require_torch("facegraft paper")
    from facegraft_model.evaluation.compared import named_methods

    from facegraft.paper.making import Plan, Shapes
    from facegraft.paper.numbers import HEADSPACE
    from facegraft.paper.page import published_for, write_paper
    from facegraft.store.writer import DATASET_FILE

    samples = folder / "samples"
    if not (samples / DATASET_FILE).is_file():
        raise NoSamplesError(f"{folder} has no finished samples; make them with `facegraft run facescape_paper --input … -o {folder}`")
    given = {name for name in common if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE}
    if quick:
        common["settings"] = (*QUICK["settings"], *common["settings"])
        common |= {name: value for name, value in QUICK.items() if name not in {*given, "settings"} and not (name == "steps" and "seconds" in given)}
    elif "part_points" not in given and published_for(folder) is HEADSPACE:
        common["part_points"] = HEADSPACE_PART_POINTS
    names = tuple(named_methods(common.pop("methods")))
    with Progress("paper", common["quiet"]) as bar:
        plan = Plan(
            output or folder / "paper",
            names,
            task_of(samples, bar, curves=False, **common),
            (str(samples), "--no-picture", *_words(common)),
            figures,
            Shapes(1, 1, 1) if quick else Shapes(),
            click.echo,
        )
        page = write_paper(folder, plan)
    click.echo(f"paper: {page}")


def _words(values: dict[str, Any]) -> list[str]:
    """The options of `facegraft model compare` that give these values; those with its defaults are left out."""
    words: list[str] = []
    for option in model_compare.params:
        if option.name not in values or option.name == "quiet" or values[option.name] in (option.default, None, ()):
            continue
        value = values[option.name]
        for one in value if isinstance(value, tuple) else [value]:
            words += [option.opts[0], str(one)]
    return words
