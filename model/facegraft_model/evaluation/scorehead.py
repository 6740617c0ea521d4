"""All scores of one head.

Each head is scored with 150,000 points of each shape and 6,000 of each part (10,000 is usual for whole heads), uniform by area:
- full: the scored area of one shape against that of the other, both ways;
- a part: its points in one shape against the *whole* other shape, both ways (as i3DMM does), so that a part that has moved is an
  error, but its border is not.

Cut faces of the truth (the neck's cap, the ball of a frontal solid) are not part of the head and are not scored; neither are
points of the reconstruction whose nearest true point lies on a cut face or on the rim of an open sheet. Nothing else is cropped
from the reconstruction: a stray piece in the unit ball counts as an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from facegraft.arrays import Bools, Floats, Labels
from facegraft.seeds import score_rng
from facegraft.surfaces.errors import SurfaceError
from facegraft.surfaces.icp import Rigid, rigid_icp
from facegraft.surfaces.labels import face_labels
from facegraft.surfaces.nearest import Nearest
from facegraft.surfaces.sampling import SurfaceSamples, sample_surface
from facegraft.surfaces.surface import Surface
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.metrics import (
    Cloud,
    OneWay,
    floor_scores,
    normal_cosine,
    scores,
)
from facegraft_model.evaluation.records import (
    FULL,
    ITEM_COLUMNS,
    HeadScores,
    Reconstruction,
    RegionScores,
    ScoreSettings,
    regions_of,
)
from facegraft_model.evaluation.truth import TrueHead

CELL_MM = 4.0
"""Size of the cells for finding a reconstruction's faces near a part; it affects the number of candidates, not the distribution
of the scores."""


def score_head(truth: TrueHead, reconstruction: Reconstruction, settings: ScoreSettings) -> HeadScores:
    """All scores of one head. Raises SurfaceError when the reconstruction cannot be scored, ModelError when the truth cannot."""
    surface = Surface(reconstruction.vertices, reconstruction.faces)
    own = None
    if settings.labels == "model":
        if reconstruction.parts is None:
            raise ModelError(f"item {truth.key} has no part labels of the model; score with labels=truth")
        own = face_labels(reconstruction.parts, reconstruction.faces)
    drawn = _draw_truth(truth, settings, "truth")
    cloud = Cloud(drawn[FULL].points, settings.workers)
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


class _ScoredReconstruction:
    """Points of a reconstruction with their nearest true points; points that are not scored are replaced by new draws."""

    def __init__(self, truth: TrueHead, surface: Surface, own: Labels | None, settings: ScoreSettings) -> None:
        self.truth, self.surface, self.own, self.settings = truth, surface, own, settings
        self.rng = score_rng(settings.seed, truth.key, "reconstruction")
        self._bound: Floats | None = None
        self.full, self.full_nearest, kept = self._draw(FULL, settings.full_points)
        self.excluded_percent = 100.0 * (1.0 - kept)

    def part(self, name: str) -> tuple[SurfaceSamples, Nearest]:
        points, nearest, _ = self._draw(name, self.settings.part_points)
        return points, nearest

    def _draw(self, region: str, count: int) -> tuple[SurfaceSamples, Nearest, float]:
        """`count` points of a region by rejection sampling (so uniform over it), and the share of drawn points that were kept.

        Raises SurfaceError when almost none of the reconstruction belongs to the region.
        """
        faces = None if region == FULL else self._candidates(region)
        kept: list[tuple[SurfaceSamples, Nearest]] = []
        drawn = found = 0
        most = 50 * count
        while found < count:
            rate = 0.9 if drawn == 0 else max(found / drawn, 0.02)
            batch = max(int(1.05 * (count - found) / rate), 1000)
            if drawn + batch > most:
                raise SurfaceError(
                    f"the reconstruction has no surface to score of region {region!r} (found {found} of {count} points)"
                )
            sampled = sample_surface(self.surface.vertices, self.surface.faces, batch, self.rng, face_mask=faces)
            nearest = self.truth.surface.nearest(sampled.points)
            keep = self.truth.is_real(nearest) & self._belongs(region, sampled, nearest)
            rows = np.flatnonzero(keep)
            kept.append((sampled.take(rows), nearest.take(rows)))
            drawn, found = drawn + batch, found + len(rows)
        points = SurfaceSamples.concatenated([samples for samples, _ in kept])
        nearest = Nearest(*(np.concatenate(column) for column in zip(*(near for _, near in kept), strict=True)))
        first = np.arange(count)  # they are in random order
        return points.take(first), nearest.take(first), found / drawn

    def _belongs(self, region: str, sampled: SurfaceSamples, nearest: Nearest) -> Bools:
        if region == FULL:
            return np.ones(len(sampled), dtype=bool)
        labels = self.truth.parts[nearest.face] if self.own is None else self.own[sampled.face_index]
        return np.asarray(labels == self.truth.vocabulary.label(region))

    def _candidates(self, region: str) -> Bools:
        """Mask [F] of the faces that may have points of a part: all that have some, and few others.

        Let v be a face's first corner, r its longest edge from there, p a point of the face, and q its nearest true point, with the
        part's label. Then q lies in the part's box and |v − q| ≤ |v − p| + |p − q| ≤ r + (r + d(v)), d the distance to the truth.
        """
        label = self.truth.vocabulary.label(region)
        if self.own is not None:
            chosen = self.own == label
            if not chosen.any():
                raise SurfaceError(f"the model labels no face of the reconstruction as {region!r}")
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
        """Upper bounds [V] of the vertices' distances to the truth: the distance from the middle of the vertex's cell, plus that to the middle.

        This needs a tenth of the searches for the distances themselves.
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


def _draw_truth(truth: TrueHead, settings: ScoreSettings, purpose: str) -> dict[str, SurfaceSamples]:
    """Points of every region of the truth, without its cut faces. Raises ModelError where the truth lacks a region."""
    rng = score_rng(settings.seed, truth.key, purpose)
    drawn = {}
    for region in regions_of(truth.vocabulary):
        full = region == FULL
        faces = ~truth.cut if full else ~truth.cut & (truth.parts == truth.vocabulary.label(region))
        count = settings.full_points if full else settings.part_points
        try:
            drawn[region] = sample_surface(truth.vertices, truth.faces, count, rng, face_mask=faces)
        except SurfaceError as error:
            raise ModelError(
                f"the true surface of item {truth.key} has nothing of region {region!r}: {error}"
            ) from error
    return drawn


def _floor(truth: TrueHead, drawn: Mapping[str, SurfaceSamples], cloud: Cloud, settings: ScoreSettings) -> RegionScores:
    """The floor: scores of a second, independent sampling of the truth instead of the reconstruction."""
    again = _draw_truth(truth, settings, "floor")
    other = Cloud(again[FULL].points, settings.workers)
    return {
        region: floor_scores(
            other.distances(drawn[region].points), cloud.distances(again[region].points), settings.taus_mm
        )
        for region in drawn
    }


def _score_regions(
    truth: TrueHead,
    drawn: Mapping[str, SurfaceSamples],
    cloud: Cloud,
    scored: _ScoredReconstruction,
    settings: ScoreSettings,
) -> RegionScores:
    own_cloud = Cloud(scored.full.points, settings.workers)
    result = {}
    for region, true in drawn.items():
        points, nearest = (scored.full, scored.full_nearest) if region == FULL else scored.part(region)
        backward = OneWay(
            cloud.distances(points.points),
            nearest.distance,
            normal_cosine(points.normals, truth.surface.normals[nearest.face]),
        )
        found = scored.surface.nearest(true.points)
        forward = OneWay(
            own_cloud.distances(true.points),
            found.distance,
            normal_cosine(true.normals, scored.surface.normals[found.face]),
        )
        result[region] = scores(forward, backward, settings.taus_mm)
    return result


def _align(truth: TrueHead, surface: Surface, settings: ScoreSettings) -> Rigid:
    """Rigid ICP of the reconstruction onto the truth, by points of the whole head."""
    rng = score_rng(settings.seed, truth.key, "icp")
    points = sample_surface(surface.vertices, surface.faces, settings.icp_points, rng).points

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
