"""Commands on existing datasets and this machine: verify, status, inspect, retry, report, doctor."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from facegraft.cli.options import (
    LocalPath,
    Place,
    gathered,
    limit_options,
    run_options,
    say,
    scheduler_options,
    stage_options,
)
from facegraft.errors import printable
from facegraft.vocabulary import KINDS

if TYPE_CHECKING:
    from facegraft.doctor import Finding
    from facegraft.engine import EngineOptions, RunStatus, Tls


@click.command()
@click.argument("datasets", type=Place(), nargs=-1, required=True)
@click.option(
    "--deep", is_flag=True, help="Also recompute a random selection of items from their inputs, and compare bit by bit."
)
@click.option("--items", type=click.IntRange(1), default=16, help="With --deep: number of items of each dataset.")
@click.option("--seed", type=click.IntRange(0), default=0, help="With --deep: seed of the selection of items.")
@limit_options
def verify(
    datasets: tuple[Path, ...], deep: bool, items: int, seed: int, item_timeout: float, item_memory: float
) -> None:
    """Check every byte and every item of DATASETS (or of all stages of a run folder); exit 0 if whole, else 1.

    \b
    Example: facegraft verify out
             facegraft verify out --deep --items 50
    """
    from facegraft.store import verify_dataset

    bad = 0
    for folder in [d for path in datasets for d in stage_folders(path)]:
        findings, state = verify_dataset(folder), "whole"
        if deep and not findings:
            from facegraft.engine import EngineOptions, verify_deep
            from facegraft.stages.again import plan_again, stage_of

            stage = stage_of(folder)
            options = EngineOptions(item_timeout_s=item_timeout, item_memory_gb=item_memory)
            report = verify_deep(folder, stage.path, partial(plan_again, stage), items, seed, options)
            findings, state = (
                report.findings,
                f"whole, and {len(report.checked)} items made again are the same bit by bit",
            )
        bad += bool(findings)
        click.echo(f"{folder}: {f'{len(findings)} findings' if findings else state}")
        for finding in findings:
            click.echo(f"  {finding}")
    if bad:
        raise click.exceptions.Exit(1)


def stage_folders(path: Path) -> list[Path]:
    """The folder itself if it is a dataset, or the stages' folders in the folder of a run."""
    from facegraft.store.writer import DATASET_FILE, RUN_FILE

    stages = [path / kind for kind in KINDS]
    if (
        not (path / DATASET_FILE).exists()
        and not (path / RUN_FILE).exists()
        and any((stage / RUN_FILE).exists() or stage.is_dir() for stage in stages)
    ):
        return stages
    return [path]


@click.command()
@click.argument("folder", type=Place())
@click.option("--json", "as_json", is_flag=True, help="One line of JSON per stage, for scripts.")
def status(folder: Path, as_json: bool) -> None:
    """Show what is planned, done and rejected in a dataset or run FOLDER; also works during a run.

    \b
    Example: facegraft status out
    """
    from facegraft.engine import status as engine_status
    from facegraft.store.writer import RUN_FILE

    for stage in stage_folders(folder):
        if stage != folder and not (stage / RUN_FILE).exists():
            click.echo(
                json.dumps({"output": str(stage), "state": "not started"}) if as_json else f"{stage}: not started"
            )
            continue
        found = engine_status(stage)
        if as_json:
            click.echo(json.dumps({**asdict(found), "output": str(stage), "state": found.state}, ensure_ascii=False))
            continue
        click.echo(f"{stage}: {_told(found)}")
        for reason, count in found.reasons.items():
            click.echo(f"  rejected {count}: {reason}")
        if found.state == "stopped":
            click.echo("  run the same command again to continue")


def _told(found: RunStatus) -> str:
    parts = [
        f"{found.state}, {found.written} of {found.planned} items written",
        f"{found.rejected} rejected",
        f"{found.shards_done} of {found.shards} shards",
    ]
    if found.rate is not None and not found.complete:
        parts.append(f"{found.rate:.3g} items/s")
    if found.eta_s is not None and found.running:
        parts.append(f"about {_duration(found.eta_s)} left")
    if found.last_commit_s is not None and not found.complete:
        parts.append(f"last shard {_duration(found.last_commit_s)} ago")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@click.command()
@click.argument("dataset", type=Place())
@click.argument("key", required=False)
def inspect(dataset: Path, key: str | None) -> None:
    """Show the content of DATASET, or the fields and the index row of one item.

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
        if ds.schema.parts is not None:
            click.echo(f"region set {ds.parts.region_set}, parts: {ds.parts.describe_labels()}")
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
@click.argument("dataset", type=Place())
@run_options
def retry(dataset: Path, options: EngineOptions) -> None:
    """Try the rejected items of DATASET again (after a fix elsewhere, or with other limits).

    \b
    Example: facegraft retry out/surfaces --item-timeout 900
    """
    from facegraft.engine import retry as engine_retry
    from facegraft.stages.again import stage_of

    say(engine_retry(dataset, stage_of(dataset).path, options))


@click.command()
@click.argument("folder", type=Place())
@click.option(
    "-o",
    "--output",
    type=Place(file_okay=False),
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
@click.argument("source", required=False)
@click.option("--kind", default=None, help="With SOURCE: the kind of its heads; default: found out.", show_default=False)
@click.option("--region-map", default=None, metavar="MAP", help="With SOURCE: region map of the heads: a file, a dataset, or a shipped name.")
@click.option("--landmarks", default=None, metavar="FILE", help="With SOURCE: 68 vertex indices, to build the region map of a topology that has none.")
@stage_options
@click.option("-o", "--output", type=LocalPath(dir_okay=False), default=None, help="With SOURCE: an HTML page of pictures.", show_default=False)
@scheduler_options("Also check this Dask cluster: whether it can be reached, and its workers.")
def doctor(
    source: str | None,
    kind: str | None,
    region_map: str | None,
    landmarks: str | None,
    seed: int,
    settings: tuple[str, ...],
    output: Path | None,
    scheduler: str | None,
    tls: Tls | None,
) -> None:
    """Check this machine: versions, cores, memory, disk, off-screen rendering; suggest a fix for whatever is missing.

    With SOURCE, a folder or file of heads: read and judge every head as ingest does, write nothing, and print what is there (the same as
    `facegraft ingest SOURCE --check`); exit 1 where a head would be rejected.

    \b
    Example: facegraft doctor
             facegraft doctor scans -o check.html
             facegraft doctor --scheduler tcp://host:8786
    """
    if source is not None:
        _look_at(source, {"kind": kind, "region_map": region_map, "landmarks": landmarks}, settings, seed, output)
        return
    if output is not None or kind is not None or region_map is not None or landmarks is not None or settings:
        raise click.UsageError("these options are about the heads of a SOURCE: name it, as in `facegraft doctor scans`")
    from facegraft.doctor import examine, examine_cluster

    findings = examine() + _compiler() + ([] if scheduler is None else examine_cluster(scheduler, tls))
    for finding in findings:
        click.echo(
            f"{'ok  ' if finding.good else 'BAD '} {finding.what:<22} {finding.found}{'' if finding.good else '  → ' + finding.remedy}"
        )
    if not all(finding.good for finding in findings):
        raise click.exceptions.Exit(1)


def _compiler() -> list[Finding]:
    """Whether training can be compiled here: on a GPU it should be, on a CPU it may be. Nothing where torch is not installed."""
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        return []
    import torch
    from facegraft_model.compilers import missing_compiler

    from facegraft.doctor import Finding

    gpu = torch.cuda.is_available()
    missing = missing_compiler("cuda" if gpu else "cpu")
    if missing is None:
        return [Finding("torch.compile", "has its compiler")]
    if gpu:
        return [Finding("torch.compile", "training is not compiled here: it takes more time and memory", False, missing)]
    return [Finding("torch.compile", f"{missing} (only train.compile=on would need it)")]


def _look_at(source: str, named: dict[str, str | None], settings: tuple[str, ...], seed: int, page: Path | None) -> None:
    """`doctor SOURCE`: the kind is found out where it is not given."""
    from facegraft.cli.check import check_source
    from facegraft.engine import EngineOptions
    from facegraft.heads.guess import guess_kind
    from facegraft.store.remote import place

    parameters = gathered("ingest", settings, **named)
    if "kind" not in parameters:
        guessed = guess_kind(place(source))
        if "landmarks" in parameters:
            guessed.pop("region_map", None)
        parameters = {**guessed, **parameters}
        click.echo(f"taken for {', '.join(f'{name} {value}' for name, value in guessed.items())}; another with --kind")
    check_source(source, parameters, seed, page, EngineOptions())
