"""Several methods on the same samples: trained, fitted and scored in the same way, in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facegraft.errors import FacegraftError
from facegraft.store import write_bytes_atomic, write_json_atomic
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.bootstrap import Interval
from facegraft_model.evaluation.compared import Curve, Task, method_named
from facegraft_model.evaluation.disentanglement import disentanglement_table
from facegraft_model.evaluation.merging import compare_scores
from facegraft_model.evaluation.records import Reconstruction, Scores
from facegraft_model.evaluation.scorefiles import to_json
from facegraft_model.evaluation.scoretable import difference_table, failure_rows, score_table
from facegraft_model.evaluation.truth import TrueHead, Truth

TABLE_FILE, COMPARISON_FILE = "table.txt", "comparison.json"
OURS = "facegraft"
"""The method from whose scores those of the others are subtracted."""
SUBTRACTED = {"scd_mm": "SCD", "p2s_mm": "p2s"}
"""The metrics whose differences are shown, with their names in the table."""
EXPECTED = (FacegraftError, MemoryError, OSError)
"""What makes a method fail without ending the comparison; any other error is a bug, or the user's signal."""


@dataclass(frozen=True)
class Comparison:
    """table: as text. scores: of the methods that have any, in the order asked for. failed: the reason of each other method."""

    table: str
    scores: list[Scores]
    failed: dict[str, str]


def compare_methods(methods: Sequence[str], output: Path, task: Task) -> Comparison:
    """Train, fit and score each method (names of `compared.COMPARED`) in OUT/METHOD; finished results are kept.

    A method that fails is a row of the table with the reason; the others go on. The table is also in OUT/table.txt;
    OUT/comparison.json has the arguments, the summaries of the scores and the differences. Raises ModelError for an unknown method or one named twice, before
    anything is trained.
    """
    if not methods or len(set(methods)) < len(methods):
        raise ModelError(f"compare: name each method once, not {', '.join(methods) or 'nothing'}")
    chosen = [method_named(name) for name in methods]
    scores: list[Scores] = []
    failed: dict[str, str] = {}
    for method in chosen:
        try:
            scores.append(method.scores(output / method.name, task))
        except EXPECTED as error:
            failed[method.name] = " ".join(str(error).split()) or type(error).__name__
    table = comparison_table(scores, failed)
    write_bytes_atomic(output / TABLE_FILE, table.encode())
    document = {
        "samples": str(task.samples.resolve()),
        "methods": list(methods),
        "steps": task.steps,
        "seconds": task.seconds,
        "fit_steps": task.fit_steps,
        "seed": task.seed,
        "seeds": None if task.seeds is None else list(task.seeds),
        "overrides": list(task.overrides),
        "scores": {result.method: _summary(result) for result in scores},
        "failed": failed,
        "differences": _differences_json(scores),
    }
    write_json_atomic(output / COMPARISON_FILE, document)
    return Comparison(table, scores, failed)


def comparison_table(scores: Sequence[Scores], failed: Mapping[str, str] | None = None) -> str:
    """Tables of the scores of all methods by alignment, of their disentanglement, and of the difference of ours from each other
    method, with a line for each region that says where ours is better. failed: reasons of the methods without scores."""
    if not scores:
        return "\n".join(failure_rows(failed or {})) + "\n"
    alignments = scores[0].settings["alignments"]
    table = "\n".join(score_table(scores, alignment, failed=failed) for alignment in alignments)
    table += disentanglement_table(scores)
    ours, others = _ours_and_others(scores)
    if ours is None:
        return table
    for alignment in alignments:
        for other in others:
            table += f"\n{OURS} - {other.method}\n" + difference_table(other, ours, alignment, tuple(SUBTRACTED))
        if others:
            table += "\n" + "\n".join(verdicts(ours, others, alignment)) + "\n"
    return table


def verdicts(ours: Scores, others: Sequence[Scores], alignment: str = "none") -> list[str]:
    """A line for each region: which methods ours is below by SCD and p2s, with the interval of the paired difference below 0, and
    from which others it differs how."""
    differences = {other.method: compare_scores(other, ours, alignment) for other in others}
    width = max(map(len, ours.regions))
    lines = [
        f"Where {OURS} is below (better), above, or not apart by the 95 % interval over subjects, alignment {alignment}:"
    ]
    for region in ours.regions:
        texts = []
        for metric, label in SUBTRACTED.items():
            sides: dict[str, list[str]] = {"below": [], "not apart from": [], "above": []}
            for name, by_region in differences.items():
                sides[_side(by_region[region][metric])].append(name)
            alone = len(sides["below"]) == len(differences)
            parts = [f"{side} {', '.join(names)}" for side, names in sides.items() if names]
            texts.append(f"{label} {'below all' if alone else '; '.join(parts)}")
        lines.append(f"{region.ljust(width)}   {'.  '.join(texts)}")
    return lines


@dataclass(frozen=True)
class ShownHead:
    """A held-out head of a comparison's picture: the truth, and each method's reconstruction (mm) with its distances to the truth."""

    truth: TrueHead
    fits: dict[str, tuple[Reconstruction, Any]]


def shown_heads(comparison: Comparison, output: Path, task: Task, count: int = 3) -> list[ShownHead]:
    """The first heads, each of another subject, that all compared methods reconstructed; distances f64 [V] of the vertices in mm."""
    tables = [
        {str(head.item["key"]): str(head.item["subject"]) for head in result.heads} for result in comparison.scores
    ]
    shared = [key for key in (tables[0] if tables else ()) if all(key in table for table in tables)]
    first = {tables[0][key]: key for key in reversed(shared)}
    keys = [key for key in shared if key in first.values()][:count]
    fits: dict[str, dict[str, Reconstruction]] = {}
    for result in comparison.scores:
        made = method_named(result.method).heads(output / result.method, task, keys)
        fits[result.method] = {str(entry.item["key"]): entry for entry in made}
    truth = Truth(task.samples, task.surfaces)
    shown = []
    for key in keys:
        head = truth.head(key)
        shown.append(
            ShownHead(
                head,
                {
                    name: (entries[key], head.surface.nearest(entries[key].vertices).distance)
                    for name, entries in fits.items()
                    if key in entries
                },
            )
        )
    return shown


def learning_curves(comparison: Comparison, output: Path, task: Task) -> dict[str, Curve]:
    """The learning curve of each scored method that has one."""
    curves = {
        result.method: method_named(result.method).curve(output / result.method, task) for result in comparison.scores
    }
    return {name: curve for name, curve in curves.items() if curve is not None}


def _side(difference: Interval) -> str:
    if difference.low is None or difference.high is None:
        return "not apart from"
    return "below" if difference.high < 0 else "above" if difference.low > 0 else "not apart from"


def _ours_and_others(scores: Sequence[Scores]) -> tuple[Scores | None, list[Scores]]:
    """Our scores and those to compare with them; methods without a scored head are named in the table above."""
    ours = next((result for result in scores if result.method == OURS and result.heads), None)
    return ours, [] if ours is None else [other for other in scores if other is not ours and other.heads]


def _summary(scores: Scores) -> dict[str, Any]:
    """The scores without those of single heads, which are in OUT/METHOD/scores."""
    document = to_json(scores)
    return {
        name: document[name]
        for name in ("training_seeds", "counts", "summary", "floor", "over_seeds", "disentanglement", "failures")
    }


def _differences_json(scores: Sequence[Scores]) -> dict[str, Any]:
    """By other method, alignment, region and metric, the mean of ours − the other, with its interval over subjects."""
    ours, others = _ours_and_others(scores)
    if ours is None:
        return {}
    return {
        other.method: {
            alignment: {
                region: {metric: by_metric[metric].to_json() for metric in SUBTRACTED}
                for region, by_metric in compare_scores(other, ours, alignment).items()
            }
            for alignment in ours.settings["alignments"]
        }
        for other in others
    }
