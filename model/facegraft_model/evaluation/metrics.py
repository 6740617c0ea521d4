"""Distances between two surfaces in mm, and scores computed from them: pure functions of arrays.

Two kinds of distance are scored, because they answer different questions:
- between clouds of random points, as in the literature (SCD, F): comparable with published numbers, but never below a floor
  of 0.5 / √density that depends only on the density of the clouds;
- from points to the exact surface (`facegraft.surfaces.nearest`): zero for a perfect reconstruction, independent of the number of points.

numba and scipy are imported on first use: training and fitting need neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from facegraft.arrays import Floats
from facegraft.lazily import lazy_import


class Cloud:
    """A cloud of points [n, 3] for nearest-point queries. `workers`: threads of the search."""

    def __init__(self, points: Floats, workers: int = 1) -> None:
        spatial = lazy_import("scipy.spatial")
        # Midpoint splits build several times as fast as medians, and random points of a surface need no balanced tree.
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
    """From n points of one shape to the other shape: distances [n] to its cloud and to its surface, and |cos| of the normals [n]."""

    cloud: Floats
    surface: Floats
    cosine: Floats


def normal_cosine(normals: Floats, other: Floats) -> Floats:
    """|n · n'| [n] of the unit normals [n, 3] at points and at their nearest points on the other surface.

    Its mean over both directions is the normal consistency of Mescheder et al. 2019 (Occupancy Networks), here with exact nearest
    points instead of the nearest of a cloud. Because of the absolute value, a mesh that is inside out gets the same value.
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
    """Scores of two independent samplings of the same surface: only cloud distances (the exact ones are 0 by definition)."""
    return {"scd_mm": symmetric_chamfer(forward, backward)} | {
        f"f_{tau:g}mm": f_score(forward, backward, tau) for tau in taus
    }
