"""Exact distance to the triangles by libigl's AABB tree; negative where the winding number of the closed mesh exceeds 1/2
(Jacobson et al. 2013).

Fast winding numbers (Barill et al. 2018) decide the clear cases. The exact winding number is computed where the fast one is
not clear, or where a point is so near the surface that single precision cannot be trusted. libigl's own `signed_distance` is
not used: with winding numbers it returns (1 - 2|w|) d, which is not a distance unless w is 0 or 1.
"""

from __future__ import annotations

import numpy as np

from facegraft.arrays import Floats, Ints
from facegraft.lazily import lazy_import
from facegraft.surfaces.nearest import nearest_on_surface
from facegraft.surfaces.signed import TOUCHING, SignedDistance, size_of, unit_gradient

CLEAR_WINDING = 0.1
"""A fast winding number this close to 0 or 1 is trusted: its error was at most 0.004 on closed heads."""

NEAR = 1e-6
"""Points nearer to the surface than this share of its size get an exact winding number: fast ones are computed in float32
and are wrong below about 1e-8 of the size."""


def winding(v: Floats, f: Ints, p: Floats) -> SignedDistance:
    """Signed distances of points [n, 3] to a closed mesh: exact, on either side of every face."""
    distance, index, closest = nearest_on_surface(v, f, p)
    size = size_of(v)
    centre = 0.5 * (v.min(axis=0) + v.max(axis=0))  # float32 inside: keep the numbers small
    number = np.asarray(lazy_import("igl").fast_winding_number(v - centre, f, p - centre), dtype=np.float64)
    unclear = (distance < NEAR * size) | (np.abs(number - np.round(number)) > CLEAR_WINDING)
    if unclear.any():
        number[unclear] = _exact_winding(v, f, p[unclear])
    sign = np.where(number > 0.5, -1.0, 1.0)
    return SignedDistance(
        sign * distance, closest, index, unit_gradient(v, f, p, distance, index, closest, sign, TOUCHING * size)
    )


def _exact_winding(v: Floats, f: Ints, p: Floats) -> Floats:
    """Winding numbers [n] in float64: libigl's tree, or for a few points (its set-up takes as long as 30 of them) the plain
    sum of solid angles (Van Oosterom and Strackee 1983).
    """
    if len(p) > 30:
        return np.asarray(lazy_import("igl").winding_number(v, f, np.ascontiguousarray(p)), dtype=np.float64)
    corners = np.ascontiguousarray(v[f].transpose(1, 2, 0))  # [corner, xyz, F]
    winding = np.empty(len(p))
    for i, point in enumerate(p):
        a, b, c = corners - point[:, None]
        la, lb, lc = (np.sqrt(np.einsum("if,if->f", x, x)) for x in (a, b, c))
        ab, bc, ca = (np.einsum("if,if->f", x, y) for x, y in ((a, b), (b, c), (c, a)))
        volume = np.einsum("if,if->f", a, np.cross(b, c, axis=0))
        winding[i] = np.arctan2(volume, la * lb * lc + ab * lc + bc * la + ca * lb).sum() / (2.0 * np.pi)
    return winding
