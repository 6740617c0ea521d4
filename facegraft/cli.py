"""The command line. Every command is thin: it reads options, calls one function, says what was written where.

Nothing heavy is imported before a command runs, so that `facegraft --help` answers at once.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facegraft import __version__
from facegraft.errors import FacegraftError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from facegraft.engine import EngineOptions, RunSummary
    from facegraft.regions.regionmap import RegionMap

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


def main() -> None:
    """Entry point: one line and exit code 1 for a failed run, 2 for wrong usage, 130 for Ctrl-C."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("facegraft: %(message)s"))
    logger = logging.getLogger("facegraft")  # ours alone: the libraries' chatter is not for users
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except FacegraftError as error:
        click.echo(f"facegraft: error: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("facegraft: interrupted; finished shards are kept, the same command goes on from there", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)


def output_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """-o DIR."""
    return click.option(
        "-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write."
    )(command)


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of everything that runs on the engine; they do not change what is written. Passed on as `options`."""

    @click.option(
        "--workers",
        type=click.IntRange(1),
        default=None,
        help="Worker processes of the local cluster; default: one a core.",
        show_default=False,
    )
    @click.option(
        "--scheduler",
        default=None,
        metavar="ADDRESS",
        help="Dask scheduler (tcp://… or a scheduler file), or 'sync' for this process.",
    )
    @click.option(
        "--max-rejects",
        type=click.FloatRange(0, 1),
        default=0.02,
        help="Share of items that may be rejected before the run stops.",
    )
    @click.option("--item-timeout", type=click.FloatRange(min=1), default=300.0, help="Seconds that one item may take.")
    @click.option(
        "--item-memory", type=click.FloatRange(min=0.25), default=6.0, help="Gigabytes that one item may use."
    )
    @click.option("--quiet", is_flag=True, help="No progress display.")
    @wraps(command)
    def wrapped(
        *args: Any,
        workers: int | None,
        scheduler: str | None,
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
    """What was written where."""
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
    """A number, or names separated by commas."""
    if text is None:
        return None
    return int(text) if text.isdigit() else [name.strip() for name in text.split(",")]


KINDS = ("synthetic", "ict", "facescape", "flame", "meshes")


@cli.command()
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), default=Path("demo"), help="Folder to write."
)
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of everything random.")
@click.option(
    "--set", "settings", multiple=True, metavar="STAGE.NAME=VALUE", help="Any parameter of any stage; repeatable."
)
@run_options
def demo(output: Path, seed: int, settings: tuple[str, ...], options: EngineOptions) -> None:
    """Everything, on built-in synthetic heads: minutes on a laptop, ending in a page of pictures.

    \b
    Example: facegraft demo
    """
    _run("demo", None, output, seed, settings, options)


@cli.command()
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
    recipe_name: str, source: str | None, output: Path, seed: int, settings: tuple[str, ...], options: EngineOptions
) -> None:
    from facegraft.pipeline import run_recipe
    from facegraft.recipe import find_recipe, load_recipe
    from facegraft.report import write_report

    path = find_recipe(recipe_name)
    recipe = load_recipe(path).override(settings)
    click.echo(f"recipe {recipe.name} ({path})")
    run_recipe(recipe, source, output, seed, options, announce=say)
    page = write_report(output, output / "report")
    click.echo(f"report: {page}")


@cli.command()
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


@cli.command()
@click.argument("heads", type=click.Path(path_type=Path))
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


@cli.command()
@click.argument("inputs", type=click.Path(path_type=Path), nargs=-1, required=True)
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


@cli.command()
@click.argument("surfaces", type=click.Path(path_type=Path))
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


@cli.command()
@click.argument("datasets", type=click.Path(path_type=Path), nargs=-1, required=True)
def verify(datasets: tuple[Path, ...]) -> None:
    """Check every byte and every item of DATASETS (or of all stages of a run folder); exit 0 if whole, else 1.

    \b
    Example: facegraft verify out
    """
    from facegraft.store import verify_dataset

    bad = 0
    for folder in [d for path in datasets for d in stage_folders(path)]:
        findings = verify_dataset(folder)
        bad += bool(findings)
        click.echo(f"{folder}: {'whole' if not findings else f'{len(findings)} findings'}")
        for finding in findings:
            click.echo(f"  {finding}")
    if bad:
        raise click.exceptions.Exit(1)


def stage_folders(path: Path) -> list[Path]:
    """A dataset's folder itself, or the stages' folders in the folder of a run."""
    stages = [path / name for name in ("heads", "composites", "surfaces", "samples")]
    if (
        not (path / "dataset.json").exists()
        and not (path / "run.json").exists()
        and any(stage.is_dir() for stage in stages)
    ):
        return stages
    return [path]


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
def status(folder: Path) -> None:
    """What is planned, done and rejected in a dataset or run FOLDER, from the folder alone; works while a run goes on.

    \b
    Example: facegraft status out
    """
    from facegraft.engine import status as engine_status

    for stage in stage_folders(folder):
        if stage != folder and not (stage / "run.json").exists():
            click.echo(f"{stage}: not started")
            continue
        found = engine_status(stage)
        state = "complete" if found.complete else "running" if found.running else "stopped"
        rate = "" if found.rate is None or found.complete else f", {found.rate:.3g} items/s"
        eta = "" if found.eta_s is None else f", about {found.eta_s:.0f} s left"
        click.echo(
            f"{stage}: {state}, {found.written} of {found.planned} items written, {found.rejected} rejected, "
            f"{found.shards_done} of {found.shards} shards{rate}{eta}"
        )
        for reason, count in found.reasons.items():
            click.echo(f"  rejected {count}: {reason}")


@cli.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.argument("key", required=False)
def inspect(dataset: Path, key: str | None) -> None:
    """Show what DATASET holds, or the fields and the index row of one item.

    \b
    Example: facegraft inspect out/samples s0001_e01
    """
    import numpy as np

    from facegraft.store import open_dataset

    ds = open_dataset(dataset)
    if key is None:
        click.echo(
            f"{dataset}: kind {ds.kind}, {len(ds)} items in {len(ds.shards)} shards, {ds.mm_per_unit:g} mm per unit"
        )
        click.echo(f"frame: {ds.schema.frame}")
        for name, spec in ds.schema.fields.items():
            click.echo(
                f"  {name:<18} {spec.dtype:<8} {'×'.join(map(str, spec.shape)):<10} {spec.unit:<12} {spec.meaning}"
            )
        click.echo("items: " + ", ".join(ds.keys()[:8]) + (" …" if len(ds) > 8 else ""))
        return
    click.echo(json.dumps(ds.row(key), indent=1, ensure_ascii=False))
    for name, array in ds[key].items():
        shape = "×".join(map(str, array.shape))
        spread = f"{np.min(array):.6g} … {np.max(array):.6g}" if array.size else "empty"
        click.echo(f"  {name:<18} {array.dtype!s:<8} {shape:<12} {spread}")


@cli.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@run_options
def retry(dataset: Path, options: EngineOptions) -> None:
    """Make the rejected items of DATASET again (after a fix outside, or with other limits).

    \b
    Example: facegraft retry out/surfaces --item-timeout 900
    """
    from facegraft.engine import retry as engine_retry
    from facegraft.stages import stage_path_of

    say(engine_retry(dataset, stage_path_of(dataset), options))


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder of the page.  [default: FOLDER/report]",
    show_default=False,
)
def report(folder: Path, output: Path | None) -> None:
    """Write one self-contained HTML page of pictures and figures about a run FOLDER.

    \b
    Example: facegraft report out
    """
    from facegraft.report import write_report

    click.echo(f"report: {write_report(folder, output or folder / 'report')}")


@cli.command()
def doctor() -> None:
    """Check this machine: versions, cores, memory, disk, off-screen rendering; says what to do where something is missing."""
    from facegraft.doctor import examine

    findings = examine()
    for finding in findings:
        click.echo(
            f"{'ok  ' if finding.good else 'BAD '} {finding.what:<22} {finding.found}{'' if finding.good else '  → ' + finding.remedy}"
        )
    if not all(finding.good for finding in findings):
        raise click.exceptions.Exit(1)


@cli.group(cls=Commands)
def regions() -> None:
    """Region maps: which vertices of a topology are the nose, the eyes, the mouth."""


@regions.command("build")
@click.argument("template", type=click.Path(path_type=Path))
@click.option(
    "--landmarks",
    type=click.Path(path_type=Path),
    required=True,
    help="68 landmarks: indices (.npz, .npy, .json, .txt) or barycentric (.npz).",
)
@click.option("--key", default=None, help="Which array of the landmark file.")
@click.option("--name", required=True, help="Name of the topology.")
@click.option(
    "--mm-per-unit",
    type=click.FloatRange(min=0, min_open=True),
    default=None,
    help="Millimetres of the mesh's unit; default: from the eyes' distance.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="JSON file to write."
)
def regions_build(
    template: Path, landmarks: Path, key: str | None, name: str, mm_per_unit: float | None, output: Path
) -> None:
    """Find the parts of a new topology from one TEMPLATE mesh (OBJ, PLY) and its 68 landmarks.

    \b
    Example: facegraft regions build 1_neutral.obj --landmarks landmark_indices.npz --key v10 --name facescape_v10 -o facescape_v10.json
    """
    from facegraft.regions.build import build_region_map
    from facegraft.regions.check import check_region_map
    from facegraft.regions.landmarks import read_landmarks

    vertices, faces = _read_triangles(template)
    indices = read_landmarks(landmarks, key=key, faces=faces)
    region_map = build_region_map(vertices, faces, indices, name, mm_per_unit=mm_per_unit)
    region_map.save(output)
    click.echo(f"{output}: {name}, {len(vertices)} vertices")
    _say_check(check_region_map(region_map, vertices, faces))


@regions.command("show")
@click.argument("region_map")
@click.argument("template", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="PNG file to write."
)
def regions_show(region_map: str, template: Path, output: Path) -> None:
    """Draw REGION_MAP (a shipped name or a JSON file) on one mesh of its topology.

    \b
    Example: facegraft regions show ict generic_neutral_mesh.obj -o regions.png
    """
    from facegraft.regions.regionmap import load_region_map
    from facegraft.regions.show import show_region_map

    found = load_region_map(region_map)
    vertices, faces = _read_triangles(template, found)
    show_region_map(found, vertices, faces, output)
    click.echo(str(output))


@regions.command("check")
@click.argument("region_map")
@click.argument("template", type=click.Path(path_type=Path))
def regions_check(region_map: str, template: Path) -> None:
    """Measure REGION_MAP on one mesh of its topology: loops, disks, gaps, symmetry; exit 1 where it is not sound.

    \b
    Example: facegraft regions check ict generic_neutral_mesh.obj
    """
    from facegraft.regions.check import check_region_map
    from facegraft.regions.regionmap import load_region_map

    found = load_region_map(region_map)
    vertices, faces = _read_triangles(template, found)
    found.check_mesh(len(vertices), faces, str(template))
    _say_check(check_region_map(found, vertices, faces))


def _read_triangles(path: Path, region_map: RegionMap | None = None) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices and triangles of a mesh file, in file order; quads are split as ingest splits them."""
    from facegraft.heads.triangles import read_triangles

    return read_triangles(path, region_map)


def _say_check(found: tuple[list[str], dict[str, dict[str, dict[str, object]]]]) -> None:
    findings, figures = found
    for set_name, parts in figures.items():
        for part, values in parts.items():
            row = "  ".join(f"{n} {v:.3g}" if isinstance(v, float) else f"{n} {v}" for n, v in values.items())
            click.echo(f"  {set_name}.{part}: {row}")
    for finding in findings:
        click.echo(f"  NOT SOUND: {finding}")
    if findings:
        raise click.exceptions.Exit(1)
    click.echo("  sound")
