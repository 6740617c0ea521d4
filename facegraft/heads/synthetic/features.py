"""Facial features as operations on points of the left half of the bare head (x >= 0), in mm.

Relief: soft bumps and hollows of the front. Nose: a smooth union of tapered capsules and ellipsoids onto which
points are pushed along rays from inside the head. Eye: lids as a shell around the eyeball. Lips: a cross-section swept
along the mouth. Ear: a relief on a plate at an angle to the side of the head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from facegraft.arrays import Floats

EYE_CENTRE = np.array([30.9, -0.4, 78.6])
EYE_RADIUS = 14.3
CANTHUS_INNER = np.array([17.0, -2.2])
CANTHUS_OUTER = np.array([44.6, 0.6])
LID_UPPER, LID_LOWER = 5.5, 4.0  # height of the lid margins above and below the line through the canthi
MOUTH_HALF_WIDTH = 25.4


def smoothstep(low: float, high: float, x: Floats) -> Floats:
    """Smoothstep 3t^2 - 2t^3: 0 up to low, 1 from high on; descending where high < low."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def smooth_min(a: Floats, b: Floats, k: float) -> Floats:
    """Polynomial smooth minimum: equals min(a, b) where they differ by more than k (Quilez, 'smooth minimum')."""
    h = np.maximum(k - np.abs(a - b), 0) / k
    return np.minimum(a, b) - h * h * k / 4


# ---- relief of the front -------------------------------------------------------------------------------------

# centre x, y | widths (sd) along and across | turn of the long axis in degrees | displacement x, y, z
RELIEF = np.array(
    [
        [25, 21.5, 15, 6.5, -8, 0.5, 0, 2.6],  # brow ridge
        [0, 19, 9, 8, 0, 0, 0, 1.4],  # glabella
        [31, 5, 15, 8, 0, 0, 0, -3.8],  # orbit
        [15.5, 4, 5, 8.0, 0, 0, 0, -4.6],  # inner orbit, beside the nasal root
        [49, -1, 6, 8, 0, 0, 0, -2.0],  # outer rim of the orbit
        [30, -13, 13, 5.5, 0, 0, 0, 1.6],  # under the lower lid
        [44, -24, 14, 10, -25, 2.0, 0, 5.0],  # cheekbone
        [30, -33, 11, 11, 0, 0, 0, 2.5],  # cheek, front
        [45, -62, 12, 15, 20, -0.8, 0, -0.6],  # hollow under the cheekbone
        [61, 22, 9, 16, 0, -2.5, 0, -2.5],  # temple
        [0, -66, 19, 14, 0, 0, 0, 4.5],  # muzzle over the teeth
        [0, -87, 13, 4.6, 0, 0, 0, -3.2],  # groove between lip and chin
        [0, -99, 11, 9, 0, 0, -1.0, 5.0],  # chin
        [42, -94, 14, 11, 30, -2.0, 1.5, -2.2],  # beside the chin
        [0, -55, 2.6, 6, 0, 0, 0, -1.2],  # philtrum
        [5.2, -56, 2.2, 6, 14, 0, 0, 0.6],  # its columns
        [25.5, -57, 4.5, 14, -30, 0, 0, -1.6],  # nasolabial furrow
        [36, -50, 9, 12, -30, 0.5, 0, 2.0],  # cheek beside it
        [27, -70, 5, 6, 0, 0, 0, -2.0],  # corner of the mouth
        [33, -70, 4, 7, 0, 0, 0, 1.2],  # beside it
        [22, 50, 16, 14, 0, 0, 0, 1.2],  # frontal eminence
    ]
)


def relief(points: Floats) -> Floats:
    """Points after the bumps and hollows of RELIEF, each a Gaussian of (x, y), symmetric in x, on the front only."""
    front = smoothstep(0, 40, points[:, 2])
    out = points.copy()
    for cx, cy, along, across, turn, dx, dy, dz in RELIEF:
        c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        weight = np.zeros(len(points))
        for side in (1, -1):
            if side < 0 and cx == 0:
                continue
            x, y = side * points[:, 0] - cx, points[:, 1] - cy
            w = np.exp(-0.5 * (((c * x + s * y) / along) ** 2 + ((-s * x + c * y) / across) ** 2))
            out[:, 0] += side * front * w * dx
            weight += w
        out[:, 1] += front * weight * dy
        out[:, 2] += front * weight * dz
    return out


# ---- nose ----------------------------------------------------------------------------------------------------

NOSE_ORIGIN = np.array([0.0, -24.0, 62.0])  # rays that carry points onto the nose start here


def _capsule(p: Floats, a: tuple[float, float, float], b: tuple[float, float, float], ra: float, rb: float) -> Floats:
    """Distance to a capsule whose radius changes linearly from ra to rb (nearly exact while |ra - rb| << |ab|)."""
    start, axis = np.array(a), np.array(b) - np.array(a)
    t = np.clip((p - start) @ axis / (axis @ axis), 0, 1)
    return np.linalg.norm(p - start - t[..., None] * axis, axis=-1) - (ra + (rb - ra) * t)


def _ellipsoid(p: Floats, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Floats:
    """First-order distance to an ellipsoid."""
    q = (p - np.array(centre)) / np.array(radii)
    k = np.linalg.norm(q, axis=-1)
    g = np.linalg.norm(q / np.array(radii), axis=-1)
    return k * (k - 1) / np.maximum(g, 1e-9)


def nose_distance(points: Floats) -> Floats:
    """Approximate signed distance of points [..., 3] to the solid of the nose; symmetric in x."""
    p = np.array(points)
    p[..., 0] = np.abs(p[..., 0])
    bridge = _capsule(p, (0, 12, 92.0), (0, -18, 102.0), 5.6, 6.0)
    low = _capsule(p, (0, -14, 101.0), (0, -35, 111.0), 6.0, 7.6)
    d = smooth_min(bridge, low, 6)
    d = smooth_min(d, _ellipsoid(p, (0, -37.5, 112.8), (9.6, 8.4, 8.8)), 5)
    d = smooth_min(d, _ellipsoid(p, (4.0, -38.5, 113.2), (6.0, 6.2, 6.8)), 4)
    wall = _capsule(p, (4.5, 3, 84), (10.0, -36, 98.5), 7.5, 8.2)
    d = smooth_min(d, wall, 13)
    d = smooth_min(d, _ellipsoid(p, (5.5, -42.3, 105.5), (7.0, 4.6, 8.5)), 3)
    ala = _ellipsoid(p, (11.2, -41.6, 104.0), (6.4, 5.8, 9.5))
    d = smooth_min(d, ala, 3.4)
    return smooth_min(d, _capsule(p, (0, -45.0, 102.5), (0, -42.0, 113), 3.2, 4.2), 4.0)


def nose(points: Floats) -> Floats:
    """Push front points outward along rays from NOSE_ORIGIN onto the smooth union of face and nose."""
    out = points.copy()
    near = np.flatnonzero((points[:, 2] > 60) & (points[:, 0] < 32) & (points[:, 1] > -62) & (points[:, 1] < 26))
    ray = points[near] - NOSE_ORIGIN
    length = np.linalg.norm(ray, axis=1)

    def solid(t: Floats) -> Floats:
        p = NOSE_ORIGIN + t[..., None] * ray[:, None, :]
        face = (t - 1) * length[:, None] * 0.8
        return smooth_min(face, nose_distance(p), 4.0)

    steps = np.linspace(0.9, 2.6, 103)
    values = solid(np.broadcast_to(steps, (len(near), len(steps))))
    last = values.shape[1] - 1 - np.argmax(values[:, ::-1] < 0, axis=1)  # the outermost place inside
    low = steps[last]
    high = low + (steps[1] - steps[0])
    for _ in range(30):
        middle = 0.5 * (low + high)
        inside = solid(middle[:, None])[:, 0] < 0
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    out[near] = NOSE_ORIGIN + (0.5 * (low + high))[:, None] * ray
    return out


def nostrils(points: Floats) -> Floats:
    """Dent the underside of the nose: push a slanted oval up into it."""
    centre = np.array([6.4, -46.0, 110.5])
    along = np.array([-0.40, 0.28, 0.87])
    depth = np.array([0.05, 0.93, -0.30])
    along, depth = along / np.linalg.norm(along), depth / np.linalg.norm(depth)
    across = np.cross(along, depth)
    d = points - centre
    q = ((d @ along) / 4.6) ** 2 + ((d @ across) / 2.9) ** 2 + ((d @ depth) / 4.0) ** 2
    return points + (5.0 * np.exp(-(q**1.5)))[:, None] * depth


# ---- eye -----------------------------------------------------------------------------------------------------


def lid_margin(count: int) -> Floats:
    """The opening between the lids [count, 2] (x, y): outer canthus, upper lid, inner canthus, lower lid."""
    half = count // 2
    u = np.arange(half + 1) / half
    t = 1 - (0.35 * u + 0.65 * (1 - np.cos(np.pi * u)) / 2)  # 1 outer, 0 inner canthus; closer at the canthi
    line = CANTHUS_INNER + t[:, None] * (CANTHUS_OUTER - CANTHUS_INNER)

    def bow(a: float, b: float) -> Floats:
        peak = (a / (a + b)) ** a * (b / (a + b)) ** b
        return t**a * (1 - t) ** b / peak

    upper, lower = line.copy(), line.copy()
    upper[:, 1] += LID_UPPER * bow(0.62, 0.68)
    lower[:, 1] -= LID_LOWER * bow(0.85, 0.62)
    return np.concatenate([upper[:-1], lower[::-1][:-1]])


def upper_fold(xy: Floats) -> Floats:
    """Relief of the upper lid over (x, y): a crease above the lid's front and the fold of skin over it, in mm."""
    along = (xy[..., 0] - CANTHUS_INNER[0]) / (CANTHUS_OUTER[0] - CANTHUS_INNER[0])
    t = np.clip(along, 0, 1)
    margin = CANTHUS_INNER[1] + along * (CANTHUS_OUTER[1] - CANTHUS_INNER[1]) + LID_UPPER * (4 * t * (1 - t)) ** 0.7
    above = xy[..., 1] - margin
    window = smoothstep(-0.12, 0.25, along) * (1 - smoothstep(0.85, 1.25, along))
    return window * (2.3 * np.exp(-(((above - 8.5) / 3.8) ** 2)) - 1.3 * np.exp(-(((above - 3.4) / 1.4) ** 2)))


def lid_height(xy: Floats, radius: float | Floats) -> Floats:
    """Height z of a shell of given radius around the eyeball over (x, y); levels off beyond its outline."""
    q = np.asarray(radius) ** 2 - ((xy - EYE_CENTRE[:2]) ** 2).sum(-1)
    # past the outline the shell falls away so that it never shows through the orbit
    return EYE_CENTRE[2] - 0.06 * np.maximum(-q, 0) + np.sqrt((q + np.sqrt(q * q + 20.0**2)) / 2)


# ---- mouth ---------------------------------------------------------------------------------------------------


def _even_curve(x: list[float], y: list[float]) -> PchipInterpolator:
    """A monotone cubic through (x, y) and its mirror image, so that it is smooth across the midline."""
    return PchipInterpolator([-v for v in x[:0:-1]] + x, y[:0:-1] + y)


_CUPID = _even_curve([0, 3, 5.5, 11, 18, MOUTH_HALF_WIDTH + 0.6, 40], [-62.6, -61.8, -61.4, -63.0, -66.6, -69.7, -69.8])
_LOWER_BORDER = _even_curve([0, 7, 14, 20, MOUTH_HALF_WIDTH + 0.6, 40], [-78.6, -78.0, -75.6, -72.3, -69.8, -69.8])
_SLIT = _even_curve([0, 5, 12, 20, MOUTH_HALF_WIDTH, 40], [-69.9, -69.5, -69.2, -69.5, -69.8, -69.8])

# share of the way from the lip's border to the opening, bulge (share of the lip's thickness), depth behind it in mm
LIP_SECTION = (
    (0.0, 0.0, 0.0),
    (0.26, 0.42, 0.0),
    (0.52, 0.80, 0.0),
    (0.76, 0.97, 0.0),
    (0.93, 0.80, 0.0),
    (1.0, 0.0, 3.5),
)


@dataclass(frozen=True)
class LipPlan:
    """Front-view course of the mouth, half rings from the bottom midline by the corner to the top midline."""

    border: Floats  # [n, 2]
    opening: Floats  # [n, 2]
    thickness: Floats  # [n] bulge of the lips over the face


def lips(count: int) -> LipPlan:
    """Place the mouth's half rings of `count` vertices; the middle one is the corner."""
    corner = count // 2
    u = np.abs(np.arange(count) - corner) / corner  # 0 at the corner, 1 at the midline
    upper = np.arange(count) > corner
    x = MOUTH_HALF_WIDTH * (1 - (0.8 * u + 0.2 * (1 - np.cos(np.pi * u / 2))))
    wide = x * (MOUTH_HALF_WIDTH + 0.6) / MOUTH_HALF_WIDTH
    gap = np.where(upper, 0.2, -0.2) * np.minimum(u * 4, 1)
    opening = np.column_stack([x, _SLIT(x) + gap])
    border = np.column_stack([wide, np.where(upper, _CUPID(wide), _LOWER_BORDER(wide))])
    border[corner, 1] = opening[corner, 1]
    taper = (1 - (x / MOUTH_HALF_WIDTH) ** 2) ** 1.15
    thickness = np.where(upper, 3.4, 4.2) * taper + 0.2
    return LipPlan(border, opening, thickness)


# ---- ear -----------------------------------------------------------------------------------------------------

EAR_CENTRE = np.array([71.0, -17.0, -12.0])


def ear_frame(points: Floats) -> tuple[Floats, Floats]:
    """Coordinates on the ear's plate in mm: a backward, b upward along the ear's axis (leaning back 12 degrees)."""
    lean = np.radians(12.0)
    back, up = -(points[:, 2] - EAR_CENTRE[2]), points[:, 1] - EAR_CENTRE[1]
    return back * np.cos(lean) - up * np.sin(lean), back * np.sin(lean) + up * np.cos(lean)


def ear(points: Floats) -> Floats:
    """Raise the auricle: rim (helix), bowl (concha), lobe and tragus on a plate that stands off at the back."""
    a, b = ear_frame(points)
    side = smoothstep(45, 60, points[:, 0])
    width = 16.5 - 4.5 * smoothstep(-4, -34, b)
    shift = -3.5 * smoothstep(-4, -34, b)
    rho = np.sqrt(((a - shift) / width) ** 2 + (b / 31.0) ** 2)
    plate = 2.5 + 12.5 * smoothstep(-15, 15, a)
    inside = 1 - smoothstep(0.93, 1.22, rho)
    out = plate * inside
    helix = np.exp(-(((rho - 0.9) / 0.11) ** 2)) * smoothstep(-16, -4, b + 0.6 * a + 14) * smoothstep(-24, -12, b)
    out += 4.5 * helix
    scapha = np.exp(-(((rho - 0.66) / 0.12) ** 2)) * smoothstep(-6, 6, b + 0.5 * a)
    out -= 4.0 * scapha
    concha = np.exp(-((((a + 3.0) / 7.0) ** 2 + ((b + 5.0) / 10.0) ** 2) ** 1.5))
    out -= (plate * 0.8 + 1.5) * concha
    out += 4.5 * np.exp(-(((a + 11.5) / 3.2) ** 2 + ((b + 7.5) / 4.5) ** 2))
    rim = np.exp(-(((rho - 0.97) / 0.16) ** 2)) * smoothstep(-4, 8, a)
    pushed = points.copy()
    pushed[:, 0] += side * out
    pushed[:, 2] -= side * (0.25 * out + 4.5 * rim)
    return pushed
