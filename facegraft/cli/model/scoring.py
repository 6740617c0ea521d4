"""`facegraft model extract`, `evaluate` and `compare`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facegraft.cli.model.group import (
    DATASET,
    FOLDER,
    device_option,
    open_fits,
    output_option,
    quiet_option,
    resolution_option,
    settings_option,
)
from facegraft.cli.model.progress import Progress
from facegraft.errors import FacegraftError

if TYPE_CHECKING:
    from facegraft_model.evaluation.compared import Task

align_option = click.option(
    "--align",
    type=click.Choice(["none", "icp"]),
    default="none",
    help="icp: also report scores after rigid alignment to the truth.",
)


class ScoreError(FacegraftError):
    """No fitted head could be scored."""


class CompareError(FacegraftError):
    """Some methods of a comparison have no scores."""


@click.command("extract")
@click.argument("fits", type=FOLDER)
@output_option
@resolution_option
@click.option("--dense", is_flag=True, help="Evaluate all nodes of the grid, not only those near the surface.")
@click.option("--format", "suffix", type=click.Choice(["ply", "glb", "obj"]), default="ply", help="File format.")
@click.option("--unit", type=click.Choice(["mm", "unit"]), default="mm", help="Millimetres, or the model's unit ball.")
@click.option("--key", "keys", multiple=True, help="Extract only these heads; repeatable.")
@click.option(
    "--topology", is_flag=True, help="Also write KEY.topology.ply: the head on the vertices and triangles of the training heads."
)
@device_option
@quiet_option
def model_extract(
    fits: Path,
    output: Path,
    resolution: int,
    dense: bool,
    suffix: Any,
    unit: Any,
    keys: tuple[str, ...],
    topology: bool,
    device: str,
    quiet: bool,
) -> None:
    """Meshes of fitted heads, with a part label and template coordinates at every vertex.

    \b
    Example: facegraft model extract fits -o meshes --resolution 384
             facegraft model extract fits -o meshes --topology       also in correspondence, vertex by vertex
    """
    from facegraft_model.fitting.export import extract_fits

    with Progress("extract", quiet) as bar:
        written = extract_fits(
            open_fits(fits, device),
            output,
            keys=keys or None,
            resolution=resolution,
            mode="dense" if dense else "sparse",
            suffix=suffix,
            unit=unit,
            topology=topology,
            on_head=bar.heads,
        )
    click.echo(f"{output}: {len(written)} meshes")


@click.command("evaluate")
@click.argument("fits", type=FOLDER)
@click.argument("samples", type=DATASET)
@output_option
@resolution_option
@click.option(
    "--surfaces",
    type=DATASET,
    default=None,
    help="The surfaces that SAMPLES were made of; default: as SAMPLES recorded them.",
)
@align_option
@click.option("--points", type=click.IntRange(100), default=150_000, help="Points of a whole head.")
@click.option("--part-points", type=click.IntRange(100), default=6_000, help="Points of a part.")
@click.option(
    "--pairs", type=click.IntRange(0), default=20, help="Pairs of heads for leakage and swap error; 0: leave them out."
)
@click.option(
    "--predictability", type=click.IntRange(0), default=0, help="Pairs for variation predictability; 0: leave it out."
)
@click.option("--picture/--no-picture", default=True, help="Also draw SCORES/fits.png.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of the points drawn.")
@device_option
@quiet_option
def model_evaluate(
    fits: Path, samples: Path, output: Path, resolution: int, surfaces: Path | None, align: Any, points: int, part_points: int, pairs: int,
    predictability: int, picture: bool, seed: int, device: str, quiet: bool,
) -> None:  # fmt: skip
    """Score fitted heads by part, with floors and intervals, and how well their parts are disentangled.

    \b
    Example: facegraft model evaluate fits out/samples -o scores
    Writes SCORES/scores.json, SCORES/scores.csv, SCORES/table.txt and SCORES/fits.png.
    """
    from facegraft_model.evaluation.evaluate import EvaluationSettings, evaluate_fits
    from facegraft_model.evaluation.records import ScoreSettings

    from facegraft.modelresults import draw_fits, save_scores

    loaded = open_fits(fits, device)
    settings = EvaluationSettings(
        resolution,
        pairs,
        predictability,
        ScoreSettings(full_points=points, part_points=part_points, alignment=align, seed=seed),
    )
    with Progress("evaluate", quiet) as bar:
        scores = evaluate_fits(loaded, samples, settings, surfaces=surfaces, progress=bar.named)
        table = save_scores(output, scores)
        if picture:
            bar.named("pictures", 0, 1)
            draw_fits(output, loaded, samples, resolution, surfaces)
    click.echo(table)
    click.echo(f"{output}: scores of {len(scores.heads)} heads")
    if scores.failures and not scores.heads:
        raise ScoreError(
            f"{output}: no head could be scored, all {len(scores.failures)} failed: {scores.failures[0].key}: {scores.failures[0].reason}"
        )


def comparison_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What `compare` and `paper` let one choose of a comparison; `task_of` reads it."""
    for option in reversed((
        click.option(
            "--methods",
            default="linear,linear-parts,deepsdf-small,i3dmm-small,imface-small,paper-small,facegraft",
            help="Presets to train, fit and score, also with -five or -small, linear and linear-parts; a wrong name lists all. "
            "facegraft@data.template=0: the same with another setting, as for an ablation.",
        ),
        click.option(
            "--steps", type=click.IntRange(1), default=None, help="Optimiser steps of every method; default: each preset's."
        ),
        click.option(
            "--seconds",
            type=click.FloatRange(min=0, min_open=True),
            default=None,
            help="Instead of --steps: seconds of the processor for training each method.",
        ),
        click.option(
            "--seeds", default=None, metavar="N,N,…", help="Train each method that has a seed once for each of these."
        ),
        click.option(
            "--fit-steps", type=click.IntRange(1), default=None, help="Iterations of the fits; default: each preset's."
        ),
        click.option(
            "--surfaces",
            type=DATASET,
            default=None,
            help="The surfaces that SAMPLES were made of; default: as SAMPLES recorded them.",
        ),
        resolution_option,
        click.option(
            "--pairs", type=click.IntRange(0), default=20, help="Pairs of heads for leakage and swap error; 0: leave them out."
        ),
        click.option("--points", type=click.IntRange(100), default=150_000, help="Points of a whole head."),
        click.option("--part-points", type=click.IntRange(100), default=6_000, help="Points of a part."),
        align_option,
        click.option("--seed", type=click.IntRange(0), default=0, help="Seed of training and fitting."),
        device_option,
        settings_option,
        quiet_option,
    )):
        command = option(command)
    return command


def task_of(
    samples: Path, progress: Progress, *, steps: int | None, seconds: float | None, seeds: str | None, fit_steps: int | None, surfaces: Path | None,
    resolution: int, pairs: int, points: int, part_points: int, align: Any, seed: int, device: str, settings: tuple[str, ...], quiet: bool, curves: bool,
) -> Task:  # fmt: skip
    """The task of a comparison, from the values of `comparison_options`."""
    from facegraft_model.evaluation.compared import Task
    from facegraft_model.evaluation.evaluate import EvaluationSettings
    from facegraft_model.evaluation.records import ScoreSettings

    score = ScoreSettings(full_points=points, part_points=part_points, alignment=align)
    return Task(
        samples,
        EvaluationSettings(resolution, pairs, 0, score),
        surfaces=surfaces,
        steps=steps,
        seconds=seconds,
        seeds=None if seeds is None else _numbers(seeds),
        fit_steps=fit_steps,
        curves=curves,
        overrides=settings,
        seed=seed,
        device=device,
        progress=progress.named,
        show_training=not quiet,
    )


@click.command("compare")
@click.argument("samples", type=DATASET)
@output_option
@comparison_options
@click.option("--picture/--no-picture", default=True, help="Also draw OUT/figure.png and OUT/curves.png.")
def model_compare(samples: Path, output: Path, methods: str, picture: bool, **common: Any) -> None:
    """Train several methods on the same SAMPLES, fit and score them in the same way, and write one table; resumes.

    \b
    Example: facegraft model compare out/samples -o compared --methods paper,facegraft --steps 5000
    --set applies to every method. Writes OUT/table.txt, OUT/comparison.json, OUT/figure.png, OUT/curves.png, and
    OUT/METHOD/{run,fits,scores}. A method that fails is a row with the reason; the exit code is then 1.
    """
    from facegraft_model.evaluation.compared import named_methods
    from facegraft_model.evaluation.comparison import compare_methods

    from facegraft.modelresults import draw_comparison

    names = named_methods(methods)
    with Progress("compare", common["quiet"]) as bar:
        task = task_of(samples, bar, curves=picture, **common)
        comparison = compare_methods(names, output, task)
    click.echo(comparison.table)  # before the pictures, which a machine may be unable to draw
    if picture and comparison.scores:
        draw_comparison(output, comparison, task)
    if comparison.failed:
        raise CompareError(f"{len(comparison.failed)} of {len(names)} methods failed; see the table for the reasons")


def _numbers(text: str) -> tuple[int, ...]:
    """Seeds separated by commas. Raises BadParameter."""
    try:
        seeds = tuple(int(word) for word in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no list of seeds; write 0,1,2", param_hint="--seeds") from error
    if min(seeds) < 0:
        raise click.BadParameter("a seed is 0 or more", param_hint="--seeds")
    return seeds
