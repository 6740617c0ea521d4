"""`facegraft model swap`, `interpolate`, `generate` and `components`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
)
from facegraft.cli.model.parts import DONOR, PartsCommand, check_donors, read_donors
from facegraft.cli.model.progress import Progress

if TYPE_CHECKING:
    from facegraft_model.editing.edit import Edit

ALL = "all"


def _edit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        quiet_option,
        device_option,
        click.option("--picture/--no-picture", default=True, help="Also draw sheet.png."),
        click.option(
            "--limit-mm",
            type=click.FloatRange(min=0, min_open=True),
            default=None,
            help="End of the picture's colour scale; default: by the values, for interpolate 4 mm.",
        ),
        click.option(
            "--format",
            "suffix",
            type=click.Choice(["ply", "glb", "obj"]),
            default="ply",
            help="File format of the meshes.",
        ),
        resolution_option,
        output_option,
    ):
        command = option(command)
    return command


def _names(_: click.Context, __: click.Parameter, text: str) -> list[str] | None:
    """Names separated by commas; None for all."""
    return None if text == ALL else [name.strip() for name in text.split(",")]


@click.command("swap", cls=PartsCommand, options_metavar="[OPTIONS] [--PART KEY]...")
@click.argument("fits", type=FOLDER)
@click.option("--host", required=True, help="Fitted head that receives parts.")
@click.option(
    DONOR,
    "donors",
    multiple=True,
    metavar="PART=KEY",
    callback=read_donors,
    help="Part of the model, and the fitted head that donates it; repeatable. --PART KEY is short for it.",
)
@click.option("--expression", default=None, help="Fitted head that donates its expression.")
@_edit_options
@click.pass_context
def model_swap(
    ctx: click.Context, /, fits: Path, host: str, donors: dict[str, str], expression: str | None, **common: Any
) -> None:
    """Put parts of one fitted head on another by exchanging their latent codes.

    The parts are those of the model; a wrong name lists them.

    \b
    Example: facegraft model swap fits --host s0003_neutral --nose s0007_neutral -o swapped
             facegraft model swap fits --host A --donor nose=B --donor ears=C -o swapped
    """
    from facegraft_model.editing.commands import swap_fitted

    from facegraft.vocabulary import EXP

    if not donors and expression is None:
        raise click.UsageError("name at least one donor: --PART KEY, --donor PART=KEY or --expression KEY")
    loaded = open_fits(fits, common["device"])
    check_donors(ctx, donors, loaded.field.parts)
    wanted = donors | ({} if expression is None else {EXP: expression})
    _write_edit(
        lambda decode: swap_fitted(loaded, host, wanted, decode),
        f"{host} with " + ", ".join(f"the {part} of {key}" for part, key in wanted.items()),
        **common,
    )


@click.command("interpolate")
@click.argument("fits", type=FOLDER)
@click.option("--from", "start", required=True, help="Fitted head to start from.")
@click.option("--to", "end", required=True, help="Fitted head to end with.")
@click.option(
    "--order",
    default=ALL,
    callback=_names,
    help="Parts, separated by commas, in the order in which they change; all: the model's parts, then rem.",
)
@click.option("--steps", type=click.IntRange(1), default=3, help="Heads for each part.")
@click.option(
    "--samples", type=DATASET, default=None, help="Samples that were fitted, for the true heads; default: as FITS recorded them."
)
@click.option(
    "--surfaces", type=DATASET, default=None, help="The surfaces that the samples were made of; default: as they recorded them."
)
@_edit_options
def model_interpolate(
    fits: Path, start: str, end: str, order: list[str] | None, steps: int, samples: Any, surfaces: Any, **common: Any
) -> None:
    """Interpolate from one head to another, one part after another (the paper's Figures 2 and 8).

    \b
    Example: facegraft model interpolate fits --from s0003_neutral --to s0007_neutral -o interpolated
    The picture shows both true heads beside their fits, where they are found; then for each part its heads, maps of
    its change, and the part close up.
    """
    from facegraft_model.editing.commands import interpolate_fitted

    from facegraft.modelresults import true_ends

    loaded = open_fits(fits, common["device"])
    ends: list[dict[str, Any]] = []
    missing = ""
    if common["picture"]:
        for key in (start, end):
            loaded.index(key)  # raises for a head that was not fitted, whether or not its truth is found
        ends, missing = true_ends(loaded, (start, end), samples, surfaces, common["resolution"])
    _write_edit(
        lambda decode: interpolate_fitted(loaded, start, end, order, steps, decode),
        f"{start} to {end}, part after part",
        ends=ends,
        **common,
    )
    if missing:
        click.echo(f"The picture is without the true heads: {missing}")


@click.command("generate")
@click.argument("model_folder", metavar="RUN_OR_FITS", type=FOLDER)
@click.option(
    "--figure",
    is_flag=True,
    help="Instead a row for each of some fitted heads: the head, then COUNT heads on which one part is random, for each part (needs FITS).",
)
@click.option("--count", type=click.IntRange(1), default=None, help="Random heads; default: 9, with --figure 2.")
@click.option(
    "--parts",
    default=ALL,
    callback=_names,
    help="Codes to draw at random: parts of the model and rem, separated by commas, or all.",
)
@click.option(
    "--base",
    "bases",
    multiple=True,
    help="Fitted head that keeps its other parts (needs FITS). With --figure repeatable; default: the first 3 neutral ones.",
)
@click.option(
    "--scale",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    help="Spread of the draws, in standard deviations of the learnt Gaussian.",
)
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of everything random.")
@_edit_options
def model_generate(
    model_folder: Path,
    figure: bool,
    count: int | None,
    parts: list[str] | None,
    bases: tuple[str, ...],
    scale: float,
    seed: int,
    **common: Any,
) -> None:
    """Random parts and faces, drawn from the Gaussian of the trained codes.

    \b
    Example: facegraft model generate run --count 9 -o random
             facegraft model generate fits --base s0003_neutral --parts nose -o noses
             facegraft model generate fits --figure -o figure                  the paper's Figure 7
    """
    from facegraft_model.editing.commands import field_and_base, first_neutral_heads, fitted_head
    from facegraft_model.editing.edit import figure_heads, generate_heads

    if figure:
        fits = open_fits(model_folder, common["device"])
        shown = [fitted_head(fits, key) for key in bases] or first_neutral_heads(fits)
        _write_edit(
            lambda decode: figure_heads(fits.field, shown, count or 2, seed, parts, scale, decode),
            "Random parts",
            **common,
        )
        return
    if len(bases) > 1:
        raise click.UsageError("several heads (--base) need --figure")
    field, head = field_and_base(model_folder, bases[0] if bases else None, common["device"])
    _write_edit(
        lambda decode: generate_heads(field, count or 9, seed, parts, head, scale, settings=decode),
        "Random heads" if parts is None else f"Random {', '.join(parts)}",
        **common,
    )


@click.command("components")
@click.argument("model_folder", metavar="RUN_OR_FITS", type=FOLDER)
@click.option(
    "--parts",
    default=ALL,
    callback=_names,
    help="Parts whose codes are analysed, separated by commas; all: the model's parts, then rem. exp, the expression, only where named.",
)
@click.option(
    "--components",
    type=click.IntRange(1),
    default=None,
    help="Principal components of each part; default: 3, or as many as its codes have.",
)
@click.option(
    "--sigma", type=click.FloatRange(min=0, min_open=True), default=3.0, help="Distance along each component, in standard deviations."
)
@click.option(
    "--base", default=None, help="Fitted head that keeps its other parts (needs FITS); default: the mean head."
)
@_edit_options
def model_components(
    model_folder: Path, parts: list[str] | None, components: int | None, sigma: float, base: str | None, **common: Any
) -> None:
    """Principal components of each part's codes, at plus and minus some standard deviations (the paper's Figure 1).

    \b
    Example: facegraft model components run -o components
             facegraft model components ict-head --parts nose,exp -o components
    """
    from facegraft_model.editing.commands import field_and_base
    from facegraft_model.editing.edit import component_heads

    field, head = field_and_base(model_folder, base, common["device"])
    _write_edit(
        lambda decode: component_heads(field, parts, components, (-sigma, 0.0, sigma), head, decode),
        "Principal components of the parts",
        **common,
    )


def _write_edit(
    edit_of: Callable[[Any], Edit],
    title: str,
    *,
    output: Path,
    resolution: int,
    suffix: str,
    picture: bool,
    limit_mm: float | None,
    device: str,
    quiet: bool,
    ends: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Decode the heads of an edit with a progress bar, save them, and print what was written."""
    from facegraft_model.editing.edit import DecodeSettings

    from facegraft.modelresults import save_edit

    with Progress("decode", quiet) as bar:
        edit = edit_of(DecodeSettings(resolution=resolution, on_head=bar.heads))
    written = save_edit(output, edit, title, suffix, picture, limit_mm=limit_mm, ends=ends)
    click.echo(f"{output}: {', '.join(written)}")
