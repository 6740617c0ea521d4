"""The files of a trained model that a report shows, relative to the folder of the run."""

from __future__ import annotations

FOLDER = "model"
METRICS = f"{FOLDER}/run/metrics.jsonl"
SCORES = f"{FOLDER}/scores/scores.json"
PICTURES = (
    (f"{FOLDER}/scores/fits.png", "Truth and fit of held-out heads."),
    (f"{FOLDER}/swap/sheet.png", "One part, swapped by exchanging its latent code."),
)
MODEL_FILES = (METRICS, SCORES, *(name for name, _ in PICTURES))
