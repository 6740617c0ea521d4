"""Inputs and results of scoring: settings, reconstructions, the scores of a head and of a method, and their means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Floats, Labels
from facegraft.seeds import score_rng
from facegraft.vocabulary import REM
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.bootstrap import Interval, bootstrap

FULL = "full"
"""Name of the region that is the whole head."""
ITEM_COLUMNS = ("key", "subject", "expression", "split", "origin")


def regions_of(parts: Iterable[str]) -> tuple[str, ...]:
    """The regions of a head that are scored, in the order of the tables: the whole head, each part in cascade order, the remainder."""
    return (FULL, *parts, REM)


@dataclass(frozen=True)
class ScoreSettings:
    """Settings of scoring. Two results are comparable when their settings and their truth are the same.

    alignment "icp": score twice, without alignment and after rigid ICP onto the truth (whole heads, at most 20 point-to-plane steps).
    labels "truth": a point of the reconstruction has the part of the true surface nearest to it; "model": its own part label.
    seed: of the random points. A head gets the same true points for every method. workers: threads of the cloud searches.
    """

    full_points: int = 150_000
    part_points: int = 6_000
    taus_mm: tuple[float, ...] = (0.5, 1.0, 2.0)
    alignment: Literal["none", "icp"] = "none"
    labels: Literal["truth", "model"] = "truth"
    seed: int = 0
    bootstrap_rounds: int = 2000
    icp_points: int = 10_000
    icp_iterations: int = 20
    workers: int = field(default=1, compare=False)

    def __post_init__(self) -> None:
        for name in ("full_points", "part_points", "bootstrap_rounds", "icp_points", "icp_iterations", "workers"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} of the scores must be at least 1, but is {getattr(self, name)}")
        if not self.taus_mm or min(self.taus_mm) <= 0.0:
            raise ModelError(f"taus_mm of the scores must be lengths above 0 mm, not {list(self.taus_mm)}")
        if self.alignment not in ("none", "icp") or self.labels not in ("truth", "model"):
            raise ModelError(
                f"alignment is none or icp and labels truth or model, not {self.alignment!r} and {self.labels!r}"
            )
        if self.seed < 0:
            raise ModelError(f"the seed of the scores must not be negative, but is {self.seed}")

    @property
    def alignments(self) -> tuple[str, ...]:
        return ("none",) if self.alignment == "none" else ("none", "icp")


class Reconstruction(NamedTuple):
    """A decoded item: index row with at least "key"; vertices [V, 3] in mm, faces [F, 3]; the model's part labels [V] if they are used."""

    item: Mapping[str, Any]
    vertices: NDArray[Any]
    faces: NDArray[Any]
    parts: Labels | None = None


RegionScores = dict[str, dict[str, float]]
"""Values by region and metric."""


@dataclass(frozen=True)
class HeadScores:
    """Scores of one head: by alignment, region and metric; the floor by region and metric.

    excluded_percent: share of the reconstruction's area that is not scored, by alignment. icp: the rigid motion that was found.
    """

    item: dict[str, Any]
    scores: dict[str, RegionScores]
    floor: RegionScores
    excluded_percent: dict[str, float]
    icp: dict[str, Any] | None = None


@dataclass(frozen=True)
class Failure:
    """A head that could not be scored, with the reason."""

    key: str
    subject: str
    reason: str


@dataclass(frozen=True)
class Scores:
    """Scores of one method on a set of heads, with the `settings` of scoring and a `record` of the model and data.

    training_seeds: of the models. After merging runs there are several, and `over_seeds` has the spread of the means over them.
    """

    method: str
    settings: dict[str, Any]
    record: dict[str, Any]
    training_seeds: list[int | None]
    heads: list[HeadScores]
    failures: list[Failure]
    over_seeds: dict[str, Any] | None = None
    disentanglement: Any = None

    def summary(self, alignment: str = "none") -> dict[str, dict[str, Interval]]:
        """By region and metric, the mean over heads with its interval over subjects. Raises ModelError for an alignment not scored."""
        if alignment not in self.settings["alignments"]:
            raise ModelError(
                f"{self.method} was not scored with alignment {alignment!r}; it has {', '.join(self.settings['alignments'])}"
            )
        return self._intervals(lambda head: head.scores[alignment])

    def floor(self) -> dict[str, dict[str, Interval]]:
        """By region and metric, the mean floor over heads."""
        return self._intervals(lambda head: head.floor)

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the heads, in cascade order."""
        return tuple(self.settings["parts"])

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that were scored."""
        return regions_of(self.parts)

    @property
    def subjects(self) -> list[str]:
        """Subject of each head; for a composite, the recipient."""
        return [str(head.item["subject"]) for head in self.heads]

    def _intervals(self, of: Callable[[HeadScores], RegionScores]) -> dict[str, dict[str, Interval]]:
        if not self.heads:
            return {}
        rounds = int(self.settings["bootstrap_rounds"])
        return {
            region: bootstrap(values, self.subjects, bootstrap_rng(self.settings), rounds)
            for region, values in columns_of([of(head) for head in self.heads]).items()
        }


def bootstrap_rng(settings: Mapping[str, Any]) -> np.random.Generator:
    """The generator of the draws, the same for every region and method, so that they do not depend on the rest of a file."""
    return score_rng(int(settings["seed"]), "bootstrap")


def columns_of(heads: Sequence[RegionScores]) -> dict[str, dict[str, Floats]]:
    """By region and metric, the values [n] of the heads."""
    return {
        region: {metric: np.array([head[region][metric] for head in heads]) for metric in metrics}
        for region, metrics in heads[0].items()
    }
