"""`facegraft model`: train on samples, fit to heads, extract, score, and edit part by part."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facegraft.cli.group import Commands
from facegraft.cli.options import LocalPath, Place
from facegraft.errors import FacegraftError

if TYPE_CHECKING:
    from facegraft_model.config import Config
    from facegraft_model.editing.edit import Edit
    from facegraft_model.editing.partcodes import Head
    from facegraft_model.fitting.fits import Fits
    from facegraft_model.method import Field

FOLDER = LocalPath(file_okay=False)
DATASET = Place(file_okay=False)
FILE = LocalPath(dir_okay=False)
PARTS = ("nose", "eyes", "mouth")


class NoTorchError(FacegraftError):
    """The model's packages are not installed."""


class ModelCommands(Commands):
    """Commands that need torch, and say so where it is missing."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            import torch  # noqa: F401
        except ModuleNotFoundError as error:
            raise NoTorchError(
                f"facegraft model needs the package {error.name}: pip install 'facegraft[model]'"
            ) from error
        return super().invoke(ctx)


@click.group(cls=ModelCommands)
def model() -> None:
    """The parts-based implicit face model: train, fit, score, edit.

    \b
    facegraft model train OUT/samples -o run --preset tiny     a small model on a CPU, in minutes
    facegraft model fit run OUT/samples -o fits                codes of the held-out heads
    facegraft model evaluate fits OUT/samples -o scores        how well, by part
    facegraft model swap fits --host A --nose B -o swapped     B's nose on A, in latent space
    """


# -- options ----------------------------------------------------------------------------------------------------------


def _output(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("-o", "--output", type=FOLDER, required=True, help="Folder to write.")(command)


def _device(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        help="Where to compute; auto: CUDA if there is any.",
    )(command)


def _resolution(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--resolution", type=click.IntRange(8, 512), default=256, help="Nodes of the grid along each axis."
    )(command)


def _settings(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="GROUP.NAME=VALUE",
        help="Any setting of the configuration; repeatable.",
    )(command)


def _quiet(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--quiet", is_flag=True, help="No progress display.")(command)


# -- train, fit -------------------------------------------------------------------------------------------------------


@model.command("train")
@click.argument("samples", type=DATASET)
@_output
@click.option("--preset", default="facegraft", help="tiny, paper, facegraft; the baselines imface, i3dmm, deepsdf.")
@click.option("--steps", type=click.IntRange(1), default=None, help="Optimiser steps; default: the preset's.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of everything random.")
@_device
@_settings
@_quiet
def model_train(
    samples: Path,
    output: Path,
    preset: str,
    steps: int | None,
    seed: int,
    device: str,
    settings: tuple[str, ...],
    quiet: bool,
) -> None:
    """Train on the training subjects of SAMPLES; the same command resumes after any interruption.

    \b
    Example: facegraft model train out/samples -o run --preset tiny --set train.steps=500
    Several GPUs: torchrun --nproc-per-node 4 -m facegraft model train out/samples -o run
    Writes RUN/config.json, RUN/checkpoints, RUN/metrics.jsonl and RUN/tensorboard.
    """
    from facegraft_model.training.train import train

    config = _configuration(preset, settings)
    if steps is not None:
        config = replace(config, train=replace(config.train, steps=steps))
    began = time.monotonic()
    checkpoint = train(samples, output, config, device=device, seed=seed, progress=not quiet)
    click.echo(f"{checkpoint}: trained, in {time.monotonic() - began:.0f} s")


@model.command("fit")
@click.argument("run", type=FOLDER)
@click.argument("samples", type=DATASET, required=False)
@_output
@click.option(
    "--points", type=FILE, multiple=True, help="Fit this mesh or point cloud (PLY, OBJ, XYZ, NPY) instead; repeatable."
)
@click.option(
    "--unit-mm",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    help="Millimetres per unit of the files of --points.",
)
@click.option(
    "--align",
    type=click.Choice(["none", "rigid", "similarity"]),
    default="rigid",
    help="How --points are brought into the model's frame.",
)
@click.option(
    "--landmarks",
    type=click.Choice(["none", "given", "predicted"]),
    default="none",
    help="Landmarks that the fit may use.",
)
@click.option("--landmark-file", type=FILE, default=None, help="JSON: iBUG index → [x, y, z] on the scan of --points.")
@click.option("--split", default="test", help="Which heads of SAMPLES: train, test or all.")
@click.option(
    "--origin", type=click.Choice(["scan", "composite", "all"]), default="scan", help="Scans, composites or both."
)
@click.option("--key", "keys", multiple=True, help="Fit these items only; repeatable.")
@click.option("--share-identity", is_flag=True, help="One identity for all expressions of a subject.")
@click.option("--steps", type=click.IntRange(1), default=None, help="Iterations; default: the preset's.")
@click.option(
    "--robust-mm",
    type=click.FloatRange(min=0),
    default=None,
    help="Scale of the robust loss; default: 0 for samples, 2 for --points.",
)
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of everything random.")
@_device
@_settings
@_quiet
def model_fit(
    run: Path, samples: Path | None, output: Path, points: tuple[Path, ...], unit_mm: float, align: Any, landmarks: str, landmark_file: Path | None,
    split: str, origin: str, keys: tuple[str, ...], share_identity: bool, steps: int | None, robust_mm: float | None, seed: int, device: str,
    settings: tuple[str, ...], quiet: bool,
) -> None:  # fmt: skip
    """Latent codes of unseen heads (Eq. 12): the weights of RUN stay as they are.

    \b
    Example: facegraft model fit run out/samples -o fits
             facegraft model fit run --points scan.ply --unit-mm 1000 -o fits
    Writes FITS/fits.json and FITS/codes.safetensors.
    """
    from facegraft_model.fitting.commands import ScanChoice, fit_dataset, fit_scans

    if (samples is None) == (not points):
        raise click.UsageError("give either SAMPLES or --points")
    changes: dict[str, Any] = {
        name: value for name, value in (("steps", steps), ("robust_mm", robust_mm)) if value is not None
    }
    progress = _bar("fit", quiet)
    began = time.monotonic()
    common: dict[str, Any] = {
        "settings": settings,
        "changes": changes,
        "landmarks": landmarks,
        "seed": seed,
        "device": device,
        "report": progress,
    }
    if samples is not None:
        fits = fit_dataset(
            run,
            samples,
            output,
            split=None if split == "all" else split,
            origin=None if origin == "all" else origin,
            keys=keys or None,
            share_identity=share_identity,
            **common,
        )
    else:
        fits = fit_scans(run, points, output, ScanChoice(unit_mm, align, landmark_file), **common)
    progress.close()
    errors = [item["error_mm"] for item in fits.items]
    click.echo(
        f"{output}: {len(fits)} heads fitted, mean distance {sum(errors) / len(errors):.3f} mm of their surface points, in {time.monotonic() - began:.0f} s"
    )


@model.command("extract")
@click.argument("fits", type=FOLDER)
@_output
@_resolution
@click.option("--dense", is_flag=True, help="Evaluate every node of the grid, not only those near the surface.")
@click.option("--format", "suffix", type=click.Choice(["ply", "glb", "obj"]), default="ply", help="File format.")
@click.option("--unit", type=click.Choice(["mm", "unit"]), default="mm", help="Millimetres, or the model's unit ball.")
@click.option("--key", "keys", multiple=True, help="These heads only; repeatable.")
@_device
@_quiet
def model_extract(
    fits: Path,
    output: Path,
    resolution: int,
    dense: bool,
    suffix: Any,
    unit: Any,
    keys: tuple[str, ...],
    device: str,
    quiet: bool,
) -> None:
    """Meshes of fitted heads, with a part label and template coordinates at every vertex.

    \b
    Example: facegraft model extract fits -o meshes --resolution 384
    """
    from facegraft_model.meshes.export import extract_fits

    bar = _bar("extract", quiet)
    written = extract_fits(
        _load_fits(fits, device),
        output,
        keys=keys or None,
        resolution=resolution,
        mode="dense" if dense else "sparse",
        suffix=suffix,
        unit=unit,
        on_head=bar.heads,
    )
    bar.close()
    click.echo(f"{output}: {len(written)} meshes")


@model.command("evaluate")
@click.argument("fits", type=FOLDER)
@click.argument("samples", type=DATASET)
@_output
@_resolution
@click.option(
    "--surfaces",
    type=DATASET,
    default=None,
    help="The surfaces that SAMPLES were made of; default: as SAMPLES recorded them.",
)
@click.option(
    "--align",
    type=click.Choice(["none", "icp"]),
    default="none",
    help="icp: also report scores after rigid alignment to the truth.",
)
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
@_device
@_quiet
def model_evaluate(
    fits: Path, samples: Path, output: Path, resolution: int, surfaces: Path | None, align: Any, points: int, part_points: int, pairs: int,
    predictability: int, picture: bool, seed: int, device: str, quiet: bool,
) -> None:  # fmt: skip
    """Score fitted heads by part, with floors and intervals, and how well their parts are disentangled.

    \b
    Example: facegraft model evaluate fits out/samples -o scores
    Writes SCORES/scores.json, SCORES/scores.csv, SCORES/table.txt and SCORES/fits.png.
    """
    from facegraft_model.scores.evaluation import EvaluationSettings, disentanglement_table, evaluate_fits, fit_pictures
    from facegraft_model.scores.records import ScoreSettings
    from facegraft_model.scores.scorefiles import write_scores
    from facegraft_model.scores.scoretable import score_table

    from facegraft.store import write_bytes_atomic

    loaded = _load_fits(fits, device)
    settings = EvaluationSettings(
        resolution,
        pairs,
        predictability,
        ScoreSettings(full_points=points, part_points=part_points, alignment=align, seed=seed),
    )
    bar = _bar("evaluate", quiet)
    scores = evaluate_fits(loaded, samples, settings, surfaces=surfaces, progress=bar.named)
    write_scores(output, scores)
    table = score_table([scores]) + disentanglement_table([scores])
    write_bytes_atomic(output / "table.txt", table.encode())
    if picture:
        from facegraft.report.modelsheets import write_fit_sheet

        bar.named("pictures", 0, 1)
        shown = fit_pictures(loaded, samples, resolution=resolution, surfaces=surfaces)
        write_fit_sheet(output / "fits.png", shown, f"Held-out heads, preset {loaded.field.config.preset}")
    bar.close()
    click.echo(table)
    click.echo(f"{output}: scores of {len(scores.heads)} heads")


@model.command("compare")
@click.argument("samples", type=DATASET)
@_output
@click.option(
    "--methods",
    default="linear,deepsdf,i3dmm,imface,paper,facegraft",
    help="Presets to train, fit and score; also paper-five and facegraft-five.",
)
@click.option(
    "--steps", type=click.IntRange(1), default=None, help="Optimiser steps of every method; default: each preset's."
)
@click.option(
    "--fit-steps", type=click.IntRange(1), default=None, help="Iterations of the fits; default: each preset's."
)
@click.option(
    "--surfaces",
    type=DATASET,
    default=None,
    help="The surfaces that SAMPLES were made of; default: as SAMPLES recorded them.",
)
@_resolution
@click.option(
    "--pairs", type=click.IntRange(0), default=20, help="Pairs of heads for leakage and swap error; 0: leave them out."
)
@click.option("--points", type=click.IntRange(100), default=150_000, help="Points of a whole head.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of everything random.")
@_device
@_settings
@_quiet
def model_compare(
    samples: Path, output: Path, methods: str, steps: int | None, fit_steps: int | None, surfaces: Path | None, resolution: int, pairs: int,
    points: int, seed: int, device: str, settings: tuple[str, ...], quiet: bool,
) -> None:  # fmt: skip
    """Train several methods on the same SAMPLES, fit and score them alike, and put them into one table; resumes.

    \b
    Example: facegraft model compare out/samples -o compared --methods paper,facegraft --steps 5000
    --set holds for every method. Writes OUT/table.txt, OUT/comparison.json, and OUT/METHOD/{run,fits,scores}.
    """
    from facegraft_model.scores.compare import compare_methods
    from facegraft_model.scores.evaluation import EvaluationSettings
    from facegraft_model.scores.records import ScoreSettings

    bar = _bar("compare", quiet)
    table = compare_methods(
        samples, output, [name.strip() for name in methods.split(",") if name.strip()], steps=steps, fit_steps=fit_steps, surfaces=surfaces,
        settings=EvaluationSettings(resolution, pairs, 0, ScoreSettings(full_points=points)), overrides=settings, seed=seed, device=device,
        progress=bar.named, show_training=not quiet,
    )  # fmt: skip
    bar.close()
    click.echo(table)


# -- edit -------------------------------------------------------------------------------------------------------------


def _edit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        _quiet,
        _device,
        click.option("--picture/--no-picture", default=True, help="Also draw sheet.png."),
        click.option(
            "--format",
            "suffix",
            type=click.Choice(["ply", "glb", "obj"]),
            default="ply",
            help="File format of the meshes.",
        ),
        _resolution,
        _output,
    ):
        command = option(command)
    return command


@model.command("swap")
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
    loaded = _load_fits(fits, common["device"])
    donors = {part: _fitted(loaded, key) for part, key in wanted.items()}
    _write_edit(
        lambda decode: swap_heads(loaded.field, _fitted(loaded, host), donors, decode),
        f"{host} with " + ", ".join(f"the {part} of {key}" for part, key in wanted.items()),
        **common,
    )


@model.command("interpolate")
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

    loaded = _load_fits(fits, common["device"])
    parts = [part.strip() for part in order.split(",")]
    _write_edit(
        lambda decode: interpolate_heads(
            loaded.field, _fitted(loaded, start), _fitted(loaded, end), parts, steps, decode
        ),
        f"{start} to {end}, part after part",
        **common,
    )


@model.command("generate")
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


@model.command("components")
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
    from facegraft_model.editing.edit import DecodeSettings
    from facegraft_model.meshes.extract import Mesh
    from facegraft_model.meshes.meshio import write_mesh

    from facegraft.store import write_json_atomic

    bar = _bar("decode", quiet)
    edit = edit_of(DecodeSettings(resolution=resolution, on_head=bar.heads))
    bar.close()
    output.mkdir(parents=True, exist_ok=True)
    files = []
    for number, head in enumerate(edit.heads):
        path = output / f"head_{number:02d}.{suffix}"
        template = None if suffix == "obj" or head.template_coords is None else head.template_coords
        write_mesh(path, Mesh(head.vertices_mm, head.faces), parts=head.parts, template_coords=template)
        files.append(path.name)
    write_json_atomic(output / "numbers.json", {**edit.numbers, "files": files})
    if picture:
        from facegraft.report.modelsheets import write_edit_sheet

        write_edit_sheet(output / "sheet.png", edit.numbers["command"], edit.heads, title)
    click.echo(f"{output}: {len(files)} meshes, numbers.json" + (", sheet.png" if picture else ""))


# -- helpers ----------------------------------------------------------------------------------------------------------


def _configuration(preset: str, settings: tuple[str, ...]) -> Config:
    from facegraft_model.presets import preset as named

    return named(preset).with_settings(settings)


def _load_fits(path: Path, device: str) -> Fits:
    from facegraft_model.fitting.fits import load_fits
    from facegraft_model.training.parallel import choose_device

    return load_fits(path, choose_device(device))


def _fitted(fits: Fits, key: str) -> Head:
    from facegraft_model.editing.partcodes import Head

    return Head(key, fits.codes_of(fits.index(key)))


def _field_and_base(folder: Path, base: str | None, device: str) -> tuple[Field, Head | None]:
    from facegraft_model.fitting.fits import FITS_FILE
    from facegraft_model.models import load_field
    from facegraft_model.training.parallel import choose_device

    if (folder / FITS_FILE).exists():
        fits = _load_fits(folder, device)
        return fits.field, None if base is None else _fitted(fits, base)
    if base is not None:
        raise click.UsageError(
            f"--base {base} names a fitted head, but {folder} is a training run; give the folder of the fits"
        )
    return load_field(folder, choose_device(device)), None


class _Progress:
    """One line on a terminal; nothing where there is none."""

    def __init__(self, what: str, quiet: bool) -> None:
        self.what, self.shown = what, not quiet and sys.stderr.isatty()
        self._dirty = False

    def __call__(self, done: int, total: int, loss: float) -> None:
        self._show(f"{self.what}: {done}/{total}, loss {loss:.4g}")

    def heads(self, done: int, total: int) -> None:
        """Heads done of all."""
        self._show(f"{self.what}: {done}/{total} heads")

    def named(self, what: str, done: int, total: int) -> None:
        """A step of the work by name."""
        self._show(f"{what}: {done}/{total}")

    def _show(self, text: str) -> None:
        if self.shown:
            sys.stderr.write(f"\r\x1b[2K{text}")
            sys.stderr.flush()
            self._dirty = True

    def close(self) -> None:
        """End the line."""
        if self._dirty:
            sys.stderr.write("\r\x1b[2K")
            self._dirty = False


def _bar(what: str, quiet: bool) -> _Progress:
    return _Progress(what, quiet)
