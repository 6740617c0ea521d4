"""Commands that make datasets: demo, run, and one per stage."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

from facegraft.cli.options import (
    Place,
    check_option,
    count_or_names,
    gathered,
    output_option,
    run_options,
    say,
    stage_options,
)
from facegraft.errors import shown_name
from facegraft.stages import INGEST, STAGES, StageDefinition

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from facegraft.engine import EngineOptions
    from facegraft.store.remote import Location


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
    help="Also train a small model; default: only if torch is installed.",
    show_default=False,
)
@run_options
def demo(output: Location, seed: int, settings: tuple[str, ...], with_model: bool | None, options: EngineOptions) -> None:
    """Run everything on built-in synthetic heads and write a page of pictures; takes minutes on a laptop.

    \b
    Example: facegraft demo
    """
    import importlib.util

    from facegraft.store.remote import RemotePath

    if isinstance(output, RemotePath):
        if with_model:
            raise click.UsageError("--model trains into the output folder, which must then be on this machine")
        with_model = False
    installed = importlib.util.find_spec("torch") is not None
    if with_model and not installed:
        raise click.UsageError("--model needs torch: pip install 'facegraft[model]'")
    if with_model is None and not installed:
        click.echo("torch is not installed, so no model is trained; to train one: pip install 'facegraft[model]'")
    after = _train_model if (installed if with_model is None else with_model) else None
    _run("demo", None, output, seed, settings, options, after)


def _train_model(output: Location, seed: int, options: EngineOptions) -> None:
    from facegraft.modeldemo import model_demo

    assert isinstance(output, Path)  # `demo` trains no model into an object store
    model_demo(output / "samples", output / "model", seed, options.progress, click.echo)


@click.command()
@click.argument("recipe")
@click.option("--input", "source", default=None, metavar="RAW", help="Folder of raw heads (none for synthetic heads).")
@click.option("--region-map", default=None, metavar="MAP", help="Region map of the heads: a file, a dataset, or a shipped name.")
@click.option("--landmarks", default=None, metavar="FILE", help="68 vertex indices, to build the region map of a topology that has none.")
@output_option
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of everything random.")
@click.option(
    "--set", "settings", multiple=True, metavar="STAGE.NAME=VALUE", help="Any parameter of any stage; repeatable."
)
@run_options
def run(
    recipe: str,
    source: str | None,
    region_map: str | None,
    landmarks: str | None,
    output: Path,
    seed: int,
    settings: tuple[str, ...],
    options: EngineOptions,
) -> None:
    """Run all stages of RECIPE (a YAML file, or the name of a shipped one) and write a report; the same command resumes.

    \b
    Example: facegraft run pipelines/ict.yaml --input FaceXModel -o out --set sample.near=50000
    Writes OUT/heads, OUT/composites, OUT/surfaces, OUT/samples and OUT/report/index.html.
    """
    ingest = {"region_map": region_map, "landmarks": landmarks}
    _run(recipe, source, output, seed, settings, options, ingest={name: value for name, value in ingest.items() if value})


def _run(
    recipe_name: str,
    source: str | None,
    output: Location,
    seed: int,
    settings: tuple[str, ...],
    options: EngineOptions,
    after: Callable[[Location, int, EngineOptions], None] | None = None,
    ingest: Mapping[str, str] | None = None,
) -> None:
    from facegraft.pipeline import run_recipe
    from facegraft.recipe import find_recipe, load_recipe
    from facegraft.report.renewal import renew_report

    path = find_recipe(recipe_name)
    recipe = load_recipe(path).override([f"ingest.{name}={json.dumps(value)}" for name, value in (ingest or {}).items()]).override(settings)
    click.echo(f"recipe {shown_name(recipe.name)} ({shown_name(str(path))})")
    run_recipe(recipe, source, output, seed, options, announce=say)
    if after is not None:
        after(output, seed, options)
    page = renew_report(output, output / "report")
    click.echo(f"report: {page}")


class StageCommand(click.Command):
    """The command of one stage. Its options come from the stage's parameters, which are imported on first use."""

    decorators = (run_options, stage_options, output_option)

    def __init__(self, stage: StageDefinition) -> None:
        super().__init__(stage.name, help=stage.help, callback=_runs(stage))
        self.stage = stage

    def body(self) -> Callable[..., None]:
        """What the command does, by the values of its options."""
        return _runs(self.stage)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        self.params = self._made
        return super().get_params(ctx)

    @cached_property
    def _made(self) -> list[click.Parameter]:
        # click collects the parameters that decorators attach to a function, the last one first.
        holder = self.body()
        for decorate in self.decorators:
            holder = decorate(holder)
        self.callback = holder
        collected: list[click.Parameter] = list(reversed(getattr(holder, "__click_params__", [])))
        return [_inputs_argument(self.stage), *_shortcut_options(self.stage), *collected]


def _runs(stage: StageDefinition) -> Callable[..., None]:
    """The body of a stage's command: collect parameters, run, print what was written."""

    def command(
        output: Location, seed: int, settings: tuple[str, ...], options: EngineOptions, inputs: Any, **named: Any
    ) -> None:
        from facegraft.pipeline import run_stage

        given = list(inputs) if isinstance(inputs, tuple) else [] if inputs is None else [inputs]
        say(run_stage(stage, given, output, gathered(stage.name, settings, **named), seed, options))

    return command


def _inputs_argument(stage: StageDefinition) -> click.Argument:
    if not stage.reads:
        return click.Argument(["inputs"], metavar="[SOURCE]", required=False)
    if stage.many:
        return click.Argument(["inputs"], type=Place(), nargs=-1, required=True)
    return click.Argument(["inputs"], metavar=stage.reads[0].upper(), type=Place())


def _shortcut_options(stage: StageDefinition) -> list[click.Option]:
    """Options for the stage's shortcuts, with the type and description of the parameter."""
    fields = stage.parameters.model_fields
    return [_option_of(name, fields[name]) for name in stage.shortcuts]


def _option_of(name: str, field: FieldInfo) -> click.Option:
    from pydantic_core import PydanticUndefined

    description = f"{(field.description or name)[0].upper()}{(field.description or name)[1:]}."
    required = field.default is PydanticUndefined
    known = None if required or field.default is None else field.default
    if known is not None:
        description += f"  [default: {known}]"
    shared: dict[str, Any] = {"default": None, "show_default": False, "required": required, "help": description}
    kinds = {kind for kind in (get_args(field.annotation) or (field.annotation,)) if kind is not type(None)}
    if get_origin(field.annotation) is Literal:
        return click.Option([_flag(name)], type=click.Choice(list(map(str, get_args(field.annotation)))), **shared)
    if kinds == {int}:
        least = next((int(bound.ge) for bound in field.metadata if hasattr(bound, "ge")), None)
        return click.Option([_flag(name)], type=click.IntRange(least), **shared)
    if int in kinds:
        return click.Option([_flag(name)], callback=count_or_names, metavar="N|A,B,…", **shared)
    return click.Option([_flag(name)], **shared)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


class IngestCommand(StageCommand):
    """The command of ingest, which can also only look at a source: --check."""

    decorators = (run_options, stage_options, check_option)

    def body(self) -> Callable[..., None]:
        """Writes heads, or prints what they are."""
        writes = super().body()

        def command(
            check: bool, output: Location | None, seed: int, settings: tuple[str, ...], options: EngineOptions, inputs: str | None, **named: Any
        ) -> None:
            if check:
                from facegraft.cli.check import check_source

                check_source(inputs, gathered(self.stage.name, settings, **named), seed, output, options)
                return
            if output is None:
                raise click.UsageError("Missing option '-o' / '--output'.")
            if isinstance(output, Path) and output.is_file():
                raise click.BadParameter(f"Directory '{output}' is a file.", param_hint="'-o' / '--output'")
            writes(output=output, seed=seed, settings=settings, options=options, inputs=inputs, **named)

        return command


STAGE_COMMANDS = tuple(IngestCommand(stage) if stage is INGEST else StageCommand(stage) for stage in STAGES)
