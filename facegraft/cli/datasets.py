"""Commands that look at what is there: verify, status, inspect, retry, report, doctor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from facegraft.cli.options import run_options, say
from facegraft.errors import printable

if TYPE_CHECKING:
    from facegraft.engine import EngineOptions


@click.command()
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


@click.command()
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


@click.command()
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
        click.echo(f"frame: {printable(ds.schema.frame, 500)}")
        for name, spec in ds.schema.fields.items():
            click.echo(
                f"  {name:<18} {spec.dtype:<8} {'×'.join(map(str, spec.shape)):<10} {printable(spec.unit):<12} {printable(spec.meaning, 500)}"
            )
        click.echo("items: " + ", ".join(ds.keys()[:8]) + (" …" if len(ds) > 8 else ""))
        return
    click.echo(json.dumps(ds.row(key), indent=1, ensure_ascii=False))
    for name, array in ds[key].items():
        shape = "×".join(map(str, array.shape))
        spread = f"{np.min(array):.6g} … {np.max(array):.6g}" if array.size else "empty"
        click.echo(f"  {name:<18} {array.dtype!s:<8} {shape:<12} {spread}")


@click.command()
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


@click.command()
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


@click.command()
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
