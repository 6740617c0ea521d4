"""Several methods on the same samples: trained, fitted and scored alike, and put into one table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from facegraft.store import write_bytes_atomic, write_json_atomic
from facegraft_model.baselines.linear import LinearModel
from facegraft_model.checkpoints.checkpoint import latest
from facegraft_model.devices import choose_device
from facegraft_model.errors import ModelError
from facegraft_model.fitting.commands import fit_dataset
from facegraft_model.fitting.fits import FITS_FILE, Fits, load_fits
from facegraft_model.presets import preset
from facegraft_model.scores.evaluation import EvaluationSettings, disentanglement_table, evaluate_fits
from facegraft_model.scores.records import Reconstruction, Scores
from facegraft_model.scores.score import evaluate
from facegraft_model.scores.scorefiles import SCORES_JSON, read_scores, write_scores
from facegraft_model.scores.scoretable import difference_table, score_table
from facegraft_model.scores.truth import Truth
from facegraft_model.training.train import train

Progress = Callable[[str, int, int], None]
TABLE_FILE, COMPARISON_FILE = "table.txt", "comparison.json"
LINEAR = "linear"


def compare_methods(
    samples: Path,
    output: Path,
    methods: Sequence[str],
    *,
    steps: int | None,
    fit_steps: int | None,
    settings: EvaluationSettings,
    surfaces: Path | None = None,
    overrides: Sequence[str] = (),
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
    show_training: bool = True,
) -> str:
    """Train, fit and score each method; what is finished already is kept. Returns the tables, which are also OUT/table.txt.

    methods: presets, a preset with "-five" (the same five landmarks for all nets: the paper's Tables 3 and 4), or "linear" (PCA of the
    registered training heads, fitted to the same points). overrides: `group.name=value` for every method that is trained.
    """
    if not methods or len(set(methods)) < len(methods):
        raise ModelError(f"compare: name each method once, not {', '.join(methods) or 'none'}")
    scores = [
        _linear(samples, output / name, settings, surfaces, seed, progress)
        if name == LINEAR
        else _field(
            name,
            samples,
            output / name,
            steps,
            fit_steps,
            settings,
            surfaces,
            overrides,
            seed,
            device,
            progress,
            show_training,
        )
        for name in methods
    ]
    table = score_table(scores) + disentanglement_table(scores)
    ours = [result for result in scores if result.method == "facegraft"]
    for other in scores if ours else ():
        if other.method != "facegraft" and other.heads and ours[0].heads:  # the table above names heads that failed
            table += f"\nfacegraft - {other.method}\n" + difference_table(other, ours[0])
    write_bytes_atomic(output / TABLE_FILE, table.encode())
    document = {
        "samples": str(samples.resolve()),
        "methods": list(methods),
        "steps": steps,
        "fit_steps": fit_steps,
        "seed": seed,
        "overrides": list(overrides),
    }
    write_json_atomic(output / COMPARISON_FILE, document)
    return table


def _field(
    name: str,
    samples: Path,
    folder: Path,
    steps: int | None,
    fit_steps: int | None,
    settings: EvaluationSettings,
    surfaces: Path | None,
    overrides: Sequence[str],
    seed: int,
    device: str,
    progress: Progress | None,
    show_training: bool,
) -> Scores:
    base = preset(name.removesuffix("-five"))
    if name.endswith("-five"):
        base = replace(base, preset=name, model=replace(base.model, landmarks="five"))
    config = base.with_settings(overrides)
    if steps is not None:
        config = replace(config, train=replace(config.train, steps=steps))
    train(samples, folder / "run", config, device=device, seed=seed, progress=show_training)
    changes: dict[str, Any] = {} if fit_steps is None else {"steps": fit_steps}
    fits = _kept_fits(folder / "fits", fit_steps or config.fit.steps, device)
    if fits is None:
        report = None if progress is None else lambda done, total, _: progress(f"{name}: fit", done, total)
        fits = fit_dataset(
            folder / "run", samples, folder / "fits", changes=changes, seed=seed, device=device, report=report
        )
    kept = _kept_scores(folder / "scores", settings, fits)
    if kept is not None:
        return kept
    named = None if progress is None else lambda what, done, total: progress(f"{name}: {what}", done, total)
    result = evaluate_fits(fits, samples, settings, surfaces=surfaces, progress=named)
    write_scores(folder / "scores", result)
    return result


def _kept_fits(folder: Path, steps: int, device: str) -> Fits | None:
    """Fits of an earlier call, if they are of the same length and of the run's checkpoint as it is."""
    if not (folder / FITS_FILE).exists():
        return None
    made_with = Path(json.loads((folder / FITS_FILE).read_bytes())["model"]["checkpoint"])
    if latest(folder.parent / "run") != made_with:
        return None
    fits = load_fits(folder, choose_device(device))
    return fits if fits.settings["steps"] == steps else None


def _kept_scores(folder: Path, settings: EvaluationSettings, fits: Fits) -> Scores | None:
    """Scores of an earlier call, if they are of these fits and were taken in the same way."""
    path = folder / SCORES_JSON
    if not path.exists():
        return None
    document = json.loads(path.read_bytes())
    record = document["record"]
    same = (
        record["resolution"] == settings.resolution
        and document["settings"]["full_points"] == settings.score.full_points
        and bool(document["disentanglement"]) == (settings.pairs > 0 and fits.field.config.model.method == "parts")
        and record["model"] == fits.field.provenance
        and record["fit"] == fits.settings
    )
    return read_scores(path) if same else None


def _linear(
    samples: Path,
    folder: Path,
    settings: EvaluationSettings,
    surfaces: Path | None,
    seed: int,
    progress: Progress | None,
) -> Scores:
    """The linear model has no field: it learns from the registered surfaces, and its meshes are fitted to the samples' points."""
    truth = Truth(samples, surfaces)
    model = LinearModel.train(truth.store.path)
    model.save(folder / "run")
    rows = [
        row
        for row in truth.samples.index.to_pylist()
        if row["split"] == "test" and row["origin"] == "scan" and row["status"] == "written"
    ]
    if not rows:
        raise ModelError(f"{samples} has no held-out scans to fit; make a dataset with test subjects")

    def fitted() -> Iterator[Reconstruction]:
        for row in rows:
            points, normals = (truth.samples.read(row["key"], f"surface_{name}") for name in ("points", "normals"))
            fit = model.fit_points(points, normals, seed=seed)
            yield Reconstruction(row, truth.in_mm(row["key"], fit.mesh.vertices), fit.mesh.faces)

    done = 0

    def count(_: object) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress("linear: scores", done, len(rows))

    scores = evaluate(
        fitted(),
        truth,
        settings.score,
        method=LINEAR,
        landmarks="none",
        resolution=None,
        training_seed=None,
        record={"model": model.facts},
        on_head=count,
    )
    write_scores(folder / "scores", scores)
    return scores
