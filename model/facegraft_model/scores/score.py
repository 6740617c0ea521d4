"""Scores of reconstructions against the true surfaces, by part: what `facegraft model evaluate` computes and writes.

Per head 150,000 points of each shape, and 6,000 of each part (10,000 is usual for whole heads), all uniform by area:
- full: the scored area of one shape against that of the other, both ways;
- a part: its points in one shape against the *whole* other shape, both ways (as i3DMM does), so that a part that has moved is an
  error, and the border of a part costs nothing.

What is scored: of the truth all but its cut faces (the neck's cap, the ball of a frontal solid: nobody's surface); of the
reconstruction all but points whose nearest true point lies on a cut face or on the rim of an open sheet. A reconstruction is
scored as it is handed over: nothing else is cropped, so whatever it has within the unit ball that it should not have counts.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from facegraft.store import write_bytes_atomic, write_json_atomic
from facegraft_model.errors import ModelError
from facegraft_model.scores.metrics import (
    CONFIDENCE,
    Bools,
    Cloud,
    Floats,
    Interval,
    Labels,
    Nearest,
    OneWay,
    Rigid,
    Sampled,
    Surface,
    SurfaceError,
    bootstrap,
    face_parts,
    floor_scores,
    normal_cosine,
    paired_bootstrap,
    rigid_icp,
    sample_surface,
    scores,
)
from facegraft_model.scores.truth import PART_NAMES, TrueHead, Truth

if TYPE_CHECKING:
    from facegraft_model.method import Codes, Field

REGIONS = ("full", "nose", "eyes", "mouth", "rem")
FORMAT, VERSION = "facegraft-scores", 1
SCORES_JSON, SCORES_CSV = "scores.json", "scores.csv"
CELL_MM = 4.0
"""Size of the cells by which a reconstruction's faces near a part are found; it changes how many are looked at, not the scores' law."""
ITEM_COLUMNS = ("key", "subject", "expression", "split", "origin")

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


@dataclass(frozen=True)
class ScoreSettings:
    """How reconstructions are scored. Two results are comparable when these, and the truth, are the same.

    alignment "icp": scored twice, as they are and after rigid ICP onto the truth (whole heads, at most 20 point-to-plane steps).
    labels "truth": a point of the reconstruction has the part of the true surface nearest to it; "model": its own part label.
    seed: of the points drawn. A head gets the same true points for every method. workers: threads of the cloud searches.
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
    """A decoded item: index row with at least "key"; vertices [V, 3] in mm, faces [F, 3]; own part labels [V] where they are to be used."""

    item: Mapping[str, Any]
    vertices: NDArray[Any]
    faces: NDArray[Any]
    parts: Labels | None = None


RegionScores = dict[str, dict[str, float]]
"""Region → metric → value."""


@dataclass(frozen=True)
class HeadScores:
    """Scores of one head: by alignment, region and metric; the floor by region and metric.

    excluded_percent: share of the reconstruction's area that is not scored, by alignment. icp: the motion found.
    """

    item: dict[str, Any]
    scores: dict[str, RegionScores]
    floor: RegionScores
    excluded_percent: dict[str, float]
    icp: dict[str, Any] | None = None


@dataclass(frozen=True)
class Failure:
    """A head that could not be scored, and why."""

    key: str
    subject: str
    reason: str


@dataclass(frozen=True)
class Scores:
    """Scores of one method on some heads. `settings` says how they were taken, `record` what was scored, in words and numbers.

    training_seeds: of the models; several when runs were merged, and then `over_seeds` has the spread of the means over them.
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
        """Region → metric → mean over heads with its interval over subjects. Raises ModelError for an alignment not scored."""
        if alignment not in self.settings["alignments"]:
            raise ModelError(
                f"{self.method} was not scored with alignment {alignment!r}; it has {', '.join(self.settings['alignments'])}"
            )
        return self._intervals(lambda head: head.scores[alignment])

    def floor(self) -> dict[str, dict[str, Interval]]:
        """Region → metric → mean floor over heads."""
        return self._intervals(lambda head: head.floor)

    @property
    def subjects(self) -> list[str]:
        """Subject of each head; of a composite, the recipient's."""
        return [str(head.item["subject"]) for head in self.heads]

    def _intervals(self, of: Callable[[HeadScores], RegionScores]) -> dict[str, dict[str, Interval]]:
        if not self.heads:
            return {}
        rounds = int(self.settings["bootstrap_rounds"])
        return {
            region: bootstrap(values, self.subjects, _bootstrap_rng(self.settings), rounds)
            for region, values in _columns([of(head) for head in self.heads]).items()
        }


def evaluate(
    decoded: Iterable[Reconstruction | Failure | tuple[Any, ...]],
    truth: Truth,
    settings: ScoreSettings,
    *,
    method: str,
    landmarks: str,
    resolution: int | None,
    training_seed: int | None,
    record: Mapping[str, Any] | None = None,
    disentanglement: Any = None,
    on_head: Callable[[HeadScores | Failure], None] | None = None,
) -> Scores:
    """Score reconstructions, one after the other as they are decoded.

    decoded: Reconstructions, tuples (item, vertices in mm, faces), or Failures where nothing could be decoded. landmarks: which
    ones the fits used ("none"). resolution: of the grid that the meshes were extracted on, None for meshes of another kind.
    training_seed: of the model, None where nothing was trained. record: anything else that belongs to the result.
    A mesh that is empty, not finite, or has nothing of a part becomes a Failure; it is counted, and never silently left out.
    Raises ModelError for no items, an item twice, or a truth without one of the parts.
    """
    heads: list[HeadScores] = []
    failures: list[Failure] = []
    seen: set[str] = set()
    for entry in decoded:
        key = entry.key if isinstance(entry, Failure) else str(entry[0]["key"])
        if key in seen:
            raise ModelError(f"item {key} of {method} is given twice; each head is scored once")
        seen.add(key)
        result = (
            entry if isinstance(entry, Failure) else _score_or_fail(truth.head(key), Reconstruction(*entry), settings)
        )
        if isinstance(result, Failure):
            failures.append(result)
        else:
            heads.append(result)
        if on_head is not None:
            on_head(result)
    if not seen:
        raise ModelError(f"{method}: no reconstructions to score; the fits hold no items")
    return Scores(
        method=method,
        settings=_settings_record(settings, truth),
        record={"landmarks": landmarks, "resolution": resolution, **(record or {})},
        training_seeds=[training_seed],
        heads=heads,
        failures=failures,
        disentanglement=disentanglement,
    )


def _score_or_fail(head: TrueHead, reconstruction: Reconstruction, settings: ScoreSettings) -> HeadScores | Failure:
    try:
        return score_head(head, reconstruction, settings)
    except SurfaceError as error:
        return Failure(head.key, head.subject, str(error))


def decode_items(
    field: Field,
    items: Sequence[Mapping[str, Any]],
    codes_of: Callable[[int], Codes],
    truth: Truth,
    *,
    resolution: int = 256,
    mode: Literal["sparse", "dense"] = "sparse",
    to_model: Floats | None = None,
) -> Iterator[Reconstruction | Failure]:
    """Decode fitted heads one after the other, in mm of the true head, for `evaluate`.

    items: index rows with key and subject. codes_of(i): codes [1, dim] of item i, without "exp" for a neutral head. to_model
    [I, 4, 4] (column vectors): how the fit moved each item's unit coordinates; its inverse is applied before the item's to_mm.
    A field without a surface becomes a Failure; anything else that `decode` refuses is raised.
    """
    from facegraft_model.meshes.extract import EmptyFieldError, decode

    for i, item in enumerate(items):
        try:
            decoded = decode(field, codes_of(i), resolution=resolution, mode=mode)
        except EmptyFieldError as error:
            yield Failure(str(item["key"]), str(item["subject"]), str(error))
            continue
        vertices = decoded.mesh.vertices
        if to_model is not None:
            back = np.linalg.inv(np.asarray(to_model[i], dtype=np.float64))
            vertices = vertices @ back[:3, :3].T + back[:3, 3]
        yield Reconstruction(item, truth.in_mm(str(item["key"]), vertices), decoded.mesh.faces, decoded.parts)


def score_head(truth: TrueHead, reconstruction: Reconstruction, settings: ScoreSettings) -> HeadScores:
    """All scores of one head. Raises SurfaceError when the reconstruction cannot be scored, ModelError when the truth cannot."""
    surface = Surface(reconstruction.vertices, reconstruction.faces)
    own = None
    if settings.labels == "model":
        if reconstruction.parts is None:
            raise ModelError(f"item {truth.key} comes without part labels of the model; score with labels=truth")
        own = face_parts(reconstruction.parts, reconstruction.faces)
    drawn = _draw_truth(truth, settings, "truth")
    cloud = Cloud(drawn["full"].points, settings.workers)
    floor = _floor(truth, drawn, cloud, settings)
    results: dict[str, RegionScores] = {}
    excluded: dict[str, float] = {}
    motion: Rigid | None = None
    for alignment in settings.alignments:
        if alignment == "icp":
            motion = _align(truth, surface, settings)
            surface = Surface(motion.apply(surface.vertices), surface.faces)
        scored = _ScoredReconstruction(truth, surface, own, settings)
        results[alignment] = _score_regions(truth, drawn, cloud, scored, settings)
        excluded[alignment] = scored.excluded_percent
    row = {**truth.row, **reconstruction.item}
    item = {name: row.get(name) for name in ITEM_COLUMNS} | {"subject": truth.subject}
    return HeadScores(item, results, floor, excluded, None if motion is None else _describe_motion(motion))


def write_scores(folder: str | os.PathLike[str], scores: Scores) -> None:
    """Write FOLDER/scores.json (everything) and FOLDER/scores.csv (a row per head, alignment and region, and the floors), each atomically."""
    write_bytes_atomic(Path(folder) / SCORES_CSV, _csv(scores))
    write_json_atomic(Path(folder) / SCORES_JSON, to_json(scores))


def read_scores(path: str | os.PathLike[str]) -> Scores:
    """Scores as written: a folder or a scores.json. Raises ModelError for anything else."""
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
    """The content of scores.json. The key "disentanglement" holds that part of the evaluation, or null."""
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


def merge_scores(runs: Sequence[Scores]) -> Scores:
    """One result out of the same method trained with several seeds and scored in the same way.

    A head's scores become their mean over the runs (heads that failed in any run are failures), so that intervals over subjects
    keep their meaning; `over_seeds` has, by alignment, region and metric, the mean of each run and their standard deviation.
    Raises ModelError for no runs, other methods, other settings, the same seed twice, or runs on other heads.
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
    """Region → metric → mean difference second − first on the heads that both have, with its interval over subjects.

    Raises ModelError when the two were scored in different ways or have no head in common.
    """
    check_comparable(first, second)
    for scored in (first, second):
        scored.summary(alignment)  # says which alignment is missing
    others = {str(head.item["key"]): head for head in second.heads}
    pairs = [(head, others[str(head.item["key"])]) for head in first.heads if str(head.item["key"]) in others]
    if not pairs:
        raise ModelError(f"{first.method} and {second.method} have no scored head in common")
    rounds = int(first.settings["bootstrap_rounds"])
    before, after = (_columns([pair[i].scores[alignment] for pair in pairs]) for i in (0, 1))
    subjects = [str(head.item["subject"]) for head, _ in pairs]
    return {
        region: paired_bootstrap(before[region], after[region], subjects, _bootstrap_rng(first.settings), rounds)
        for region in before
    }


def _bootstrap_rng(settings: Mapping[str, Any]) -> np.random.Generator:
    """The same draws for every region and method, so that they do not depend on what else is in a file."""
    return _rng(int(settings["seed"]), "bootstrap")


class _ScoredReconstruction:
    """Points of a reconstruction with their nearest true points; those whose truth is no real surface are drawn again."""

    def __init__(self, truth: TrueHead, surface: Surface, own: Labels | None, settings: ScoreSettings) -> None:
        self.truth, self.surface, self.own, self.settings = truth, surface, own, settings
        self.rng = _rng(settings.seed, truth.key, "reconstruction")
        self._bound: Floats | None = None
        self.full, self.full_nearest, kept = self._draw("full", settings.full_points)
        self.excluded_percent = 100.0 * (1.0 - kept)

    def part(self, name: str) -> tuple[Sampled, Nearest]:
        points, nearest, _ = self._draw(name, self.settings.part_points)
        return points, nearest

    def _draw(self, region: str, count: int) -> tuple[Sampled, Nearest, float]:
        """`count` points of a region by rejection, so uniform over it; also the share of drawn points that were kept.

        Raises SurfaceError when next to nothing of the reconstruction belongs to the region.
        """
        faces = None if region == "full" else self._candidates(region)
        kept: list[tuple[Sampled, Nearest]] = []
        drawn = found = 0
        most = 50 * count
        while found < count:
            rate = 0.9 if drawn == 0 else max(found / drawn, 0.02)
            batch = max(int(1.05 * (count - found) / rate), 1000)
            if drawn + batch > most:
                raise SurfaceError(
                    f"the reconstruction has no surface to score of region {region!r} (found {found} of {count} points)"
                )
            sampled = sample_surface(self.surface, batch, self.rng, faces)
            nearest = self.truth.surface.nearest(sampled.points)
            keep = self.truth.is_real(nearest) & self._belongs(region, sampled, nearest)
            rows = np.flatnonzero(keep)
            kept.append((sampled.take(rows), _take(nearest, rows)))
            drawn, found = drawn + batch, found + len(rows)
        points = Sampled(np.concatenate([s.points for s, _ in kept]), np.concatenate([s.face for s, _ in kept]))
        nearest = Nearest(
            np.concatenate([n.distance for _, n in kept]),
            np.concatenate([n.face for _, n in kept]),
            np.concatenate([n.point for _, n in kept]),
        )
        # The points lie in the order of the faces, which speeds up searches: so a random choice of them, not the first.
        rows = np.sort(self.rng.permutation(found)[:count])
        return points.take(rows), _take(nearest, rows), found / drawn

    def _belongs(self, region: str, sampled: Sampled, nearest: Nearest) -> Bools:
        if region == "full":
            return np.ones(len(sampled), dtype=bool)
        labels = self.truth.parts[nearest.face] if self.own is None else self.own[sampled.face]
        return np.asarray(labels == PART_NAMES.index(region))

    def _candidates(self, region: str) -> Bools:
        """Faces [F] that can hold points of a part: all that do, and few others.

        Let v be a face's first corner, r its longest edge from there, p a point of the face, and q its nearest true point, with the
        part's label. Then q lies in the part's box and |v − q| ≤ |v − p| + |p − q| ≤ r + (r + d(v)), d the distance to the truth.
        """
        label = PART_NAMES.index(region)
        if self.own is not None:
            chosen = self.own == label
            if not chosen.any():
                raise SurfaceError(f"the model labels nothing of the reconstruction {region!r}")
            return np.asarray(chosen)
        if label == 0:
            return np.ones(len(self.surface.faces), dtype=bool)
        corners = self.truth.vertices[self.truth.faces[self.truth.parts == label]].reshape(-1, 3)
        low, high = corners.min(axis=0), corners.max(axis=0)
        a, b, c = (self.surface.vertices[self.surface.faces[:, i]] for i in range(3))
        reach = np.maximum(np.linalg.norm(b - a, axis=1), np.linalg.norm(c - a, axis=1))
        outside = np.linalg.norm(np.maximum(np.maximum(low - a, a - high), 0.0), axis=1)
        chosen = outside <= 2.0 * reach + self._distance_bound()[self.surface.faces[:, 0]]
        if not (chosen & (self.surface.areas > 0.0)).any():
            raise SurfaceError(f"the reconstruction has no surface to score of region {region!r}")
        return np.asarray(chosen)

    def _distance_bound(self) -> Floats:
        """At most so far [V] is each vertex from the truth: the distance of the middle of its cell, and the way there.

        A tenth as many searches as for the distances themselves.
        """
        if self._bound is None:
            cells = np.floor(self.surface.vertices / CELL_MM).astype(np.int64)
            low = cells.min(axis=0)
            extent = cells.max(axis=0) - low + 1
            number = ((cells - low) @ np.array([extent[1] * extent[2], extent[2], 1])).astype(np.int64)
            _, first, place = np.unique(number, return_index=True, return_inverse=True)
            middle = np.asarray((cells[first] + 0.5) * CELL_MM, dtype=np.float64)
            place = place.ravel()
            way = np.linalg.norm(self.surface.vertices - middle[place], axis=1)
            self._bound = np.asarray(self.truth.surface.nearest(middle).distance[place] + way, dtype=np.float64)
        return self._bound


def _draw_truth(truth: TrueHead, settings: ScoreSettings, purpose: str) -> dict[str, Sampled]:
    """Points of every region of the truth, off its cut faces. Raises ModelError where it has nothing of a region."""
    rng = _rng(settings.seed, truth.key, purpose)
    drawn = {}
    for region in REGIONS:
        faces = ~truth.cut if region == "full" else ~truth.cut & (truth.parts == PART_NAMES.index(region))
        count = settings.full_points if region == "full" else settings.part_points
        try:
            drawn[region] = sample_surface(truth.surface, count, rng, faces)
        except SurfaceError as error:
            raise ModelError(
                f"the true surface of item {truth.key} has nothing of region {region!r}: {error}"
            ) from error
    return drawn


def _floor(truth: TrueHead, drawn: Mapping[str, Sampled], cloud: Cloud, settings: ScoreSettings) -> RegionScores:
    """The scores of a second, independent sampling of the truth in the place of the reconstruction."""
    again = _draw_truth(truth, settings, "floor")
    other = Cloud(again["full"].points, settings.workers)
    return {
        region: floor_scores(
            other.distances(drawn[region].points), cloud.distances(again[region].points), settings.taus_mm
        )
        for region in REGIONS
    }


def _score_regions(
    truth: TrueHead, drawn: Mapping[str, Sampled], cloud: Cloud, scored: _ScoredReconstruction, settings: ScoreSettings
) -> RegionScores:
    own_cloud = Cloud(scored.full.points, settings.workers)
    result = {}
    for region in REGIONS:
        points, nearest = (scored.full, scored.full_nearest) if region == "full" else scored.part(region)
        backward = OneWay(
            cloud.distances(points.points),
            nearest.distance,
            normal_cosine(scored.surface.normals[points.face], truth.surface.normals[nearest.face]),
        )
        true = drawn[region]
        found = scored.surface.nearest(true.points)
        forward = OneWay(
            own_cloud.distances(true.points),
            found.distance,
            normal_cosine(truth.surface.normals[true.face], scored.surface.normals[found.face]),
        )
        result[region] = scores(forward, backward, settings.taus_mm)
    return result


def _align(truth: TrueHead, surface: Surface, settings: ScoreSettings) -> Rigid:
    """Rigid ICP of the reconstruction onto the truth, by points of the whole head."""
    points = sample_surface(surface, settings.icp_points, _rng(settings.seed, truth.key, "icp")).points

    def correspond(moved: Floats) -> tuple[Floats, Floats, Bools]:
        nearest = truth.surface.nearest(moved)
        return nearest.point, truth.surface.normals[nearest.face], truth.is_real(nearest)

    return rigid_icp(points, correspond, settings.icp_iterations)


def _describe_motion(motion: Rigid) -> dict[str, Any]:
    return {
        "matrix": motion.matrix.tolist(),
        "rotation_degrees": motion.degrees,
        "iterations": motion.iterations,
        "rms_before_mm": motion.rms_before,
        "rms_after_mm": motion.rms_after,
    }


def _take(nearest: Nearest, rows: NDArray[Any]) -> Nearest:
    return Nearest(nearest.distance[rows], nearest.face[rows], nearest.point[rows])


def _rng(seed: int, *names: str) -> np.random.Generator:
    """A generator of its own for every head and purpose, so that results do not depend on which other heads are scored."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, dtype="<u4").tolist()])


def _settings_record(settings: ScoreSettings, truth: Truth) -> dict[str, Any]:
    record = asdict(settings)
    record.pop("workers")  # changes nothing but the time
    return {
        **record,
        "taus_mm": list(settings.taus_mm),
        "alignments": list(settings.alignments),
        "confidence": CONFIDENCE,
        "truth": truth.describe(),
    }


def check_comparable(first: Scores, second: Scores) -> None:
    """Raises ModelError, naming the first setting that differs."""
    # Where the truth lies does not matter, nor how it was sampled for the fit: only what it is.
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


def _columns(heads: Sequence[RegionScores]) -> dict[str, dict[str, Floats]]:
    """Region → metric → values of the heads [n]."""
    return {
        region: {metric: np.array([head[region][metric] for head in heads]) for metric in metrics}
        for region, metrics in heads[0].items()
    }


def _mean_of(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([table[name] for table in tables])) for name in tables[0]}


def _over_seeds(tables: Sequence[Mapping[str, HeadScores]], keys: Sequence[str], alignment: str) -> dict[str, Any]:
    """Region → metric → the mean over heads of each run, and the standard deviation of these means (null for one run)."""
    runs = [_columns([table[key].scores[alignment] for key in keys]) for table in tables]
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


__all__ = [
    "DEFINITIONS",
    "REGIONS",
    "Failure",
    "HeadScores",
    "Reconstruction",
    "ScoreSettings",
    "Scores",
    "check_comparable",
    "compare_scores",
    "decode_items",
    "evaluate",
    "merge_scores",
    "read_scores",
    "score_head",
    "to_json",
    "write_scores",
]
