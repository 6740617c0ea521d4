"""Caps: the disks of triangles that close the openings of a head.

A cap is designed once, on a topology's template (`minimal_area_cap`, `planar_cap`): a triangle list over the n rim
vertices and m new ones, and the matrix that computes the new vertices from the rim. Placing them on a head
(`place_flat`, `place_on_sphere`) is then one matrix product, so every head of a topology gets the same triangles in
well under a millisecond.

Rims are ordered loops that run along the faces *around* the opening (as `topology.boundary_loops` gives them);
the caps run against them, so that cap and head together are oriented consistently.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from numpy.typing import ArrayLike, NDArray

from facegraft.arrays import Floats, Ints
from facegraft.errors import FacegraftError
from facegraft.geometry.planar import refine_delaunay

EYE_RADIUS_PER_WIDTH = 0.6
"""Ratio of eyeball radius to the largest width of the lid opening, for topologies without eyeballs (ICT template: 0.61)."""


MOST_NEW = 400
"""Approximate upper limit on the new vertices of a planar cap."""

SHUT = 0.01
"""Lids are shut where twice the area of their opening is less than this times the rim's mean squared extent (open eyes: about 4)."""


class CapError(FacegraftError):
    """An opening that cannot be capped."""


@dataclass(frozen=True)
class CapPattern:
    """Triangles of a cap and the weights of its new vertices.

    faces    [T, 3]  indices 0..n-1 are the rim in its order, n..n+m-1 the new vertices
    weights  [m, n]  new vertices = weights @ rim; rows are non-negative and sum to 1
    """

    faces: Ints
    weights: Floats

    @property
    def new_count(self) -> int:
        return len(self.weights)


def minimal_area_cap(rim: ArrayLike, taken: Iterable[tuple[int, int]] = (), evenness: float = 1e-3) -> CapPattern:
    """Triangulate a rim [n, 3] without new vertices, with the least area (dynamic programming over sub-loops, O(n^3)).

    Klincsek 1980; Barequet and Sharir 1995. `taken`: pairs of rim positions that already share an edge of the head
    outside the rim; a chord there would give that edge four faces, so it is never drawn. `evenness` times the squared
    edge lengths is added to the areas: where a rim is thin (closed lips) area alone cannot tell good triangles from slivers.
    Raises CapError when every triangulation needs a taken chord.
    """
    points = np.asarray(rim, dtype=np.float64)
    n = len(points)
    if n < 3:
        raise CapError(f"a rim of {n} vertices cannot be capped: at least 3 are needed")
    squared = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    barred = np.zeros((n, n), dtype=bool)
    for a, b in taken:
        barred[a, b] = barred[b, a] = True
    steps = np.arange(n)
    barred[steps, (steps + 1) % n] = barred[(steps + 1) % n, steps] = False

    cost = np.full((n, n), np.inf)
    cost[steps[:-1], steps[1:]] = 0.0
    split = np.zeros((n, n), dtype=np.int64)
    for gap in range(2, n):
        first = np.arange(n - gap)
        last = first + gap
        middle = first[:, None] + np.arange(1, gap)[None]
        side = points[middle] - points[first][:, None]
        base = (points[last] - points[first])[:, None]
        area = 0.5 * np.linalg.norm(np.cross(side, base), axis=2)
        edges = squared[first[:, None], middle] + squared[middle, last[:, None]] + squared[first, last][:, None]
        total = cost[first[:, None], middle] + cost[middle, last[:, None]] + area + evenness * edges
        best = total.argmin(axis=1)
        cost[first, last] = np.where(barred[first, last], np.inf, total[first, best])
        split[first, last] = middle[first, best]
    if not np.isfinite(cost[0, n - 1]):
        raise CapError(
            f"the rim of {n} vertices cannot be capped: every triangulation needs an edge that the head already has"
        )

    faces, stack = [], [(0, n - 1)]
    while stack:
        a, b = stack.pop()
        if b - a < 2:
            continue
        k = int(split[a, b])
        faces.append((a, b, k))
        stack += [(a, k), (k, b)]
    return CapPattern(np.array(faces, dtype=np.int64), np.zeros((0, n)))


def planar_cap(rim: ArrayLike, taken: Iterable[tuple[int, int]] = ()) -> CapPattern | None:
    """Well-shaped cap of a nearly planar rim [n, 3]: constrained Delaunay triangles of the rim and of a grid inside it.

    The grid is hexagonal. Its spacing is the rim's mean edge length, or wider where that would give more than about
    MOST_NEW vertices. New vertices are placed by harmonic (cotangent) weights, which are non-negative on a Delaunay mesh
    and reproduce affine maps: scaling or shearing the rim scales or shears the grid with it.
    Where the rim doubles back on itself in its plane (corners of lids), the triangles of `minimal_area_cap` are kept.
    `taken` is as in `minimal_area_cap`. Returns None for a rim that is too thin or too tangled for new vertices: use
    `minimal_area_cap` there.
    """
    points = np.asarray(rim, dtype=np.float64)
    n = len(points)
    flat = _project_to_plane(points)
    following = np.roll(flat, -1, axis=0)
    area = 0.5 * float(_cross2(flat, following).sum())
    spacing = max(
        float(np.linalg.norm(following - flat, axis=1).mean()),
        float(np.sqrt(max(area, 0.0) / (np.sqrt(0.75) * MOST_NEW))),
    )
    inside = _hexagonal_grid(flat.min(axis=0), flat.max(axis=0), spacing)
    inside = inside[_in_polygon(inside, flat) & (_distance_to_polygon(inside, flat) > 0.6 * spacing)]
    if len(inside) == 0:
        return None
    both = np.concatenate([flat, inside])
    barred = {(a, b) for pair in taken for a, b in (pair, pair[::-1])}
    base = minimal_area_cap(np.column_stack([flat, np.zeros(n)]), taken, evenness=1e-7).faces[
        :, [0, 2, 1]
    ]  # counter-clockwise
    faces = refine_delaunay(both, base, barred)
    if faces is None:
        return None
    return CapPattern(faces[:, [0, 2, 1]], _harmonic_weights(both, faces, n))


def place_flat(pattern: CapPattern, rim: ArrayLike) -> Floats:
    """New vertices [m, 3] of a cap that spans its rim [n, 3] like a soap film."""
    return np.asarray(pattern.weights @ np.asarray(rim, dtype=np.float64))


def place_on_sphere(pattern: CapPattern, rim: ArrayLike, radius: float) -> Floats:
    """New vertices [m, 3] of a cap that bulges out of its rim [n, 3] like an eye.

    The sphere of the given radius (unit of the rim) is fitted to the rim, its centre behind it. A lid's rim never lies
    on a sphere exactly: the rim's distances from the centre are interpolated harmonically over the cap, so that it
    meets the lids without a step. Shut lids (see SHUT) get a film between them.
    Raises CapError where the rim has no extent.
    """
    points = np.asarray(rim, dtype=np.float64)
    film = place_flat(pattern, points)
    if np.linalg.norm(_double_area(points)) < SHUT * ((points - points.mean(axis=0)) ** 2).sum(axis=1).mean():
        return film
    centre = sphere_centre(points, radius)
    depth = np.linalg.norm(points - centre, axis=1)
    rays = film - centre
    return np.asarray(centre + rays * ((pattern.weights @ depth) / np.linalg.norm(rays, axis=1))[:, None])


def sphere_centre(rim: ArrayLike, radius: float) -> Floats:
    """Centre [3] of the sphere of known radius through a rim [n, 3], in least squares, behind the rim.

    Minimises sum (|p - c| - R)^2 by Gauss-Newton. For a rim wider than the sphere, the radius is raised to fit.
    "Behind" is against the rim's outward normal: rims run along the faces around them, so clockwise seen from outside.
    """
    points = np.asarray(rim, dtype=np.float64)
    middle = points.mean(axis=0)
    arms = points - middle
    outward = -_double_area(points)
    length = np.linalg.norm(outward)
    spread = float(np.sqrt((arms**2).sum(axis=1).mean()))
    if not (np.isfinite(length) and length > 1e-9 * spread**2):
        raise CapError(
            "the lid rim encloses no area or holds a number that is not finite: no sphere can be fitted to it"
        )
    outward /= length
    radius = max(radius, 1.05 * float(np.linalg.norm(arms - np.outer(arms @ outward, outward), axis=1).max()))
    centre = middle - outward * np.sqrt(radius**2 - spread**2)
    for _ in range(20):
        rays = points - centre
        distance = np.linalg.norm(rays, axis=1)
        unit = rays / distance[:, None]
        normal = unit.T @ unit
        normal[np.diag_indices(3)] += 1e-9 * len(points)
        step = np.linalg.solve(normal, unit.T @ (distance - radius))
        centre = centre + step
        if np.linalg.norm(step) < 1e-9 * radius:
            break
    return np.asarray(centre)


def sphere_radius(points: ArrayLike) -> float:
    """Radius of an eyeball from its vertices [n, 3]: the median distance to the centre, which an algebraic sphere fit gives."""
    p = np.asarray(points, dtype=np.float64)
    origin = p.mean(axis=0)
    q = p - origin
    system = np.column_stack([2.0 * q, np.ones(len(q))])
    solution = np.linalg.lstsq(system.T @ system, system.T @ (q**2).sum(axis=1), rcond=None)[0]
    return float(np.median(np.linalg.norm(q - solution[:3], axis=1)))


def estimated_eye_radius(rim: ArrayLike) -> float:
    """Eyeball radius guessed from the width of the lid opening (see EYE_RADIUS_PER_WIDTH), in the unit of the rim."""
    p = np.asarray(rim, dtype=np.float64)
    return EYE_RADIUS_PER_WIDTH * float(np.sqrt(((p[:, None] - p[None]) ** 2).sum(axis=2).max()))


def _double_area(rim: Floats) -> Floats:
    """Twice the area vector [3] of a loop; the loop runs counter-clockwise about it."""
    arms = rim - rim.mean(axis=0)
    return np.asarray(np.cross(arms, np.roll(arms, -1, axis=0)).sum(axis=0))


def _project_to_plane(points: Floats) -> Floats:
    """Coordinates [n, 2] of a rim in the plane of its area vector, running counter-clockwise."""
    arms = points - points.mean(axis=0)
    normal = _double_area(points)
    normal = normal / (np.linalg.norm(normal) or 1.0)
    along = np.linalg.svd(arms - np.outer(arms @ normal, normal), full_matrices=False)[2][0]
    return np.column_stack([arms @ along, arms @ np.cross(normal, along)])


def _hexagonal_grid(low: Floats, high: Floats, spacing: float) -> Floats:
    """Points [k, 2] of a hexagonal grid centred on a box, with equal neighbour distances."""
    centre, half = 0.5 * (low + high), 0.5 * (high - low) + spacing
    rows = np.arange(-np.ceil(half[1] / (spacing * np.sqrt(0.75))), np.ceil(half[1] / (spacing * np.sqrt(0.75))) + 1)
    columns = np.arange(-np.ceil(half[0] / spacing), np.ceil(half[0] / spacing) + 1)
    x = columns[None] + 0.5 * (rows[:, None] % 2)
    y = np.broadcast_to(rows[:, None] * np.sqrt(0.75), x.shape)
    return np.asarray(centre + spacing * np.column_stack([x.ravel(), y.ravel()]))


def _cross2(a: Floats, b: Floats) -> Floats:
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])


def _in_polygon(points: Floats, polygon: Floats) -> NDArray[np.bool_]:
    """Even-odd test of points [k, 2] against a closed polygon [n, 2]."""
    a, b = polygon[None], np.roll(polygon, -1, axis=0)[None]
    x, y = points[:, None, 0], points[:, None, 1]
    straddles = (a[..., 1] > y) != (b[..., 1] > y)
    rise = np.where(straddles, b[..., 1] - a[..., 1], 1.0)
    crossing = a[..., 0] + (y - a[..., 1]) / rise * (b[..., 0] - a[..., 0])
    return np.asarray((straddles & (x < crossing)).sum(axis=1) % 2 == 1)


def _distance_to_polygon(points: Floats, polygon: Floats) -> Floats:
    """Distance [k] of points [k, 2] to the edges of a closed polygon [n, 2]."""
    a = polygon[None]
    edge = np.roll(polygon, -1, axis=0)[None] - a
    to = points[:, None] - a
    length = (edge**2).sum(axis=2)
    along = np.clip((to * edge).sum(axis=2) / np.where(length > 0, length, 1.0), 0.0, 1.0)
    return np.asarray(np.sqrt(((to - along[..., None] * edge) ** 2).sum(axis=2)).min(axis=1))


def _harmonic_weights(flat: Floats, faces: Ints, n: int) -> Floats:
    """Weights [m, n] that solve the cotangent Laplace equation on a planar mesh [n + m, 2] with its first n vertices given."""
    corners = flat[faces]
    smallest = 1e-12 * float(np.ptp(flat, axis=0).max()) ** 2  # three rim vertices may lie on a line
    rows, columns, values = [], [], []
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        one, two = corners[:, j] - corners[:, i], corners[:, k] - corners[:, i]
        cotangent = (one * two).sum(axis=1) / np.maximum(np.abs(_cross2(one, two)), smallest)
        rows += [faces[:, j], faces[:, k]]
        columns += [faces[:, k], faces[:, j]]
        values += [0.5 * cotangent, 0.5 * cotangent]
    size = len(flat)
    weights = sp.coo_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(size, size)
    ).tocsr()
    inner = sp.diags(np.asarray(weights.sum(axis=1)).ravel()[n:]) - weights[n:, n:]
    return np.asarray(spla.splu(inner.tocsc()).solve(weights[n:, :n].toarray()))
