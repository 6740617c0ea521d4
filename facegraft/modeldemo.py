"""The model's part of the demo: train a small model, fit the held-out heads, score them, and swap a part in latent space."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from facegraft.vocabulary import NEUTRAL, SCAN, TEST

RUN, FITS, SCORES, SWAP = "run", "fits", "scores", "swap"
RESOLUTION, SWAP_RESOLUTION = 96, 160
POINTS, PAIRS = 20_000, 2


def model_demo(samples: Path, output: Path, seed: int, progress: bool, announce: Callable[[str], None]) -> None:
    """Train preset tiny on the demo's samples and write OUT/run, OUT/fits, OUT/scores and OUT/swap (of the first part)."""
    from facegraft_model.editing.commands import swap_fitted
    from facegraft_model.editing.edit import DecodeSettings
    from facegraft_model.editing.files import NUMBERS_FILE, write_head
    from facegraft_model.evaluation.evaluate import EvaluationSettings, evaluate_fits
    from facegraft_model.evaluation.records import ScoreSettings
    from facegraft_model.fitting.commands import fit_dataset
    from facegraft_model.presets import TINY
    from facegraft_model.training.train import train

    from facegraft.modelresults import draw_edit, draw_fits, save_scores
    from facegraft.store import open_dataset, write_json_atomic

    checkpoint = train(samples, output / RUN, TINY, device="cpu", seed=seed, progress=progress)
    announce(f"{checkpoint}: preset tiny, {TINY.train.steps} steps")
    rows = open_dataset(samples).index.to_pylist()
    neutral = sorted(row["key"] for row in rows if _held_out(row) and row["expression"] == NEUTRAL)
    fits = fit_dataset(output / RUN, samples, output / FITS, keys=neutral, seed=seed, device="cpu")
    announce(f"{output / FITS}: {len(fits)} held-out heads")
    settings = EvaluationSettings(RESOLUTION, PAIRS, 0, ScoreSettings(full_points=POINTS))
    announce(save_scores(output / SCORES, evaluate_fits(fits, samples, settings)))
    draw_fits(output / SCORES, fits, samples, SWAP_RESOLUTION)
    (host, donor), part = neutral[:2], fits.field.parts.names[0]
    edit = swap_fitted(fits, host, {part: donor}, DecodeSettings(resolution=SWAP_RESOLUTION))
    (output / SWAP).mkdir(parents=True, exist_ok=True)
    write_head(output / SWAP / "swapped.ply", edit, edit.heads[-1])
    write_json_atomic(output / SWAP / NUMBERS_FILE, edit.numbers)
    draw_edit(output / SWAP, edit, f"{host} with the {part} of {donor}")
    announce(f"{output / SWAP}: the {part} of {donor} on {host}")


def _held_out(row: dict[str, Any]) -> bool:
    return row["split"] == TEST and row["origin"] == SCAN and row["status"] == "written"
