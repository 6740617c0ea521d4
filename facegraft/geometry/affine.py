"""Least-squares fits of one rim of points to another: a similarity, an affine map, or an affine map held near the similarity.

A graft moves a donor's part by the map that takes the donor's rim (the part's boundary loop and a few rings around
it) onto the host's. Rims are shallow dishes: the plain least-squares affine (`stiffness` 0) is free to rescale the
part along the dish's normal, so by default it is held near the similarity that fits best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from facegraft.arrays import Floats
from facegraft.errors import FacegraftError
from facegraft.surfaces.procrustes import similarities

MAX_CONDITION = 1000.0
"""Largest condition number of a rim's covariance that a plain affine fit accepts. Real rims have about 20, at most 97."""


class DegenerateRim(FacegraftError):
    """A rim that does not determine the map: it has too few points, or is a point, a line or (for a plain affine) a plane."""


@dataclass(frozen=True)
class AffineFit:
    """x ↦ linear @ x + translation, with the residual of the rim that it was fitted to.

    Shapes: linear [3, 3], translation [3], singular_values [3] descending; residual_rms in the unit of the points.
    """

    linear: Floats
    translation: Floats
    singular_values: Floats
    determinant: float
    residual_rms: float

    def __call__(self, points: Floats) -> Floats:
        """Map points [n, 3]."""
        return points @ self.linear.T + self.translation

    def matrix(self) -> Floats:
        """The homogeneous matrix [4, 4]."""
        homogeneous = np.eye(4)
        homogeneous[:3, :3] = self.linear
        homogeneous[:3, 3] = self.translation
        return homogeneous


def fit_similarity(donor_rim: Floats, host_rim: Floats, weights: Floats | None = None) -> AffineFit:
    """Least-squares similarity: rotation, one scale > 0 and translation; never a reflection (Umeyama 1991).

    Shapes: donor_rim, host_rim [n, 3], row-matched; weights [n]. Raises DegenerateRim for fewer than three points or a line.
    """
    return fit_affine(donor_rim, host_rim, np.inf, weights)


def fit_affine(donor_rim: Floats, host_rim: Floats, stiffness: float, weights: Floats | None = None) -> AffineFit:
    """Least-squares affine map of a donor part's rim onto the host's graft site, held near the best similarity.

    Minimises Σ wᵢ ‖A xᵢ − yᵢ‖² + μ ‖A − sR‖² over the centred rims X, Y, with μ = stiffness · tr(XᵀWX)/3 and sR the
    least-squares similarity (Umeyama 1991); the minimiser is A = (YᵀWX + μ sR)(XᵀWX + μ I)⁻¹. Stiffness 0 is the plain
    affine of Gu & Pears (2024, section 3.4), infinity the similarity.
    Shapes: donor_rim, host_rim [n, 3] in mm, row-matched; weights [n] positive, all 1 if not given.
    Raises DegenerateRim for fewer than four points, a rim on a line, or a (nearly) planar rim with stiffness 0:
    there the plain affine flattens the part to a sheet or blows it up.
    """
    return fit_affines([donor_rim], [host_rim], stiffness, None if weights is None else [weights])[0]


def fit_affines(
    donor_rims: Sequence[Floats], host_rims: Sequence[Floats], stiffness: float, weights: Sequence[Floats] | None = None
) -> list[AffineFit]:
    """`fit_affine` of several rims at once: their 3×3 problems are solved in one batch, which is several times faster."""
    if stiffness < 0:
        raise ValueError(f"stiffness must be at least 0, not {stiffness}")
    number = len(donor_rims)
    covariance, cross = np.empty((number, 3, 3)), np.empty((number, 3, 3))
    donor_mean, host_mean = np.empty((number, 3)), np.empty((number, 3))
    centred = []
    for i, (donor, host) in enumerate(zip(donor_rims, host_rims, strict=True)):
        if donor.shape != host.shape or donor.ndim != 2 or donor.shape[1] != 3:
            raise ValueError(f"rims must be two [n, 3] arrays, row-matched; got {donor.shape} and {host.shape}")
        if len(donor) < 4:
            raise DegenerateRim(
                f"a rim of {len(donor)} points does not determine a map; a part's loop needs at least 4 vertices"
            )
        w = np.ones(len(donor)) if weights is None else weights[i]
        total = w.sum()
        donor_mean[i], host_mean[i] = w @ donor / total, w @ host / total
        x, y = donor - donor_mean[i], host - host_mean[i]
        weighted = w[:, None] * x
        covariance[i], cross[i] = x.T @ weighted, y.T @ weighted
        centred.append((x, y, w / total))
    if not (np.isfinite(covariance).all() and np.isfinite(cross).all()):
        raise DegenerateRim("a rim holds NaN or infinite positions; the head's mesh is damaged")
    _refuse_degenerate(np.asarray(np.linalg.eigvalsh(covariance)), plain=stiffness == 0)
    trace = np.trace(covariance, axis1=1, axis2=2)
    linear = similarities(cross, trace)
    if np.isfinite(stiffness):
        mu = (stiffness * trace / 3.0)[:, None, None]
        system, right = covariance + mu * np.eye(3), cross + mu * linear
        linear = np.linalg.solve(system, right.transpose(0, 2, 1)).transpose(0, 2, 1)
    stretches = np.linalg.svd(linear, compute_uv=False)
    determinants = np.linalg.det(linear)
    fits = []
    for i, (x, y, share) in enumerate(centred):
        residual = y - x @ linear[i].T
        fits.append(
            AffineFit(
                linear=linear[i],
                translation=host_mean[i] - linear[i] @ donor_mean[i],
                singular_values=stretches[i],
                determinant=float(determinants[i]),
                residual_rms=float(np.sqrt(share @ (residual * residual).sum(axis=1))),
            )
        )
    return fits


def _refuse_degenerate(spreads: Floats, plain: bool) -> None:
    """Raise DegenerateRim where the eigenvalues [k, 3] (ascending) of a donor's rim covariance show a point, a line or a plane."""
    for flat, middle, wide in spreads.tolist():
        if middle <= 1e-9 * wide:
            raise DegenerateRim("the donor's rim is a point or a line; its vertices do not span the part")
        if plain and not flat * MAX_CONDITION > wide:
            raise DegenerateRim(
                f"the donor's rim is nearly planar (covariance condition {wide / max(flat, 1e-300):.3g}, limit "
                f"{MAX_CONDITION:g}): a plain affine would flatten or blow up the part; use a stiffness above 0"
            )
