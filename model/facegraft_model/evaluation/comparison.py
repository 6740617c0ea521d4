"""Several methods on the same samples: trained, fitted and scored in the same way, in one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from facegraft.store import write_bytes_atomic, write_json_atomic
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.compared import Task, method_named
from facegraft_model.evaluation.disentanglement import disentanglement_table
from facegraft_model.evaluation.records import Scores
from facegraft_model.evaluation.scoretable import difference_table, score_table

TABLE_FILE, COMPARISON_FILE = "table.txt", "comparison.json"
OURS = "facegraft"
"""The method from whose scores those of the others are subtracted."""


def compare_methods(methods: Sequence[str], output: Path, task: Task) -> str:
    """Train, fit and score each method (names of `compared.COMPARED`) in OUT/METHOD; finished results are kept.

    Returns the tables, which are also in OUT/table.txt; OUT/comparison.json has the arguments. Raises ModelError for an unknown
    method or one named twice, before anything is trained.
    """
    if not methods or len(set(methods)) < len(methods):
        raise ModelError(f"compare: name each method once, not {', '.join(methods) or 'nothing'}")
    chosen = [method_named(name) for name in methods]
    table = comparison_table([method.scores(output / method.name, task) for method in chosen])
    write_bytes_atomic(output / TABLE_FILE, table.encode())
    document = {
        "samples": str(task.samples.resolve()),
        "methods": list(methods),
        "steps": task.steps,
        "fit_steps": task.fit_steps,
        "seed": task.seed,
        "overrides": list(task.overrides),
    }
    write_json_atomic(output / COMPARISON_FILE, document)
    return table


def comparison_table(scores: Sequence[Scores]) -> str:
    """Tables of the scores of all methods, of their disentanglement, and of the difference of ours from each other method."""
    table = score_table(scores) + disentanglement_table(scores)
    ours = next((result for result in scores if result.method == OURS), None)
    for other in scores if ours is not None else ():
        if other is not ours and other.heads and ours is not None and ours.heads:  # the table above names heads that failed
            table += f"\n{OURS} - {other.method}\n" + difference_table(other, ours)
    return table
