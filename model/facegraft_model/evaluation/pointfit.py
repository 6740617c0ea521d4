"""Fitting points with a linear model of meshes: non-rigid ICP onto its coefficients, without landmarks.

The mesh is mean [V,3] + modes [V,3,K] z, with codes z that are N(0, 1).

numba is imported where points are fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facegraft.arrays import Floats, Ints
from facegraft.surfaces.barycentric import barycentric
from facegraft.surfaces.nearest import nearest_on_surface
from facegraft.surfaces.normals import face_normals
from facegraft_model.errors import ModelError

START_NOISE_MM = 5.0
"""Noise in mm in the first iteration on points: the model starts stiff and becomes softer as correspondences improve."""
TRIAL_ITERATIONS, TRIED = 10, 2
"""Iterations after which the expressions nearest to the scan are chosen, and how many of them, besides the mean head, go on to the end."""
FARTHEST = 0.99
"""Quantile of the distances that counts as the farthest."""
REJECTED_MEDIANS = 4.0
"""Points farther from the model than this multiple of the median distance are ignored."""
REJECTED_COSINE = 0.5
"""Points whose normal differs from the model's by more than 60 degrees are ignored."""


class LinearMesh(NamedTuple):
    """A mesh that depends on its code linearly: mean f64 [V,3], modes f64 [V,3,K], faces i64 [F,3], and mm_per_unit."""

    mean: Floats
    modes: Floats
    faces: Ints
    mm_per_unit: float

    def vertices(self, code: Floats) -> Floats:
        """[V,3] of a code [k], the first of the K."""
        vertices: Floats = self.mean + self.modes[..., : len(code)] @ code
        return vertices


class Fitted(NamedTuple):
    """A fit on its way: code [K], squared distances [n] of the points, whether the model faces their way there [n], and iterations so far."""

    code: Floats
    squared: Floats
    agrees: NDArray[np.bool_]
    used: int


def _far(state: Fitted) -> float:
    """How badly a fit explains the points: their mean distance, not squared, which a few points at the neck would decide; one that lies on a surface of
    the other side counts as one of the farthest: an opened mouth may lie near closed lips everywhere, but not face their way."""
    distance = np.sqrt(state.squared)
    return float(np.where(state.agrees, distance, np.maximum(distance, np.quantile(distance, FARTHEST))).mean())


def fit_points(
    mesh: LinearMesh,
    scan: Floats,
    directions: Floats | None,
    starts: Sequence[Floats],
    noise_mm: float,
    slide: float,
    iterations: int,
) -> Fitted:
    """The code [k] of points [n,3], in units, with outward normals [n,3] or none, from the first of the starts [k] or from another one.

    All starts but the first are tried for a few iterations; those that are nearest to the points go on, as does the first, and the fit that is
    nearest in the end is taken. The noise falls from 5 mm to noise_mm in the first two thirds of the iterations; the fit ends when no vertex
    moves by 0.001 mm. Raises ModelError where no point faces the way the model does.
    """
    noises = np.geomspace(max(START_NOISE_MM, noise_mm), noise_mm, max(2 * iterations // 3, 1)) / mesh.mm_per_unit
    noises = np.concatenate([noises, np.full(iterations - len(noises), noises[-1])])
    trial = min(TRIAL_ITERATIONS, iterations)
    first, *others = (Fitted(start, np.empty(0), np.empty(0, dtype=bool), 0) for start in starts)
    begun = [_improved(mesh, state, scan, directions, noises[:trial], slide) for state in others]
    ended = [_improved(mesh, first, scan, directions, noises, slide)]
    ended += [_improved(mesh, state, scan, directions, noises[trial:], slide) for state in sorted(begun, key=_far)[:TRIED]]
    return min(ended, key=_far)


def _improved(
    mesh: LinearMesh, state: Fitted, scan: Floats, directions: Floats | None, noises: Floats, slide: float
) -> Fitted:
    """The state after an iteration for each of the noises, in units, or fewer where it converges at the last one."""
    count = len(state.code)
    code, used = state.code, state.used
    vertices, faces = mesh.vertices(code), np.ascontiguousarray(mesh.faces, dtype=np.int64)
    for noise in noises:
        _, face, nearest = nearest_on_surface(vertices, faces, scan)
        corners = faces[face]
        weights = barycentric(nearest, vertices[corners])
        facing = face_normals(vertices, corners)
        kept = _counterparts(scan - nearest, facing, directions)
        equations = _Equations(mesh.modes, mesh.mean, corners[kept], weights[kept], count)
        system, right = equations.normal_equations(scan[kept], facing[kept], slide)
        before = vertices
        code = ridge(system, right, noise)
        vertices = mesh.vertices(code)
        used += 1
        if noise == noises[-1] and np.abs(vertices - before).max() * mesh.mm_per_unit < 1e-3:
            break
    distance, face, _ = nearest_on_surface(vertices, faces, scan)
    agrees = np.ones(len(scan), dtype=bool)
    if directions is not None:
        agrees = np.einsum("nj,nj->n", face_normals(vertices, faces[face]), directions) >= REJECTED_COSINE
    return Fitted(code, distance**2, agrees, used)


class _Equations:
    """q(z) = offset + rows z for points given by the corners [n,3] of their triangles and barycentric weights [n,3]."""

    def __init__(self, modes: Floats, mean: Floats, corners: Ints, weights: Floats, count: int) -> None:
        self.offset = np.einsum("nc,ncj->nj", weights, mean[corners])
        self.rows = np.zeros((len(corners), 3, count))
        for corner, weight in zip(corners.T, weights.T, strict=True):
            self.rows += weight[:, None, None] * modes[corner, :, :count]

    def normal_equations(self, points: Floats, normals: Floats, slide: float) -> tuple[Floats, Floats]:
        """Matrix [K,K] and right side [K] of least sum_i (n_i . d_i)^2 + slide^2 |d_i|^2, d = points - q(z)."""
        d = points - self.offset
        along = np.einsum("nj,njk->nk", normals, self.rows)
        system: Floats = along.T @ along
        right: Floats = along.T @ np.einsum("nj,nj->n", normals, d)
        if slide > 0:
            flat = self.rows.reshape(-1, self.rows.shape[2])
            system += slide**2 * (flat.T @ flat)
            right += slide**2 * (flat.T @ d.ravel())
        return system, right


def ridge(system: Floats, right: Floats, noise: float) -> Floats:
    """z of least |A z - b|^2 / noise^2 + |z|^2, given A^T A and A^T b."""
    return np.asarray(np.linalg.solve(system + noise**2 * np.eye(len(system)), right), dtype=np.float64)


def _counterparts(gaps: Floats, facing: Floats, directions: Floats | None) -> NDArray[np.bool_]:
    """Mask [n] of the scan points with a counterpart, from the gaps [n,3] to the model, its normals [n,3] there and the scan's normals."""
    distance = np.linalg.norm(gaps, axis=1)
    kept = distance <= REJECTED_MEDIANS * np.median(distance) + np.finfo(np.float64).eps
    if directions is not None:
        agrees = np.einsum("nj,nj->n", facing, directions) >= REJECTED_COSINE
        # If no normal agrees, the scan's normals point inwards or it is not in the model's frame: nothing can be fitted.
        if not (kept & agrees).any():
            raise ModelError(
                "no point of the scan faces the way the model does; are its normals outward, and is it in the model's frame?"
            )
        kept &= agrees
    result: NDArray[np.bool_] = kept
    return result


def chosen_points(points: ArrayLike, normals: ArrayLike | None, most: int, seed: int) -> tuple[Floats, Floats | None]:
    """At most `most` of the points [n,3] and their normals, at random. Raises ModelError for other shapes and points that are not finite."""
    scan = np.asarray(points, dtype=np.float64)
    directions = None if normals is None else np.asarray(normals, dtype=np.float64)
    if scan.ndim != 2 or scan.shape[1] != 3 or not len(scan) or not np.isfinite(scan).all():
        raise ModelError(f"a scan is finite points [n,3], not shape {list(scan.shape)} or with NaN")
    if directions is not None and directions.shape != scan.shape:
        raise ModelError(f"normals must be [n,3] as the points, but have shape {list(directions.shape)}")
    if len(scan) > most:
        chosen = np.sort(np.random.default_rng(seed).choice(len(scan), most, replace=False))
        scan, directions = scan[chosen], None if directions is None else directions[chosen]
    return scan, directions
