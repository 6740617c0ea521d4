"""The methods of `compare`: each is trained, fitted and scored through one interface, and listed in REGISTERED."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from facegraft.errors import nearest, printable
from facegraft.vocabulary import SCAN, TEST
from facegraft_model.checkpoints.checkpoint import latest
from facegraft_model.config import Config
from facegraft_model.devices import choose_device
from facegraft_model.editing.partcodes import has_part_codes
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.disentanglement import Progress, counted
from facegraft_model.evaluation.evaluate import EvaluationSettings, evaluate_fits
from facegraft_model.evaluation.linear import LinearModel
from facegraft_model.evaluation.records import Reconstruction, Scores
from facegraft_model.evaluation.score import evaluate
from facegraft_model.evaluation.scorefiles import SCORES_JSON, read_scores, write_scores
from facegraft_model.evaluation.truth import Truth
from facegraft_model.fitting.commands import fit_dataset
from facegraft_model.fitting.fits import FITS_FILE, Fits, load_fits
from facegraft_model.presets import PRESETS
from facegraft_model.training.train import train

RUN, FITS, SCORES = "run", "fits", "scores"
FIVE = "-five"
"""Suffix of a preset's name: the same five landmarks for all nets (the paper's Tables 3 and 4)."""


@dataclass(frozen=True)
class Task:
    """The task of every method: the samples, the length of training and fitting (None: the preset's), and how to score.

    overrides: `group.name=value` of the configuration, for the methods that have one. progress is called with the name of the
    work, the count done and the total.
    """

    samples: Path
    settings: EvaluationSettings
    surfaces: Path | None = None
    steps: int | None = None
    fit_steps: int | None = None
    overrides: tuple[str, ...] = ()
    seed: int = 0
    device: str = "auto"
    progress: Progress | None = None
    show_training: bool = True

    def report(self, method: str) -> Progress | None:
        """`progress` with the method's name in front of the name of the work."""
        progress = self.progress
        return None if progress is None else lambda what, done, total: progress(f"{method}: {what}", done, total)


class Method(Protocol):
    """A method of a comparison. It writes its model, fits and scores to FOLDER/run, FOLDER/fits and FOLDER/scores."""

    @property
    def name(self) -> str: ...

    def scores(self, folder: Path, task: Task) -> Scores:
        """Train, fit and score; results that an earlier call with the same task has finished are read from the folder."""


@dataclass(frozen=True)
class FieldMethod:
    """A field of a preset."""

    config: Config

    @property
    def name(self) -> str:
        return self.config.preset

    def scores(self, folder: Path, task: Task) -> Scores:
        fits = self._fits(folder, task, self._trained(folder, task))
        kept = _kept_scores(folder / SCORES, task.settings, fits)
        if kept is not None:
            return kept
        result = evaluate_fits(
            fits, task.samples, task.settings, surfaces=task.surfaces, progress=task.report(self.name)
        )
        write_scores(folder / SCORES, result)
        return result

    def _trained(self, folder: Path, task: Task) -> Config:
        """Train, and return the configuration that was trained."""
        config = self.config.with_settings(task.overrides)
        if task.steps is not None:
            config = replace(config, train=replace(config.train, steps=task.steps))
        train(task.samples, folder / RUN, config, device=task.device, seed=task.seed, progress=task.show_training)
        return config

    def _fits(self, folder: Path, task: Task, config: Config) -> Fits:
        kept = _kept_fits(folder, task.fit_steps or config.fit.steps, task.device)
        if kept is not None:
            return kept
        report = task.report(self.name)
        return fit_dataset(
            folder / RUN,
            task.samples,
            folder / FITS,
            changes={} if task.fit_steps is None else {"steps": task.fit_steps},
            seed=task.seed,
            device=task.device,
            report=None if report is None else lambda done, total, _: report("fit", done, total),
        )


@dataclass(frozen=True)
class LinearMethod:
    """PCA of the registered training heads: a mesh model, trained on the surfaces and fitted to the samples' points."""

    name: str = "linear"

    def scores(self, folder: Path, task: Task) -> Scores:
        truth = Truth(task.samples, task.surfaces)
        model = LinearModel.train(truth.store.path)
        model.save(folder / RUN)
        rows = [
            row
            for row in truth.samples.index.to_pylist()
            if row["split"] == TEST and row["origin"] == SCAN and row["status"] == "written"
        ]
        if not rows:
            raise ModelError(f"{task.samples} has no held-out scans to fit; make a dataset with test subjects")

        def fitted() -> Iterator[Reconstruction]:
            for row in rows:
                points, normals = (truth.samples.read(row["key"], f"surface_{name}") for name in ("points", "normals"))
                fit = model.fit_points(points, normals, seed=task.seed)
                yield Reconstruction(row, truth.in_mm(row["key"], fit.mesh.vertices), fit.mesh.faces)

        result = evaluate(
            fitted(),
            truth,
            task.settings.score,
            method=self.name,
            landmarks="none",
            resolution=None,
            training_seed=None,
            record={"model": model.facts},
            on_head=counted("scores", len(rows), task.report(self.name)),
        )
        write_scores(folder / SCORES, result)
        return result


def _five(config: Config) -> Config:
    return replace(config, preset=config.preset + FIVE, model=replace(config.model, landmarks="five"))


REGISTERED: tuple[Method, ...] = (
    LinearMethod(),
    *(FieldMethod(config) for config in PRESETS.values()),
    *(FieldMethod(_five(config)) for config in PRESETS.values()),
)
"""All methods that can be compared. Every preset of a field is included automatically; any other method needs a line here."""

COMPARED = {method.name: method for method in REGISTERED}


def method_named(name: str) -> Method:
    """A registered method. Raises ModelError for an unknown name."""
    if name not in COMPARED:
        plain = ", ".join(known for known in COMPARED if not known.endswith(FIVE))
        raise ModelError(
            f"compare: no method {printable(name)!r}{nearest(name, COMPARED, f'there are {plain}, and presets with {FIVE}')}"
        )
    return COMPARED[name]


def _kept_fits(folder: Path, steps: int, device: str) -> Fits | None:
    """Fits of an earlier call, if they have the same number of iterations and were made with the run's present checkpoint."""
    path = folder / FITS
    if not (path / FITS_FILE).exists():
        return None
    made_with = Path(json.loads((path / FITS_FILE).read_bytes())["model"]["checkpoint"])
    if latest(folder / RUN) != made_with:
        return None
    fits = load_fits(path, choose_device(device))
    return fits if fits.settings["steps"] == steps else None


def _kept_scores(folder: Path, settings: EvaluationSettings, fits: Fits) -> Scores | None:
    """Scores of an earlier call, if they are of these fits and have the same settings."""
    path = folder / SCORES_JSON
    if not path.exists():
        return None
    kept = read_scores(path)
    same = (
        kept.record["resolution"] == settings.resolution
        and kept.settings["full_points"] == settings.score.full_points
        and bool(kept.disentanglement) == (settings.pairs > 0 and has_part_codes(fits.field))
        and kept.record["model"] == fits.field.provenance
        and kept.record["fit"] == fits.settings
    )
    return kept if same else None
