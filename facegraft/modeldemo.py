"""The model's part of the demo: train small, fit the held-out heads, score them, and swap a nose in latent space."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

RUN, FITS, SCORES, SWAP = "run", "fits", "scores", "swap"
RESOLUTION, SWAP_RESOLUTION = 96, 160
POINTS, PAIRS = 20_000, 2


def model_demo(samples: Path, output: Path, seed: int, progress: bool, announce: Callable[[str], None]) -> None:
    """Train preset tiny on the demo's samples and write OUT/run, OUT/fits, OUT/scores and OUT/swap."""
    from facegraft_model.config import PART_NAMES
    from facegraft_model.editing.edit import DecodeSettings, swap_heads
    from facegraft_model.editing.partcodes import Head
    from facegraft_model.fitting.commands import fit_dataset
    from facegraft_model.presets import TINY
    from facegraft_model.scores.evaluation import EvaluationSettings, disentanglement_table, evaluate_fits, fit_pictures
    from facegraft_model.scores.records import ScoreSettings
    from facegraft_model.scores.scorefiles import write_scores
    from facegraft_model.scores.scoretable import score_table
    from facegraft_model.training.train import train

    from facegraft.meshfiles.write import write_mesh
    from facegraft.report.modelsheets import write_edit_sheet, write_fit_sheet
    from facegraft.store import open_dataset, write_json_atomic

    checkpoint = train(samples, output / RUN, TINY, device="cpu", seed=seed, progress=progress)
    announce(f"{checkpoint}: preset tiny, {TINY.train.steps} steps")
    rows = open_dataset(samples).index.to_pylist()
    neutral = sorted(row["key"] for row in rows if _held_out(row) and row["expression"] == "neutral")
    fits = fit_dataset(output / RUN, samples, output / FITS, keys=neutral, seed=seed, device="cpu")
    announce(f"{output / FITS}: {len(fits)} held-out heads")
    settings = EvaluationSettings(RESOLUTION, PAIRS, 0, ScoreSettings(full_points=POINTS))
    scores = evaluate_fits(fits, samples, settings)
    write_scores(output / SCORES, scores)
    announce(score_table([scores]) + disentanglement_table([scores]))
    write_fit_sheet(
        output / SCORES / "fits.png",
        fit_pictures(fits, samples, resolution=SWAP_RESOLUTION),
        "Held-out heads, preset tiny",
    )
    host, donor = (Head(key, fits.codes_of(fits.index(key))) for key in neutral[:2])
    edit = swap_heads(fits.field, host, {"nose": donor}, DecodeSettings(resolution=SWAP_RESOLUTION))
    result = edit.heads[-1]
    (output / SWAP).mkdir(parents=True, exist_ok=True)
    write_mesh(
        output / SWAP / "swapped.ply",
        result.vertices_mm,
        result.faces,
        parts=result.parts,
        part_names=PART_NAMES,
        template_coords=result.template_coords,
    )
    write_json_atomic(output / SWAP / "numbers.json", edit.numbers)
    write_edit_sheet(output / SWAP / "sheet.png", "swap", edit.heads, f"{host.name} with the nose of {donor.name}")
    announce(f"{output / SWAP}: the nose of {donor.name} on {host.name}")


def _held_out(row: dict[str, str]) -> bool:
    return row["split"] == "test" and row["origin"] == "scan" and row["status"] == "written"
