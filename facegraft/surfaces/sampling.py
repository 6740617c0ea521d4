"""Random points on, near and around a surface.

Everything is drawn from the generator that is passed in. Every set is in random order: any contiguous window of it is
a uniform random subset, so a reader may take slices.

Normals of surface points are the exact normals of the faces they lie on, not interpolated ones: they are the
gradient of the signed distance to the same mesh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facegraft.arrays import Floats, Ints, Labels
from facegraft.lazily import lazy_import
from facegraft.surfaces.errors import SamplingError
from facegraft.surfaces.normals import face_cross

_ROUNDS = 50
"""Draws of `sample_around` before it gives up: then less than a hundredth of what is drawn is where it is wanted."""


@dataclass(frozen=True)
class SurfaceSamples:
    """n points on a surface, in random order.

    points      [n, 3] f64
    normals     [n, 3] f64   unit normals of the faces, outward for an outward-oriented mesh
    parts       [n]    u8    part label of the face
    face_index  [n]    i64
    """

    points: Floats
    normals: Floats
    parts: Labels
    face_index: Ints

    def __len__(self) -> int:
        return len(self.points)

    def take(self, rows: NDArray[Any]) -> SurfaceSamples:
        """A subset of the points, by index [m] or mask [n]."""
        return SurfaceSamples(self.points[rows], self.normals[rows], self.parts[rows], self.face_index[rows])

    @staticmethod
    def concatenated(several: Sequence[SurfaceSamples]) -> SurfaceSamples:
        """The points of several sets, concatenated."""
        columns = ("points", "normals", "parts", "face_index")
        return SurfaceSamples(*(np.concatenate([getattr(one, name) for one in several]) for name in columns))


def sample_surface(
    vertices: ArrayLike,
    faces: ArrayLike,
    n: int,
    rng: np.random.Generator,
    *,
    labels: ArrayLike | None = None,
    balanced: float = 0.0,
    face_mask: ArrayLike | None = None,
) -> SurfaceSamples:
    """Draw n independent random points on a mesh, vertices [V, 3], faces [F, 3].

    A share 1 - balanced of the points (rounded) is uniform by area. The rest is split equally among the parts that have
    any area, and is uniform by area within each. `labels` [F] are the faces' part labels (all 0 if not given);
    faces outside `face_mask` [F] are left out, for instance the ball behind a clipped face.
    Points are exact to the rounding of float64 (a float32 copy is within 6e-8 of the surface in unit coordinates).
    Raises SamplingError for a surface without area or a share outside 0..1.
    """
    v = np.asarray(vertices, dtype=np.float64)
    f = np.asarray(faces, dtype=np.int64)
    parts = np.zeros(len(f), dtype=np.uint8) if labels is None else np.asarray(labels, dtype=np.uint8)
    if parts.shape != (len(f),):
        raise SamplingError(f"face labels must be {len(f)} numbers, one a face, not {list(parts.shape)}")
    if not 0.0 <= balanced <= 1.0:
        raise SamplingError(f"the balanced share is {balanced}; it must lie between 0 and 1")
    if n < 0:
        raise SamplingError(f"cannot draw {n} points")
    cross = face_cross(v, f)
    double_area = np.linalg.norm(cross, axis=1)
    areas = double_area if face_mask is None else np.where(np.asarray(face_mask, dtype=bool), double_area, 0.0)
    if not (np.isfinite(areas).all() and areas.sum() > 0.0):
        raise SamplingError("cannot sample the surface: its area is zero or not finite")

    dealt = round(n * balanced)
    counts = rng.multinomial(n - dealt, areas / areas.sum())
    if dealt:
        present = [label for label in range(int(parts.max()) + 1) if areas[parts == label].sum() > 0.0]
        for label, quota in zip(present, _equal_shares(dealt, len(present)), strict=True):
            own = np.flatnonzero(parts == label)
            counts[own] += rng.multinomial(quota, areas[own] / areas[own].sum())
    index = np.repeat(np.arange(len(f), dtype=np.int32), counts)
    rng.shuffle(index)

    normals = cross / np.where(double_area > 0.0, double_area, 1.0)[:, None]
    u, w = rng.random((2, n))
    over = u + w > 1.0  # fold the parallelogram onto the triangle
    u, w = np.where(over, 1.0 - u, u), np.where(over, 1.0 - w, w)
    corner, second, third = (v.take(f[:, i], axis=0) for i in range(3))
    points = (second - corner).take(index, axis=0)  # np.take is several times as fast as indexing
    points *= u[:, None]
    side = (third - corner).take(index, axis=0)
    side *= w[:, None]
    points += side
    points += corner.take(index, axis=0)
    return SurfaceSamples(points, normals.take(index, axis=0), parts.take(index), index.astype(np.int64))


def sample_around(
    vertices: ArrayLike,
    faces: ArrayLike,
    n: int,
    rng: np.random.Generator,
    centres: ArrayLike,
    radius: float,
    *,
    inside: bool = True,
    labels: ArrayLike | None = None,
    face_mask: ArrayLike | None = None,
) -> SurfaceSamples:
    """n random points, uniform by area, on what of a surface is within `radius` of any of the centres [k, 3], or (inside=False) of none.

    labels and face_mask as for `sample_surface`. Raises SamplingError where the surface has next to nothing there.
    """
    v, f = np.asarray(vertices, dtype=np.float64), np.asarray(faces, dtype=np.int64)
    around = np.asarray(centres, dtype=np.float64)

    def nearest(points: Floats) -> Floats:
        distances: Floats = np.linalg.norm(points[:, None] - around, axis=2).min(axis=1)
        return distances

    mask = np.ones(len(f), dtype=bool) if face_mask is None else np.asarray(face_mask, dtype=bool)
    if inside:  # no point of a face is farther from a corner than its longest edge: leave out faces that cannot reach
        corners = v[f]
        longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
        mask = mask & (nearest(v)[f].min(axis=1) <= radius + longest)
    found: list[SurfaceSamples] = []
    missing, rounds = n, 0
    while missing:
        if not mask.any() or rounds == _ROUNDS:
            where = f"within {radius:g} of the points of interest" if inside else f"beyond {radius:g} of the points of interest"
            raise SamplingError(f"cannot sample the surface {where}: it has {'little' if found else 'nothing'} there")
        drawn = sample_surface(v, f, max(2 * missing, 1000), rng, labels=labels, face_mask=mask)
        kept = np.flatnonzero((nearest(drawn.points) <= radius) == inside)[:missing]
        if len(kept):
            found.append(drawn.take(kept))
        missing, rounds = missing - len(kept), rounds + 1
    return SurfaceSamples.concatenated(found or [sample_surface(v, f, 0, rng, labels=labels)])


def near_points(surface_points: ArrayLike, sigmas: ArrayLike, rng: np.random.Generator) -> tuple[Floats, Ints]:
    """Move surface points [n, 3] off the surface: x + sigma * N(0, I), isotropic as DeepSDF does.

    `sigmas` [k] are standard deviations in the unit of the points; each applies to n/k of the points (rounded), at random.
    Returns the moved points [n, 3] and the band of each, an index [n] into sigmas.
    """
    points = np.asarray(surface_points, dtype=np.float64)
    spread = np.atleast_1d(np.asarray(sigmas, dtype=np.float64))
    if len(spread) == 0 or not (np.isfinite(spread) & (spread > 0.0)).all():
        raise SamplingError(f"near-surface bands need positive sigmas, not {spread.tolist()}")
    band = np.repeat(np.arange(len(spread)), _equal_shares(len(points), len(spread)))
    rng.shuffle(band)
    moved = rng.standard_normal(points.shape)
    moved *= spread.take(band)[:, None]
    moved += points
    return moved, band


def free_points(n: int, rng: np.random.Generator, radius: float = 1.0) -> Floats:
    """Draw n points [n, 3] uniformly from the ball of a radius around the origin."""
    directions = rng.standard_normal((n, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return np.asarray(directions * (radius * np.cbrt(rng.random(n)))[:, None])


def window_uniformity(categories: ArrayLike, start: int, stop: int) -> float:
    """p-value of the hypothesis that the window [start, stop) of a pre-shuffled set is a uniform random subset of it.

    `categories` [n] are small whole numbers (part labels, octants, bands). Pearson's chi-square of the window's counts
    against the whole set's shares, with the finite-population correction of drawing without replacement.
    """
    values = np.unique(np.asarray(categories), return_inverse=True)[1].ravel()
    total = np.bincount(values).astype(np.float64)
    n, size = len(values), stop - start
    if not 0 <= start < stop <= n or size == n or len(total) < 2:
        raise SamplingError(f"window [{start}, {stop}) of {n} values in {len(total)} categories cannot be tested")
    expected = total * (size / n)
    seen = np.bincount(values[start:stop], minlength=len(total))
    statistic = float(((seen - expected) ** 2 / expected).sum()) / (1.0 - size / n) * (n - 1) / n
    return float(lazy_import("scipy.special").chdtrc(len(total) - 1, statistic))


def _equal_shares(total: int, parts: int) -> list[int]:
    """Split a number into `parts` nearly equal whole numbers, the larger ones first."""
    return [total // parts + (1 if i < total % parts else 0) for i in range(parts)]
