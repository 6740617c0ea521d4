"""`facegraft model train`, `fit` and `publish`."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from facegraft.cli.model.group import (
    DATASET,
    FILE,
    FOLDER,
    device_option,
    output_option,
    quiet_option,
    settings_option,
)
from facegraft.cli.model.progress import Progress
from facegraft.vocabulary import ORIGINS, SCAN, TEST


@click.command("train")
@click.argument("samples", type=DATASET)
@output_option
@click.option("--preset", default="facegraft", help="Named configuration: tiny, facegraft, paper or another; a wrong name lists all.")
@click.option("--steps", type=click.IntRange(1), default=None, help="Optimiser steps; default: the preset's.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of everything random.")
@device_option
@settings_option
@quiet_option
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
    from facegraft_model.presets import preset as named_preset
    from facegraft_model.training.train import train

    config = named_preset(preset).with_settings(settings)
    if steps is not None:
        config = replace(config, train=replace(config.train, steps=steps))
    began = time.monotonic()
    ends: list[tuple[int, int]] = []  # of the process that writes; the others stay silent
    checkpoint = train(
        samples, output, config, device=device, seed=seed, progress=not quiet, ended=lambda *steps: ends.append(steps)
    )
    for step, total in ends:
        state = "trained" if step >= total else f"stopped at step {step} of {total}, the same command continues"
        click.echo(f"{checkpoint}: {state}, in {time.monotonic() - began:.0f} s")


@click.command("fit")
@click.argument("run", type=FOLDER)
@click.argument("samples", type=DATASET, required=False)
@output_option
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
    help="How --points are aligned to the model's frame.",
)
@click.option(
    "--landmarks",
    type=click.Choice(["none", "given", "predicted"]),
    default="none",
    help="Landmarks that the fit may use.",
)
@click.option("--landmark-file", type=FILE, default=None, help="JSON: iBUG index → [x, y, z] on the scan of --points.")
@click.option("--split", default=TEST, help="Split of SAMPLES to fit: train, test or all.")
@click.option(
    "--origin", type=click.Choice([*ORIGINS, "all"]), default=SCAN, help="Fit scans, composites or both."
)
@click.option("--key", "keys", multiple=True, help="Fit these items only; repeatable.")
@click.option("--share-identity", is_flag=True, help="Use one identity for all expressions of a subject.")
@click.option("--steps", type=click.IntRange(1), default=None, help="Iterations; default: the preset's.")
@click.option(
    "--robust-mm",
    type=click.FloatRange(min=0),
    default=None,
    help="Scale of the robust loss; default: 0 for samples, 2 for --points.",
)
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of everything random.")
@device_option
@settings_option
@quiet_option
def model_fit(
    run: Path, samples: Path | None, output: Path, points: tuple[Path, ...], unit_mm: float, align: Any, landmarks: str, landmark_file: Path | None,
    split: str, origin: str, keys: tuple[str, ...], share_identity: bool, steps: int | None, robust_mm: float | None, seed: int, device: str,
    settings: tuple[str, ...], quiet: bool,
) -> None:  # fmt: skip
    """Fit latent codes to unseen heads; the weights of RUN do not change (Eq. 12 of the paper).

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
    began = time.monotonic()
    common: dict[str, Any] = {
        "settings": settings,
        "changes": changes,
        "landmarks": landmarks,
        "seed": seed,
        "device": device,
    }
    with Progress("fit", quiet) as bar:
        if samples is None:
            fits = fit_scans(run, points, output, ScanChoice(unit_mm, align, landmark_file), report=bar, **common)
        else:
            fits = fit_dataset(
                run,
                samples,
                output,
                split=None if split == "all" else split,
                origin=None if origin == "all" else origin,
                keys=keys or None,
                share_identity=share_identity,
                report=bar,
                **common,
            )
    errors = [item["error_mm"] for item in fits.items]
    shares = [item["scan"]["covered"] for item in fits.items if item.get("scan", {}).get("covered") is not None]
    cover = f", which cover {100 * min(shares):.0f} % of the face or more" if shares else ""
    click.echo(
        f"{output}: {len(fits)} heads fitted, mean distance {sum(errors) / len(errors):.3f} mm of their surface points{cover}, in {time.monotonic() - began:.0f} s"
    )


@click.command("publish")
@click.argument("run", type=FOLDER)
@output_option
@click.option("--card", type=FILE, default=None, help="Markdown text for README.md: data, licence, scores, limits.")
def model_publish(run: Path, output: Path, card: Path | None) -> None:
    """Write a trained model as a small folder that can ship: weights in 16 bits where the surface does not show it, and a card.

    \b
    Example: facegraft model publish run -o ict-head --card card.md
    Writes FOLDER/model.safetensors, FOLDER/state.json and FOLDER/README.md; a folder of models is searched by name.
    """
    from facegraft_model.published import publish

    made = publish(run, output, card=card)
    click.echo(
        f"{made.folder}: {made.bytes / 1e6:.2f} MB, {made.halved} of {made.tensors} tensors in 16 bits, "
        f"which moves the surface by at most {made.error_mm:.4f} mm"
    )
