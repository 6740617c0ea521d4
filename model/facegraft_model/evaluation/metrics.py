"""Distances between two surfaces in mm, and the scores made of them: pure functions of arrays.

Two kinds of distance are scored, because they answer different questions:
- between clouds of random points, as the literature does (SCD, F): comparable with published numbers, but never below a floor
  of 0.5 / √density that only says how dense the clouds were;
- from points to the exact surface (libigl's AABB tree): zero for a perfect reconstruction, whatever the number of points.

libigl and scipy are imported where they are used: training and fitting need neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facegraft.lazily import lazy_import
from facegraft_model.arrays import Bools, Floats, Ints, Labels
from facegraft_model.errors import ModelError

FLAT = 1e-12
"""Triangles below this share of the mean area have no normal of their own and are left out of nearest-point searches."""


class SurfaceError(ModelError):
    """A mesh that cannot be scored: empty, not finite, or without area."""


class Surface:
    """A triangle mesh with the search tree for exact nearest points.

    vertices [V, 3] f64, faces [F, 3] i64, normals [F, 3] f64 (unit, by the order of the corners), areas [F] f64.
    Raises SurfaceError for a mesh without faces or area, faces out of range, or coordinates that are not finite.
    """

    def __init__(self, vertices: ArrayLike, faces: ArrayLike) -> None:
        self.vertices = np.ascontiguousarray(vertices, dtype=np.float64)
        self.faces = np.ascontiguousarray(faces, dtype=np.int64)
        if (
            self.vertices.ndim != 2
            or self.vertices.shape[1:] != (3,)
            or self.faces.ndim != 2
            or self.faces.shape[1:] != (3,)
        ):
            raise SurfaceError(
                f"a mesh is vertices [V, 3] and faces [F, 3], not {self.vertices.shape} and {self.faces.shape}"
            )
        if not len(self.faces):
            raise SurfaceError("the mesh has no faces")
        if not np.isfinite(self.vertices).all():
            raise SurfaceError("the mesh has vertices that are not finite")
        if self.faces.min() < 0 or self.faces.max() >= len(self.vertices):
            raise SurfaceError(f"the mesh has faces with corners outside 0..{len(self.vertices) - 1}")
        a, b, c = (self.vertices[self.faces[:, i]] for i in range(3))
        cross = np.cross(b - a, c - a)
        length = np.linalg.norm(cross, axis=1)
        self.areas: Floats = 0.5 * length
        if not self.areas.sum() > 0.0:
            raise SurfaceError("the mesh has no area")
        self.normals: Floats = cross / np.where(length > 0.0, length, 1.0)[:, None]
        self._solid: Ints = np.flatnonzero(self.areas > FLAT * self.areas.mean())
        self._tree: Any = None

    def nearest(self, points: Floats) -> Nearest:
        """Exact nearest points of the surface for points [n, 3]."""
        igl = lazy_import("igl")
        solid = np.ascontiguousarray(self.faces[self._solid])
        if self._tree is None:
            self._tree = igl.AABB()
            self._tree.init(self.vertices, solid)
        if not len(points):
            return Nearest(np.empty(0), np.empty(0, np.int64), np.empty((0, 3)))
        _, index, closest = self._tree.squared_distance(self.vertices, solid, np.ascontiguousarray(points))
        closest = np.asarray(closest, dtype=np.float64)
        # The distance is taken from the nearest point: libigl's squared distance loses half its digits near zero.
        return Nearest(
            np.linalg.norm(points - closest, axis=1), self._solid[np.asarray(index, dtype=np.int64)], closest
        )


@dataclass(frozen=True)
class Nearest:
    """distance [n], face [n] on which the nearest point lies, and the nearest point [n, 3]."""

    distance: Floats
    face: Ints
    point: Floats


@dataclass(frozen=True)
class Sampled:
    """n random points of a surface: points [n, 3], and the face [n] of each. The order is that of the faces, not random."""

    points: Floats
    face: Ints

    def __len__(self) -> int:
        return len(self.points)

    def take(self, rows: NDArray[Any]) -> Sampled:
        return Sampled(self.points[rows], self.face[rows])


def sample_surface(surface: Surface, count: int, rng: np.random.Generator, faces: Bools | None = None) -> Sampled:
    """`count` independent points, uniform by area over the surface (over those faces alone where a mask [F] is given).

    Uniform in a triangle by folding the parallelogram. Raises SurfaceError when the chosen faces have no area.
    """
    areas = surface.areas if faces is None else np.where(faces, surface.areas, 0.0)
    total = areas.sum()
    if not total > 0.0:
        raise SurfaceError("the faces to sample have no area")
    face = np.repeat(np.arange(len(areas)), rng.multinomial(count, areas / total))
    u, w = rng.random((2, count))
    over = u + w > 1.0
    u, w = np.where(over, 1.0 - u, u)[:, None], np.where(over, 1.0 - w, w)[:, None]
    a, b, c = (surface.vertices[surface.faces[face, i]] for i in range(3))
    return Sampled(a + u * (b - a) + w * (c - a), face)


def face_parts(vertex_parts: ArrayLike, faces: ArrayLike) -> Labels:
    """Part label [F] of each face: that of its part vertices (the one that two of them agree on, where they differ).

    The loop that bounds a part is labelled 0, so a face belongs to a part as soon as one of its vertices does: the rule that the
    samples were labelled with.
    """
    a, b, c = np.asarray(vertex_parts, dtype=np.uint8)[np.asarray(faces, dtype=np.int64)].T
    middle = np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))
    return np.where(middle > 0, middle, np.maximum(np.maximum(a, b), c)).astype(np.uint8)


class Cloud:
    """A cloud of points [n, 3] to which nearest distances are asked. `workers`: threads of the search."""

    def __init__(self, points: Floats, workers: int = 1) -> None:
        spatial = lazy_import("scipy.spatial")
        # Midpoint splits build several times as fast as medians, and random points of a surface need no balance.
        self._tree = spatial.cKDTree(points, balanced_tree=False, compact_nodes=True)
        self._workers = workers

    def distances(self, points: Floats) -> Floats:
        """Distance [m] of each point to the nearest one of the cloud, unsquared."""
        distance, _ = self._tree.query(points, workers=self._workers)
        return np.asarray(distance, dtype=np.float64)


def symmetric_chamfer(forward: Floats, backward: Floats) -> float:
    """SCD: half the sum of the two mean nearest distances, unsquared (i3DMM, ImFace, Gu & Pears 2024)."""
    return 0.5 * (float(forward.mean()) + float(backward.mean()))


def f_score(forward: Floats, backward: Floats, tau: float) -> float:
    """100 × the harmonic mean of the shares of both directions that lie within `tau`; 0 where both shares are 0."""
    recall, precision = float((forward <= tau).mean()), float((backward <= tau).mean())
    return 0.0 if precision + recall == 0.0 else 200.0 * precision * recall / (precision + recall)


def describe(distances: Floats) -> dict[str, float]:
    """Mean, median, root mean square and 95th percentile."""
    return {
        "mean": float(distances.mean()),
        "median": float(np.median(distances)),
        "rms": float(np.sqrt(np.mean(distances**2))),
        "p95": float(np.percentile(distances, 95)),
    }


@dataclass(frozen=True)
class OneWay:
    """From n points of one shape to the other: nearest distance to its cloud and to its surface [n], |cos| of the normals [n]."""

    cloud: Floats
    surface: Floats
    cosine: Floats


def normal_cosine(normals: Floats, other: Floats) -> Floats:
    """|n · n'| [n] of the unit normals [n, 3] at points and at their nearest points on the other surface.

    Its mean over both directions is the normal consistency of Mescheder et al. 2019 (Occupancy Networks), here with exact nearest
    points instead of the nearest of a cloud. The absolute value makes it blind to a mesh that is inside out.
    """
    return np.asarray(np.abs(np.einsum("ni,ni->n", normals, other)))


def scores(truth: OneWay, reconstruction: OneWay, taus: Sequence[float]) -> dict[str, float]:
    """All scores of one region. `truth`: from its points to the reconstruction; `reconstruction`: from its points to the truth.

    scd_mm, f_<tau>mm: of the clouds; f_surface_<tau>mm: the same F of the exact distances. p2s_mm: half the sum of the mean exact
    distances; accuracy_*: reconstruction to truth; completeness_*: truth to reconstruction. normal_consistency: 0 to 1.
    """
    result = {"scd_mm": symmetric_chamfer(truth.cloud, reconstruction.cloud)}
    result |= {f"f_{tau:g}mm": f_score(truth.cloud, reconstruction.cloud, tau) for tau in taus}
    result["p2s_mm"] = symmetric_chamfer(truth.surface, reconstruction.surface)
    result |= {f"f_surface_{tau:g}mm": f_score(truth.surface, reconstruction.surface, tau) for tau in taus}
    result["normal_consistency"] = 0.5 * (float(truth.cosine.mean()) + float(reconstruction.cosine.mean()))
    for name, way in (("accuracy", reconstruction.surface), ("completeness", truth.surface)):
        result |= {f"{name}_{statistic}_mm": value for statistic, value in describe(way).items()}
    return result


def floor_scores(forward: Floats, backward: Floats, taus: Sequence[float]) -> dict[str, float]:
    """What two independent samplings of the same surface score: cloud distances alone (the exact ones are 0 by definition)."""
    return {"scd_mm": symmetric_chamfer(forward, backward)} | {
        f"f_{tau:g}mm": f_score(forward, backward, tau) for tau in taus
    }


@dataclass(frozen=True)
class Rigid:
    """A rigid motion p ↦ R p + t as matrix [4, 4] (column vectors), and how it was found."""

    matrix: Floats
    iterations: int
    rms_before: float
    rms_after: float

    def apply(self, points: Floats) -> Floats:
        return np.asarray(points @ self.matrix[:3, :3].T + self.matrix[:3, 3])

    @property
    def degrees(self) -> float:
        """Angle of the rotation; from the antisymmetric part too, for the arc cosine alone is blind to small angles."""
        r = self.matrix[:3, :3]
        sine = 0.5 * math.hypot(r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1])
        return math.degrees(math.atan2(sine, 0.5 * (float(np.trace(r)) - 1.0)))


Correspond = Callable[[Floats], tuple[Floats, Floats, Bools]]
"""Points [n, 3] ↦ their nearest points [n, 3], the normals there [n, 3], and which of them count [n]."""


def rigid_icp(points: Floats, correspond: Correspond, iterations: int = 20, tolerance: float = 1e-3) -> Rigid:
    """Rigid motion of points [n, 3] onto a surface by point-to-plane ICP (Chen & Medioni 1992).

    Each step minimises Σ (n · (p + ω × (p − c) + t − q))² for the small motion (ω, t), by least squares of least norm, so that a
    motion that the surface does not fix (a sphere's rotation) stays zero. Ends after `iterations`, or when a step moves the points
    by less than `tolerance` (rms, in their unit). Of all positions the one with the least rms distance to the planes is returned,
    so the result is never worse than no motion. Raises SurfaceError when fewer than 6 points count.
    """
    matrix = np.eye(4)
    best, best_rms, first_rms = matrix, math.inf, math.inf
    done = 0
    for step in range(iterations + 1):
        moved = points @ matrix[:3, :3].T + matrix[:3, 3]
        target, normal, counts = correspond(moved)
        if counts.sum() < 6:
            raise SurfaceError("ICP found fewer than 6 points that correspond to the truth")
        p, q, n = moved[counts], target[counts], normal[counts]
        gap = np.einsum("ni,ni->n", q - p, n)
        rms = float(np.sqrt(np.mean(gap**2)))
        if step == 0:
            first_rms = rms
        if rms < best_rms:
            best, best_rms = matrix, rms
        if step == iterations:
            break
        centre = p.mean(axis=0)
        scale = (
            float(np.sqrt(np.mean(np.sum((p - centre) ** 2, axis=1)))) or 1.0
        )  # lengths and angles of like size: well conditioned
        rows = np.concatenate([np.cross((p - centre) / scale, n), n], axis=1)
        solution = np.linalg.lstsq(rows, gap, rcond=1e-8)[0]
        motion = _motion(solution[:3] / scale, solution[3:], centre)
        matrix = motion @ matrix
        done = step + 1
        shift = p @ motion[:3, :3].T + motion[:3, 3] - p
        if float(np.sqrt(np.mean(np.sum(shift**2, axis=1)))) < tolerance:
            break
    return Rigid(best, done, first_rms, best_rms)


def _motion(omega: Floats, shift: Floats, centre: Floats) -> Floats:
    """[4, 4]: rotation by the vector ω (Rodrigues) about `centre`, then a shift."""
    angle = float(np.linalg.norm(omega))
    x, y, z = omega / angle if angle > 0.0 else omega
    k = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    rotation = np.eye(3) + math.sin(angle) * k + (1.0 - math.cos(angle)) * (k @ k)
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = centre + shift - rotation @ centre
    return matrix
