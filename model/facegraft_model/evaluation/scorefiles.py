"""Scores on disk: scores.json with all values and their definitions, and scores.csv with a row per head and region."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from facegraft.store import write_bytes_atomic, write_json_atomic
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.bootstrap import Interval
from facegraft_model.evaluation.records import ITEM_COLUMNS, Failure, HeadScores, Scores

FORMAT, VERSION = "facegraft-scores", 2
SCORES_JSON, SCORES_CSV = "scores.json", "scores.csv"
DEFINITIONS = {
    "clouds": "points uniform by area; nearest distances unsquared, to the other shape's cloud of full_points",
    "scd_mm": "half the sum of the mean nearest distances between clouds, both ways",
    "f": "100 × harmonic mean of the shares within tau, both ways, between clouds; 0 where both shares are 0",
    "f_surface": "the same of exact distances to the surface",
    "p2s_mm": "half the sum of the mean exact point-to-surface distances, both ways",
    "accuracy": "exact distance, points of the reconstruction to the true surface",
    "completeness": "exact distance, points of the truth to the reconstructed surface",
    "normal_consistency": "mean |cos| between face normals at points and at their exact nearest points, both ways",
    "parts": "points of the part in one shape against the whole other shape, both ways",
    "truth_area": "all faces but cut ones",
    "reconstruction_area": "all but points whose nearest true point lies on a cut face, or on the rim where the truth is an open sheet; "
    "scored as handed over (nothing else is cropped, neither at the unit ball nor at the neck)",
    "floor": "two independent samplings of the truth scored as truth and reconstruction; exact distances have floor 0",
    "interval": "95 % percentile bootstrap of the mean over heads, whole subjects drawn with replacement",
    "failed": "heads without a reconstruction that can be scored: listed under failures, left out of every mean",
}


def write_scores(folder: str | os.PathLike[str], scores: Scores) -> None:
    """Write FOLDER/scores.json (everything) and FOLDER/scores.csv (a row per head, alignment and region, and the floors), each atomically."""
    write_bytes_atomic(Path(folder) / SCORES_CSV, _csv(scores))
    write_json_atomic(Path(folder) / SCORES_JSON, to_json(scores))


def read_scores(path: str | os.PathLike[str]) -> Scores:
    """Read scores from a folder or a scores.json. Raises ModelError for anything else."""
    file = Path(path)
    file = file / SCORES_JSON if file.is_dir() else file
    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"no scores at {file}: {error}; make them with `facegraft model evaluate`") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT or document.get("version") != VERSION:
        raise ModelError(f"{file} is no {FORMAT} of version {VERSION}; make it with `facegraft model evaluate`")
    try:
        return Scores(
            method=document["method"],
            settings=document["settings"],
            record=document["record"],
            training_seeds=document["training_seeds"],
            heads=[HeadScores(**head) for head in document["heads"]],
            failures=[Failure(**failure) for failure in document["failures"]],
            over_seeds=document["over_seeds"],
            disentanglement=document["disentanglement"],
        )
    except (KeyError, TypeError) as error:
        raise ModelError(f"{file} is damaged ({error!r}); make it again with `facegraft model evaluate`") from error


def to_json(scores: Scores) -> dict[str, Any]:
    """The content of scores.json. The key "disentanglement" has that part of the evaluation, or null."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "method": scores.method,
        "settings": scores.settings,
        "definitions": DEFINITIONS,
        "record": scores.record,
        "training_seeds": scores.training_seeds,
        "counts": {"heads": len(scores.heads), "subjects": len(set(scores.subjects)), "failed": len(scores.failures)},
        "summary": {alignment: _plain(scores.summary(alignment)) for alignment in scores.settings["alignments"]},
        "floor": _plain(scores.floor()),
        "over_seeds": scores.over_seeds,
        "disentanglement": scores.disentanglement,
        "heads": [asdict(head) for head in scores.heads],
        "failures": [asdict(failure) for failure in scores.failures],
    }


def _plain(summary: Mapping[str, Mapping[str, Interval]]) -> dict[str, dict[str, dict[str, float | None]]]:
    return {
        region: {metric: value.to_json() for metric, value in metrics.items()} for region, metrics in summary.items()
    }


def _csv(scored: Scores) -> bytes:
    """Rows by head, alignment ("floor" for the floors) and region; a metric that a row does not have is empty."""
    rows = [
        {"method": scored.method, **head.item, "alignment": name, "region": region, **values}
        for head in scored.heads
        for name, regions in [*head.scores.items(), ("floor", head.floor)]
        for region, values in regions.items()
    ]
    metrics = list(dict.fromkeys(name for row in rows for name in row))
    columns = metrics or ["method", *ITEM_COLUMNS, "alignment", "region"]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
