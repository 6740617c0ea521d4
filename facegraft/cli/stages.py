"""Commands that make datasets: demo, run, and one a stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from facegraft.cli.options import Place, count_or_names, gathered, output_option, run_options, say, stage_options

if TYPE_CHECKING:
    from facegraft.engine import EngineOptions

KINDS = ("synthetic", "ict", "facescape", "flame", "meshes")


@click.command()
@click.option("-o", "--output", type=Place(file_okay=False), default=Path("demo"), help="Folder to write.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of everything random.")
@click.option(
    "--set", "settings", multiple=True, metavar="STAGE.NAME=VALUE", help="Any parameter of any stage; repeatable."
)
@click.option(
    "--model/--no-model",
    "with_model",
    default=None,
    help="Also train a small model; default: where torch is installed.",
    show_default=False,
)
@run_options
def demo(output: Path, seed: int, settings: tuple[str, ...], with_model: bool | None, options: EngineOptions) -> None:
    """Everything, on built-in synthetic heads: minutes on a laptop, ending in a page of pictures.

    \b
    Example: facegraft demo
    """
    import importlib.util

    from facegraft.store.remote import remote_of

    if remote_of(output) is not None:
        if with_model:
            raise click.UsageError("--model trains into the output folder, which must be on this machine then")
        with_model = False
    installed = importlib.util.find_spec("torch") is not None
    if with_model and not installed:
        raise click.UsageError("--model needs torch: pip install 'facegraft[model]'")
    if with_model is None and not installed:
        click.echo("no torch here, so no model is trained: pip install 'facegraft[model]' for that part")
    after = _train_model if (installed if with_model is None else with_model) else None
    _run("demo", None, output, seed, settings, options, after)


def _train_model(output: Path, seed: int, options: EngineOptions) -> None:
    from facegraft.modeldemo import model_demo

    model_demo(output / "samples", output / "model", seed, options.progress, click.echo)


@click.command()
@click.argument("recipe")
@click.option("--input", "source", default=None, metavar="RAW", help="Folder of raw heads (none for synthetic heads).")
@output_option
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of everything random.")
@click.option(
    "--set", "settings", multiple=True, metavar="STAGE.NAME=VALUE", help="Any parameter of any stage; repeatable."
)
@run_options
def run(
    recipe: str, source: str | None, output: Path, seed: int, settings: tuple[str, ...], options: EngineOptions
) -> None:
    """Run all stages of RECIPE (a YAML file, or the name of a shipped one) and write a report; the same command resumes.

    \b
    Example: facegraft run pipelines/ict.yaml --input FaceXModel -o out --set sample.near=50000
    Writes OUT/heads, OUT/composites, OUT/surfaces, OUT/samples and OUT/report/index.html.
    """
    _run(recipe, source, output, seed, settings, options)


def _run(
    recipe_name: str,
    source: str | None,
    output: Path,
    seed: int,
    settings: tuple[str, ...],
    options: EngineOptions,
    after: Callable[[Path, int, EngineOptions], None] | None = None,
) -> None:
    from facegraft.pipeline import run_recipe
    from facegraft.recipe import find_recipe, load_recipe
    from facegraft.report import write_report

    path = find_recipe(recipe_name)
    recipe = load_recipe(path).override(settings)
    click.echo(f"recipe {recipe.name} ({path})")
    run_recipe(recipe, source, output, seed, options, announce=say)
    if after is not None:
        after(output, seed, options)
    page = write_report(output, output / "report")
    click.echo(f"report: {page}")


@click.command()
@click.argument("source", required=False)
@click.option("--kind", type=click.Choice(KINDS), required=True, help="What the source is.")
@click.option(
    "--subjects",
    type=click.IntRange(1),
    default=None,
    help="How many subjects (generated kinds), or at most how many (folders).",
)
@click.option(
    "--expressions",
    callback=count_or_names,
    default=None,
    metavar="N|A,B,…",
    help="How many expressions, or their names.",
)
@click.option(
    "--region-map",
    type=click.Path(),
    default=None,
    help="Region map (JSON) of a topology that facegraft does not ship.",
)
@output_option
@stage_options
@run_options
def ingest(
    source: str | None,
    kind: str,
    subjects: int | None,
    expressions: int | list[str] | None,
    region_map: str | None,
    output: Path,
    seed: int,
    settings: tuple[str, ...],
    options: EngineOptions,
) -> None:
    """Read SOURCE into a dataset of heads: one topology, millimetres, split by subject.

    \b
    Example: facegraft ingest FaceXModel --kind ict --subjects 12 --expressions 2 --seed 0 -o heads
    """
    from facegraft import pipeline

    parameters = gathered(
        "ingest", settings, kind=kind, subjects=subjects, expressions=expressions, region_map=region_map
    )
    say(pipeline.ingest(source, output, parameters, seed, options))


@click.command()
@click.argument("heads", type=Place())
@output_option
@click.option(
    "--donors",
    type=click.IntRange(0),
    default=None,
    help="Donors of every recipient, beside itself.  [default: 16]",
    show_default=False,
)
@click.option("--preset", default=None, help="facegraft, paper or similarity.")
@stage_options
@run_options
def graft(
    heads: Path,
    output: Path,
    donors: int | None,
    preset: str | None,
    seed: int,
    settings: tuple[str, ...],
    options: EngineOptions,
) -> None:
    """Make composite heads: move noses, eyes and mouths between the neutral HEADS.

    \b
    Example: facegraft graft heads -o composites --donors 4 --seed 0
    """
    from facegraft import pipeline

    say(pipeline.graft(heads, output, gathered("graft", settings, donors=donors, preset=preset), seed, options))


@click.command()
@click.argument("inputs", type=Place(), nargs=-1, required=True)
@output_option
@click.option(
    "--mode",
    type=click.Choice(["head", "frontal"]),
    default=None,
    help="Whole head, or head ∩ ball around the face.  [default: head]",
    show_default=False,
)
@click.option("--preset", default=None, help="facegraft or paper.")
@stage_options
@run_options
def clean(
    inputs: tuple[Path, ...],
    output: Path,
    mode: str | None,
    preset: str | None,
    seed: int,
    settings: tuple[str, ...],
    options: EngineOptions,
) -> None:
    """Close every head of the INPUTS (composites, heads) to a watertight surface in the unit ball.

    \b
    Example: facegraft clean composites heads -o surfaces --mode head
    """
    from facegraft import pipeline

    say(pipeline.clean(inputs, output, gathered("clean", settings, mode=mode, preset=preset), seed, options))


@click.command()
@click.argument("surfaces", type=Place())
@output_option
@click.option("--preset", default=None, help="facegraft or paper.")
@stage_options
@run_options
def sample(
    surfaces: Path, output: Path, preset: str | None, seed: int, settings: tuple[str, ...], options: EngineOptions
) -> None:
    """Sample points, normals and signed distances of every surface.

    \b
    Example: facegraft sample surfaces -o samples --set surface=20000 --set near=5000 --set free=2000
    """
    from facegraft import pipeline

    say(pipeline.sample(surfaces, output, gathered("sample", settings, preset=preset), seed, options))
