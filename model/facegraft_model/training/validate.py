"""Validation during training: codes of held-out heads are fitted briefly, and the remaining error is logged."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch

from facegraft.store import Location, open_dataset
from facegraft.vocabulary import SCAN, TEST
from facegraft_model.config import Config, windows
from facegraft_model.fitting.fit import fit_samples
from facegraft_model.method import Field

HEADS = 8
POINTS = 1024


class Validation:
    """Fits the first scans of the test subjects with the current weights."""

    def __init__(self, samples: Location, config: Config, field: Field, device: torch.device, seed: int) -> None:
        self.samples, self.field, self.seed = samples, field, seed
        self.every, steps = config.train.validate_every, config.train.validate_steps
        index = open_dataset(samples, verify=False).index.to_pylist()
        self.keys = [
            row["key"]
            for row in index
            if row["split"] == TEST and row["origin"] == SCAN and row["status"] == "written"
        ][:HEADS]
        counts = windows(config.fit)
        share = POINTS / sum(counts.values())
        few: dict[str, Any] = {name: min(count, round(share * count) + 1) for name, count in counts.items()}
        few |= {"steps": max(steps, 1), "lr": max(config.fit.lr, 5e-3), "schedule": "cosine"}
        self.fit = replace(config.fit, init="mean", items=HEADS, **few)
        self.wanted = steps > 0 and bool(self.keys)

    def due(self, step: int, done: bool) -> bool:
        return self.wanted and (done or (self.every > 0 and step % self.every == 0))

    def measure(self, step: int) -> dict[str, float]:
        """Mean and largest surface error in mm over the heads."""
        began = time.perf_counter()
        was_training = self.field.training
        fitted, _ = fit_samples(
            self.field.eval(), str(self.samples), self.keys, self.fit, seed=self.seed, verify=False
        )
        self.field.train(was_training)
        errors = fitted.errors_mm
        return {
            "surface_error_mm": float(errors.mean()),
            "worst_error_mm": float(errors.max()),
            "seconds": time.perf_counter() - began,
        }
