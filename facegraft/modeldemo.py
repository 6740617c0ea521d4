"""The model's part of the demo: train a small model, fit the held-out heads, score them, and swap a part in latent space; and fit two heads
and swap a part with the model that ships."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facegraft.vocabulary import NEUTRAL, SCAN, TEST

if TYPE_CHECKING:
    from facegraft_model.fitting.fits import Fits

RUN, FITS, SCORES, SWAP = "run", "fits", "scores", "swap"
SHIPPED, SCANS = "ict-head", "scans"
RESOLUTION, SWAP_RESOLUTION = 160, 160
POINTS, PAIRS = 20_000, 8


def model_demo(samples: Path, output: Path, seed: int, progress: bool, announce: Callable[[str], None]) -> None:
    """Train preset tiny on the demo's samples and write OUT/run, OUT/fits, OUT/scores and OUT/swap (of the first part), and with the model that
    ships OUT/ict-head/fits and OUT/ict-head/swap."""
    from facegraft_model.evaluation.evaluate import EvaluationSettings, evaluate_fits
    from facegraft_model.evaluation.records import ScoreSettings
    from facegraft_model.fitting.commands import fit_dataset
    from facegraft_model.presets import TINY
    from facegraft_model.training.train import train

    from facegraft.modelresults import draw_fits, save_scores
    from facegraft.store import open_dataset

    checkpoint = train(samples, output / RUN, TINY, device="cpu", seed=seed, progress=progress, ended=_check_whole)
    announce(f"{checkpoint}: preset tiny, {TINY.train.steps} steps")
    rows = open_dataset(samples).index.to_pylist()
    neutral = sorted(row["key"] for row in rows if _held_out(row) and row["expression"] == NEUTRAL)
    fits = fit_dataset(output / RUN, samples, output / FITS, keys=neutral, seed=seed, device="cpu")
    announce(f"{output / FITS}: {len(fits)} held-out heads")
    settings = EvaluationSettings(RESOLUTION, PAIRS, 0, ScoreSettings(full_points=POINTS))
    announce(save_scores(output / SCORES, evaluate_fits(fits, samples, settings)))
    draw_fits(output / SCORES, fits, samples, SWAP_RESOLUTION)
    _swap(fits, neutral[:2], output / SWAP, announce)
    _with_shipped(samples, neutral[:2], output / SHIPPED, seed, announce)


def _check_whole(step: int, total: int) -> None:
    if step < total:
        raise KeyboardInterrupt  # the signal that ended the training early is meant for the demo


def _with_shipped(samples: Path, keys: list[str], output: Path, seed: int, announce: Callable[[str], None]) -> None:
    """Fit two heads as a scanner would give them, without topology and pose, by the model that ships, and swap its first part."""
    from facegraft_model.evaluation.truth import Truth
    from facegraft_model.fitting.commands import ScanChoice, fit_scans
    from facegraft_model.pretrained.shipped import shipped

    from facegraft.meshfiles.write import write_mesh

    truth, scans = Truth(samples), []
    (output / SCANS).mkdir(parents=True, exist_ok=True)
    for key in keys:
        head = truth.head(key)
        scans.append(output / SCANS / f"{key}.ply")
        write_mesh(scans[-1], head.vertices, head.faces)
    fits = fit_scans(shipped(SHIPPED), scans, output / FITS, ScanChoice(), seed=seed, device="cpu")
    errors = ", ".join(f"{item['error_mm']:.2f}" for item in fits.items)
    announce(f"{output / FITS}: the model that ships, fitted to {len(fits)} of these heads as scans; mean distance {errors} mm")
    _swap(fits, keys, output / SWAP, announce)


def _swap(fits: Fits, keys: list[str], output: Path, announce: Callable[[str], None]) -> None:
    """Write the first of two fitted heads with the first part of the second."""
    from facegraft_model.editing.commands import swap_fitted
    from facegraft_model.editing.edit import DecodeSettings
    from facegraft_model.editing.files import NUMBERS_FILE, write_head

    from facegraft.modelresults import draw_edit
    from facegraft.store import write_json_atomic

    (host, donor), part = keys, fits.field.parts.names[0]
    edit = swap_fitted(fits, host, {part: donor}, DecodeSettings(resolution=SWAP_RESOLUTION))
    output.mkdir(parents=True, exist_ok=True)
    write_head(output / "swapped.ply", edit, edit.heads[-1])
    write_json_atomic(output / NUMBERS_FILE, edit.numbers)
    draw_edit(output, edit, f"{host} with the {part} of {donor}")
    announce(f"{output}: the {part} of {donor} on {host}")


def _held_out(row: dict[str, Any]) -> bool:
    return row["split"] == TEST and row["origin"] == SCAN and row["status"] == "written"
