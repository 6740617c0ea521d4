"""Combine results: merge runs of one method with several seeds, and compare two methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from facegraft_model.errors import ModelError
from facegraft_model.evaluation.bootstrap import Interval, paired_bootstrap
from facegraft_model.evaluation.records import HeadScores, Scores, bootstrap_rng, columns_of


def merge_scores(runs: Sequence[Scores]) -> Scores:
    """Merge the results of one method trained with several seeds and scored in the same way.

    A head's scores become their mean over the runs (heads that failed in any run are failures), so that intervals over subjects
    keep their meaning; `over_seeds` has, by alignment, region and metric, the mean of each run and their standard deviation.
    Raises ModelError for no runs, different methods, settings or heads, or the same seed twice.
    """
    if not runs:
        raise ModelError("no scores to merge")
    first = runs[0]
    seeds = [seed for run in runs for seed in run.training_seeds]
    if None not in seeds and len(set(seeds)) != len(seeds):
        raise ModelError(f"the scores of {first.method} to merge have the same training seed twice: {seeds}")
    for run in runs[1:]:
        if run.method != first.method:
            raise ModelError(f"scores of different methods cannot be merged: {first.method} and {run.method}")
        check_comparable(first, run)
        if _all_keys(run) != _all_keys(first):
            raise ModelError(
                f"the runs of {first.method} to merge were scored on different heads; evaluate all of them on the same samples"
            )
    tables = [{str(head.item["key"]): head for head in run.heads} for run in runs]
    shared = [key for key in tables[0] if all(key in table for table in tables)]
    failures = {failure.key: failure for run in runs for failure in run.failures}
    heads = []
    for key in shared:
        same = [table[key] for table in tables]
        mean = {
            name: {region: _mean_of([head.scores[name][region] for head in same]) for region in by_region}
            for name, by_region in same[0].scores.items()
        }
        outside = _mean_of([head.excluded_percent for head in same])
        heads.append(HeadScores(same[0].item, mean, same[0].floor, outside))
    return Scores(
        method=first.method,
        settings=first.settings,
        record=first.record,
        training_seeds=seeds,
        heads=heads,
        failures=[failures[key] for key in sorted(failures)],
        over_seeds={name: _over_seeds(tables, shared, name) for name in first.settings["alignments"]}
        if shared
        else None,
        disentanglement=None if first.disentanglement is None else [run.disentanglement for run in runs],
    )


def compare_scores(first: Scores, second: Scores, alignment: str = "none") -> dict[str, dict[str, Interval]]:
    """By region and metric, the mean difference second − first on the heads that both have, with its interval over subjects.

    Raises ModelError when the two were scored with different settings or have no head in common.
    """
    check_comparable(first, second)
    for scored in (first, second):
        scored.summary(alignment)  # raises and names a missing alignment
    others = {str(head.item["key"]): head for head in second.heads}
    pairs = [(head, others[str(head.item["key"])]) for head in first.heads if str(head.item["key"]) in others]
    if not pairs:
        raise ModelError(f"{first.method} and {second.method} have no scored head in common")
    rounds = int(first.settings["bootstrap_rounds"])
    before, after = (columns_of([pair[i].scores[alignment] for pair in pairs]) for i in (0, 1))
    subjects = [str(head.item["subject"]) for head, _ in pairs]
    return {
        region: paired_bootstrap(before[region], after[region], subjects, bootstrap_rng(first.settings), rounds)
        for region in before
    }


def check_comparable(first: Scores, second: Scores) -> None:
    """Raises ModelError, naming the first setting that differs."""
    # The truth's content must be equal; its path and its sampling for the fit may differ.
    places = ("samples", "samples_fingerprint", "surfaces", "matched_by")

    def essence(scored: Scores) -> dict[str, Any]:
        truth = {name: value for name, value in scored.settings["truth"].items() if name not in places}
        return {**{name: value for name, value in scored.settings.items() if name != "truth"}, **truth}

    one, other = essence(first), essence(second)
    for name in one:
        if one[name] != other.get(name):
            raise ModelError(
                f"scores of {first.method} and {second.method} cannot be compared: {name} is {one[name]!r} and {other.get(name)!r}; "
                "evaluate both with the same settings on the same samples"
            )


def _all_keys(scored: Scores) -> set[str]:
    return {str(head.item["key"]) for head in scored.heads} | {failure.key for failure in scored.failures}


def _mean_of(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([table[name] for table in tables])) for name in tables[0]}


def _over_seeds(tables: Sequence[Mapping[str, HeadScores]], keys: Sequence[str], alignment: str) -> dict[str, Any]:
    """By region and metric, the mean over heads of each run, and the standard deviation of these means (null for one run)."""
    runs = [columns_of([table[key].scores[alignment] for key in keys]) for table in tables]
    result: dict[str, Any] = {}
    for region, metrics in runs[0].items():
        result[region] = {}
        for metric in metrics:
            means = [float(run[region][metric].mean()) for run in runs]
            result[region][metric] = {
                "means": means,
                "std_seeds": float(np.std(means, ddof=1)) if len(means) > 1 else None,
            }
    return result
