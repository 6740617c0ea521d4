"""`facegraft model swap`, `interpolate`, `generate` and `components`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facegraft.cli.model.group import (
    FOLDER,
    Progress,
    device_option,
    open_fits,
    output_option,
    quiet_option,
    resolution_option,
)

if TYPE_CHECKING:
    from facegraft_model.editing.edit import Edit
    from facegraft_model.editing.partcodes import Head
    from facegraft_model.fitting.fits import Fits
    from facegraft_model.method import Field


def _edit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        quiet_option,
        device_option,
        click.option("--picture/--no-picture", default=True, help="Also draw sheet.png."),
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


@click.command("swap")
@click.argument("fits", type=FOLDER)
@click.option("--host", required=True, help="Fitted head that receives parts.")
@click.option("--nose", default=None, help="Fitted head whose nose it gets.")
@click.option("--eyes", default=None, help="Fitted head whose eyes it gets.")
@click.option("--mouth", default=None, help="Fitted head whose mouth it gets.")
@click.option("--expression", default=None, help="Fitted head whose expression it gets.")
@_edit_options
def model_swap(
    fits: Path, host: str, nose: str | None, eyes: str | None, mouth: str | None, expression: str | None, **common: Any
) -> None:
    """Put parts of one fitted head on another by exchanging their latent codes.

    \b
    Example: facegraft model swap fits --host s0003_neutral --nose s0007_neutral -o swapped
    """
    from facegraft_model.editing.edit import swap_heads

    wanted = {
        part: key
        for part, key in (("nose", nose), ("eyes", eyes), ("mouth", mouth), ("exp", expression))
        if key is not None
    }
    if not wanted:
        raise click.UsageError("name at least one donor: --nose, --eyes, --mouth or --expression")
    loaded = open_fits(fits, common["device"])
    donors = {part: _fitted(loaded, key) for part, key in wanted.items()}
    _write_edit(
        lambda decode: swap_heads(loaded.field, _fitted(loaded, host), donors, decode),
        f"{host} with " + ", ".join(f"the {part} of {key}" for part, key in wanted.items()),
        **common,
    )


@click.command("interpolate")
@click.argument("fits", type=FOLDER)
@click.option("--from", "start", required=True, help="Fitted head to begin with.")
@click.option("--to", "end", required=True, help="Fitted head to end with.")
@click.option("--order", default="nose,eyes,mouth,rem", help="Parts, in the order in which they move.")
@click.option("--steps", type=click.IntRange(1), default=3, help="Heads for each part.")
@_edit_options
def model_interpolate(fits: Path, start: str, end: str, order: str, steps: int, **common: Any) -> None:
    """Turn one head into another part after part, with maps of what each part changed (the paper's Figures 2 and 8).

    \b
    Example: facegraft model interpolate fits --from s0003_neutral --to s0007_neutral -o interpolated
    """
    from facegraft_model.editing.edit import interpolate_heads

    loaded = open_fits(fits, common["device"])
    parts = [part.strip() for part in order.split(",")]
    _write_edit(
        lambda decode: interpolate_heads(
            loaded.field, _fitted(loaded, start), _fitted(loaded, end), parts, steps, decode
        ),
        f"{start} to {end}, part after part",
        **common,
    )


@click.command("generate")
@click.argument("model_folder", metavar="RUN_OR_FITS", type=FOLDER)
@click.option("--count", type=click.IntRange(1), default=9, help="Random heads.")
@click.option("--parts", default="all", help="Which codes are random: all, or some of nose,eyes,mouth,rem.")
@click.option("--base", default=None, help="Fitted head that keeps its other parts (needs FITS).")
@click.option(
    "--scale",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    help="Standard deviations of the learnt Gaussian.",
)
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of everything random.")
@_edit_options
def model_generate(
    model_folder: Path, count: int, parts: str, base: str | None, scale: float, seed: int, **common: Any
) -> None:
    """Random parts and faces, drawn from the Gaussian of the trained codes (the paper's Figure 7).

    \b
    Example: facegraft model generate run --count 9 -o random
             facegraft model generate fits --base s0003_neutral --parts nose -o noses
    """
    from facegraft_model.editing.edit import generate_heads

    field, head = _field_and_base(model_folder, base, common["device"])
    chosen: Any = "all" if parts == "all" else [part.strip() for part in parts.split(",")]
    _write_edit(
        lambda decode: generate_heads(field, count, seed, chosen, head, scale, settings=decode),
        "Random heads" if parts == "all" else f"Random {parts}",
        **common,
    )


@click.command("components")
@click.argument("model_folder", metavar="RUN_OR_FITS", type=FOLDER)
@click.option("--parts", default="nose,eyes,mouth,rem", help="Parts whose codes are analysed.")
@click.option("--components", type=click.IntRange(1), default=3, help="Principal components of each part.")
@click.option(
    "--sigma", type=click.FloatRange(min=0, min_open=True), default=3.0, help="How far to go, in standard deviations."
)
@click.option(
    "--base", default=None, help="Fitted head that keeps its other parts (needs FITS); default: the mean head."
)
@_edit_options
def model_components(
    model_folder: Path, parts: str, components: int, sigma: float, base: str | None, **common: Any
) -> None:
    """Principal components of each part's codes, at plus and minus some standard deviations (the paper's Figure 1).

    \b
    Example: facegraft model components run -o components
    """
    from facegraft_model.editing.edit import component_heads

    field, head = _field_and_base(model_folder, base, common["device"])
    chosen = [part.strip() for part in parts.split(",")]
    _write_edit(
        lambda decode: component_heads(field, chosen, components, (-sigma, 0.0, sigma), head, decode),
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
    device: str,
    quiet: bool,
) -> None:
    """Decode the heads of an edit; write a mesh of each, numbers.json and sheet.png."""
    from facegraft_model.config import PART_NAMES
    from facegraft_model.editing.edit import DecodeSettings

    from facegraft.meshfiles.write import write_mesh
    from facegraft.store import write_json_atomic

    bar = Progress("decode", quiet)
    edit = edit_of(DecodeSettings(resolution=resolution, on_head=bar.heads))
    bar.close()
    output.mkdir(parents=True, exist_ok=True)
    files = []
    for number, head in enumerate(edit.heads):
        path = output / f"head_{number:02d}.{suffix}"
        template = None if suffix == "obj" or head.template_coords is None else head.template_coords
        write_mesh(
            path,
            head.vertices_mm,
            head.faces,
            parts=head.parts,
            part_names=PART_NAMES,
            template_coords=template,
        )
        files.append(path.name)
    write_json_atomic(output / "numbers.json", {**edit.numbers, "files": files})
    if picture:
        from facegraft.report.modelsheets import write_edit_sheet

        write_edit_sheet(output / "sheet.png", edit.numbers["command"], edit.heads, title)
    click.echo(f"{output}: {len(files)} meshes, numbers.json" + (", sheet.png" if picture else ""))


def _fitted(fits: Fits, key: str) -> Head:
    from facegraft_model.editing.partcodes import Head

    return Head(key, fits.codes_of(fits.index(key)))


def _field_and_base(folder: Path, base: str | None, device: str) -> tuple[Field, Head | None]:
    from facegraft_model.devices import choose_device
    from facegraft_model.fitting.fits import FITS_FILE
    from facegraft_model.models import load_field

    if (folder / FITS_FILE).exists():
        fits = open_fits(folder, device)
        return fits.field, None if base is None else _fitted(fits, base)
    if base is not None:
        raise click.UsageError(
            f"--base {base} names a fitted head, but {folder} is a training run; give the folder of the fits"
        )
    return load_field(folder, choose_device(device)), None
