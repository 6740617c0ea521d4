"""Means over heads with bootstrap intervals over subjects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from facegraft.arrays import Floats
from facegraft_model.errors import ModelError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over heads with its bootstrap interval; low and high are None for a single subject. `std`: of the subjects' means."""

    mean: float
    low: float | None
    high: float | None
    std: float | None

    def to_json(self) -> dict[str, float | None]:
        return {"mean": self.mean, "low": self.low, "high": self.high, "std_subjects": self.std}


def bootstrap(
    values: Mapping[str, Floats], subjects: Sequence[str], rng: np.random.Generator, rounds: int = 2000
) -> dict[str, Interval]:
    """Mean over heads of each metric (values [n] each) and its 95 % percentile interval under resampling of *subjects*.

    The heads of one subject are not independent, so whole subjects are drawn with replacement, with all their heads
    (cluster bootstrap, Davison & Hinkley 1997, 3.8). All metrics use the same draws. Raises ModelError without heads.
    """
    if not subjects:
        raise ModelError("no heads to average")
    names, place = np.unique(np.asarray(subjects), return_inverse=True)
    table = np.stack([np.asarray(column, dtype=np.float64) for column in values.values()], axis=1)
    sums = np.zeros((len(names), table.shape[1]))
    np.add.at(sums, place.ravel(), table)
    counts = np.bincount(place.ravel(), minlength=len(names)).astype(np.float64)
    mean = table.mean(axis=0)
    if len(names) == 1:
        return {name: Interval(float(mean[i]), None, None, None) for i, name in enumerate(values)}
    drawn = rng.multinomial(len(names), np.full(len(names), 1.0 / len(names)), size=rounds).astype(np.float64)
    means = (drawn @ sums) / (drawn @ counts)[:, None]
    low, high = np.quantile(means, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2], axis=0)
    spread = (sums / counts[:, None]).std(axis=0, ddof=1)
    return {
        name: Interval(float(mean[i]), float(low[i]), float(high[i]), float(spread[i])) for i, name in enumerate(values)
    }


def paired_bootstrap(
    first: Mapping[str, Floats],
    second: Mapping[str, Floats],
    subjects: Sequence[str],
    rng: np.random.Generator,
    rounds: int = 2000,
) -> dict[str, Interval]:
    """Mean difference second − first on the same heads (rows matched), with its interval over subjects.

    Pairing removes the spread between easy and difficult heads, which is much larger than that between methods. Metrics that only
    one of the two has are left out.
    """
    differences = {name: np.asarray(second[name]) - np.asarray(first[name]) for name in first if name in second}
    return bootstrap(differences, subjects, rng, rounds)
