"""The methods of `compare`: each is trained, fitted and scored through one interface, and listed in REGISTERED."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from facegraft.errors import nearest, printable
from facegraft.store import AnyPath, write_json_atomic
from facegraft.surfaces.nearest import nearest_on_surface
from facegraft.vocabulary import SCAN, TEST
from facegraft_model.checkpoints.checkpoint import latest, load
from facegraft_model.config import Config
from facegraft_model.decoding.extract import Mesh
from facegraft_model.devices import choose_device
from facegraft_model.editing.partcodes import has_part_codes
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.budget import pace_of, total_steps
from facegraft_model.evaluation.disentanglement import Progress, counted
from facegraft_model.evaluation.evaluate import EvaluationSettings, evaluate_fits
from facegraft_model.evaluation.linear import LinearModel
from facegraft_model.evaluation.linearparts import train_linear_parts
from facegraft_model.evaluation.merging import merge_scores
from facegraft_model.evaluation.records import Failure, Reconstruction, Scores
from facegraft_model.evaluation.score import decode_items, evaluate
from facegraft_model.evaluation.scorefiles import SCORES_JSON, read_scores, write_scores
from facegraft_model.evaluation.small import SMALL, SMALL_PRESETS
from facegraft_model.evaluation.truth import Truth
from facegraft_model.fitting.commands import fit_dataset
from facegraft_model.fitting.fits import FITS_FILE, Fits, load_fits
from facegraft_model.presets import PRESETS
from facegraft_model.training.runlog import read_metrics
from facegraft_model.training.train import train
from facegraft_model.training.validate import HEADS, POINTS

RUN, FITS, SCORES = "run", "fits", "scores"
FIVE = "-five"
"""Suffix of a preset's name: the same five landmarks for all nets (the paper's Tables 3 and 4)."""
CHANGED = "@"
"""What separates a method's name from settings by which it differs: facegraft@data.template=0, for rows of ablations."""
CURVE_POINTS = 7
"""Validations of a training run, at even shares of its steps, for the learning curve."""
CURVE_FIT_STEPS = 60
"""Iterations of their fits (fewer where the method's own fit has fewer)."""
CURVE_FILE = "curve.json"


@dataclass(frozen=True)
class Task:
    """The task of every method: the samples, the length of training and fitting (None: the preset's), and how to score.

    seconds: budget of training instead of steps, see `budget`. seeds: train the methods that have one once for each, in folders
    seed_N, and merge their scores; None: only `seed`. curves: validate during training, for `Method.curve`. overrides: `group.name=value` of the configuration, for the methods that have one. progress is called with the name of the
    work, the count done and the total.
    """

    samples: Path
    settings: EvaluationSettings
    surfaces: Path | None = None
    steps: int | None = None
    seconds: float | None = None
    fit_steps: int | None = None
    overrides: tuple[str, ...] = ()
    seed: int = 0
    seeds: tuple[int, ...] | None = None
    curves: bool = True
    device: str = "auto"
    progress: Progress | None = None
    show_training: bool = True

    def __post_init__(self) -> None:
        if self.steps is not None and self.seconds is not None:
            raise ModelError("a comparison takes either a number of steps or a budget of seconds, not both")
        if self.seeds is not None and (not self.seeds or len(set(self.seeds)) < len(self.seeds)):
            raise ModelError(f"name each training seed once, not {', '.join(map(str, self.seeds)) or 'none'}")

    def report(self, method: str) -> Progress | None:
        """`progress` with the method's name in front of the name of the work."""
        progress = self.progress
        return None if progress is None else lambda what, done, total: progress(f"{method}: {what}", done, total)


class Curve(NamedTuple):
    """Mean |signed distance| in mm at the surface points of a few held-out heads, by brief fits, over the seconds of training.

    A field that has only begun to learn may be near 0 everywhere, so its first values can be too good. For a mesh it is the distance.
    moving: whether it has several points; a method that is trained in one piece has one.
    """

    seconds: list[float]
    errors_mm: list[float]
    moving: bool


class Method(Protocol):
    """A method of a comparison. It writes its model, fits and scores to FOLDER/run, FOLDER/fits and FOLDER/scores."""

    @property
    def name(self) -> str: ...

    def scores(self, folder: Path, task: Task) -> Scores:
        """Train, fit and score; results that an earlier call with the same task has finished are read from the folder."""

    def heads(self, folder: Path, task: Task, keys: Sequence[str]) -> list[Reconstruction]:
        """Reconstructions of scored heads for a picture, after `scores`; those without a surface are left out."""

    def curve(self, folder: Path, task: Task) -> Curve | None:
        """The learning curve, after `scores`; None where nothing was measured."""


@dataclass(frozen=True)
class FieldMethod:
    """A field of a preset."""

    config: Config

    @property
    def name(self) -> str:
        return self.config.preset

    def scores(self, folder: Path, task: Task) -> Scores:
        if task.seeds is None:
            return self._scores(folder, folder, task)
        runs = [self._scores(folder / f"seed_{seed}", folder, replace(task, seed=seed)) for seed in task.seeds]
        merged = merge_scores(runs)
        write_scores(folder / SCORES, merged)
        return merged

    def heads(self, folder: Path, task: Task, keys: Sequence[str]) -> list[Reconstruction]:
        """Those of the first seed."""
        fits = load_fits(fits_folder(folder, task), choose_device(task.device))
        places = [fits.index(key) for key in keys]
        decoded = decode_items(
            fits.field,
            [fits.items[i] for i in places],
            lambda i: fits.codes_of(places[i]),
            Truth(task.samples, task.surfaces),
            resolution=task.settings.resolution,
            to_model=fits.alignment.numpy()[places],
        )
        return [entry for entry in decoded if not isinstance(entry, Failure)]

    def curve(self, folder: Path, task: Task) -> Curve | None:
        """The validations of the first seed's training."""
        records = [
            record
            for record in read_metrics(_of_first_seed(folder, task) / RUN)
            if record.get("split") == "validation" and record.get("surface_error_mm") is not None
        ]
        if not records:
            return None
        pace = pace_of(folder, task.samples, self._config(task), task.device, task.seed)
        return Curve(
            [pace.seconds_at(record["step"]) for record in records],
            [record["surface_error_mm"] for record in records],
            moving=True,
        )

    def _scores(self, folder: Path, method: Path, task: Task) -> Scores:
        """Train, fit and score one seed in a folder; method: the folder with the pace, which all seeds share."""
        fits = self._fits(folder, task, self._trained(folder, method, task))
        kept = _kept_scores(folder / SCORES, task.settings, fits)
        if kept is not None:
            return kept
        result = evaluate_fits(
            fits, task.samples, task.settings, surfaces=task.surfaces, progress=task.report(self.name)
        )
        write_scores(folder / SCORES, result)
        return result

    def _config(self, task: Task) -> Config:
        return self.config.with_settings(task.overrides)

    def _trained(self, folder: Path, method: Path, task: Task) -> Config:
        """Train, and return the configuration that was trained."""
        config = self._config(task)
        steps = task.steps
        if steps is None:
            pace = pace_of(method, task.samples, config, task.device, task.seed)
            steps = pace.steps_in(task.seconds) if task.seconds is not None else total_steps(config, pace)
        fit_steps = min(config.fit.steps, CURVE_FIT_STEPS) if task.curves else 0
        every = -(-steps // CURVE_POINTS)
        config = replace(
            config, train=replace(config.train, steps=steps, validate_every=every, validate_steps=fit_steps)
        )
        train(task.samples, folder / RUN, config, device=task.device, seed=task.seed, progress=task.show_training)
        if load(folder / RUN).step < steps:
            raise KeyboardInterrupt  # the signal that ended the training early is meant for the comparison
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

    name: str
    learn: Callable[[AnyPath], LinearModel]

    def scores(self, folder: Path, task: Task) -> Scores:
        truth = Truth(task.samples, task.surfaces)
        began = time.process_time()
        model = self.learn(truth.store.path)
        seconds = time.process_time() - began
        model.save(folder / RUN)
        kept = _kept_linear_scores(folder / SCORES, task, model)
        if kept is not None:
            return kept
        rows = _test_scans(truth)

        def fitted() -> Iterator[Reconstruction]:
            for row in rows:
                yield self._fitted(model, truth, row, task)[1]

        result = evaluate(
            fitted(),
            truth,
            task.settings.score,
            method=self.name,
            landmarks="none",
            resolution=None,
            training_seed=None,
            record={"model": model.facts, "fit": {"seed": task.seed}},
            on_head=counted("scores", len(rows), task.report(self.name)),
        )
        write_scores(folder / SCORES, result)
        errors = [self._surface_error_mm(model, truth, row, task) for row in rows[:HEADS]]
        write_json_atomic(folder / CURVE_FILE, {"seconds": seconds, "error_mm": float(np.mean(errors))})
        return result

    def heads(self, folder: Path, task: Task, keys: Sequence[str]) -> list[Reconstruction]:
        model, truth = LinearModel.load(folder / RUN), Truth(task.samples, task.surfaces)
        rows = {row["key"]: row for row in _test_scans(truth)}
        return [self._fitted(model, truth, rows[key], task)[1] for key in keys]

    def curve(self, folder: Path, task: Task) -> Curve | None:
        path = folder / CURVE_FILE
        if not path.exists():
            return None
        measured = json.loads(path.read_bytes())
        return Curve([measured["seconds"]], [measured["error_mm"]], moving=False)

    def _fitted(
        self, model: LinearModel, truth: Truth, row: Mapping[str, Any], task: Task
    ) -> tuple[Mesh, Reconstruction]:
        """The surface of a fit in unit coordinates, and in mm of the head."""
        points, normals = (truth.samples.read(row["key"], f"surface_{name}") for name in ("points", "normals"))
        mesh = model.surface_of(model.fit_points(points, normals, seed=task.seed))
        return mesh, Reconstruction(row, truth.in_mm(row["key"], mesh.vertices), mesh.faces)

    def _surface_error_mm(self, model: LinearModel, truth: Truth, row: Mapping[str, Any], task: Task) -> float:
        """Mean distance of the first surface points of a scan from its fit, as a validation in training measures it."""
        mesh, _ = self._fitted(model, truth, row, task)
        points = truth.samples.read(row["key"], "surface_points")[:POINTS].astype(np.float64)
        distance = nearest_on_surface(mesh.vertices, mesh.faces, points).distance
        return float(distance.mean()) * model.mm_per_unit


def _test_scans(truth: Truth) -> list[dict[str, Any]]:
    """Index rows of the held-out scans. Raises ModelError where there are none."""
    rows = [
        row
        for row in truth.samples.index.to_pylist()
        if row["split"] == TEST and row["origin"] == SCAN and row["status"] == "written"
    ]
    if not rows:
        raise ModelError(f"{truth.samples.path} has no held-out scans to fit; make a dataset with test subjects")
    return rows


def fits_folder(folder: Path, task: Task) -> Path:
    """Where a method's folder has the fits of the first seed."""
    return _of_first_seed(folder, task) / FITS


def _of_first_seed(folder: Path, task: Task) -> Path:
    return folder if task.seeds is None else folder / f"seed_{task.seeds[0]}"


def _five(config: Config) -> Config:
    return replace(config, preset=config.preset + FIVE, model=replace(config.model, landmarks="five"))


REGISTERED: tuple[Method, ...] = (
    LinearMethod("linear", LinearModel.train),
    LinearMethod("linear-parts", train_linear_parts),
    *(FieldMethod(config) for config in PRESETS.values()),
    *(FieldMethod(_five(config)) for config in PRESETS.values()),
    *(FieldMethod(config) for config in SMALL_PRESETS.values()),
)
"""All methods that can be compared. Every preset of a field is included automatically; any other method needs a line here."""

COMPARED = {method.name: method for method in REGISTERED}


def named_methods(text: str) -> list[str]:
    """The names of methods in a text that separates them by commas; commas in brackets belong to a setting."""
    return [name for name in (part.strip() for part in re.split(r",(?![^\[\]]*\])", text)) if name]


def method_named(name: str) -> Method:
    """A registered method, or one with other settings: NAME@group.setting=value. Raises ModelError for an unknown name or setting."""
    plain_name, *changes = name.split(CHANGED)
    if changes:
        method = method_named(plain_name)
        if not isinstance(method, FieldMethod):
            raise ModelError(f"compare: {plain_name} has no settings that {printable(name)!r} could change")
        return FieldMethod(replace(method.config.with_settings(changes), preset=name))
    if name not in COMPARED:
        plain = ", ".join(known for known in COMPARED if not known.endswith((FIVE, SMALL)))
        there = f"there are {plain}, presets with {FIVE}, and {', '.join(SMALL_PRESETS)} with {SMALL}"
        raise ModelError(f"compare: no method {printable(name)!r}{nearest(name, COMPARED, there)}")
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
        _same_settings(kept, settings)
        and kept.record["resolution"] == settings.resolution
        and bool(kept.disentanglement) == (settings.pairs > 0 and has_part_codes(fits.field))
        and kept.record["model"] == fits.field.provenance
        and kept.record["fit"] == fits.settings
    )
    return kept if same else None


def _kept_linear_scores(folder: Path, task: Task, model: LinearModel) -> Scores | None:
    """Scores of an earlier call, if they are of this linear model and have the same settings."""
    if not (folder / SCORES_JSON).exists():
        return None
    kept = read_scores(folder)
    same = _same_settings(kept, task.settings) and kept.record["model"] == json.loads(json.dumps(model.facts))
    return kept if same and kept.record["fit"] == {"seed": task.seed} else None


def _same_settings(kept: Scores, settings: EvaluationSettings) -> bool:
    """Whether points, alignment and the other settings of scoring are those of the kept scores."""
    wanted = json.loads(json.dumps(asdict(settings.score)))
    return all(kept.settings[name] == value for name, value in wanted.items() if name != "workers")
