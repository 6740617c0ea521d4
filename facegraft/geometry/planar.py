"""Constrained Delaunay triangulation of a polygon with points inside it, by insertion and edge flips (Lawson 1977).

Meant for the few hundred points of a cap, once per topology. scipy's Delaunay has no constraints, so it may cut across
a polygon's sharp corners.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facegraft.arrays import Ints


def refine_delaunay(points: ArrayLike, faces: ArrayLike, barred: Collection[tuple[int, int]] = ()) -> Ints | None:
    """Insert the unused points [k, 2] into a triangulation of a polygon and flip its edges until they are Delaunay.

    `faces` [T, 3] triangulate the polygon counter-clockwise; points that they do not use must lie inside it. The
    polygon's own edges stay; an edge of `barred` (both directions given) is never made. Returns faces
    counter-clockwise, or None where a point lies in no triangle or the flips do not settle (overlapping input).
    """
    xy = np.asarray(points, dtype=np.float64)
    start = np.asarray(faces, dtype=np.int64)
    new = np.setdiff1d(np.arange(len(xy)), start)
    mesh = np.zeros((len(start) + 2 * len(new), 3), dtype=np.int64)
    mesh[: len(start)] = start
    count = len(start)
    for p in new.tolist():
        home = _triangle_around(xy, mesh[:count], p)
        if home is None:
            return None
        a, b, c = mesh[home]
        mesh[home] = (a, b, p)
        mesh[count : count + 2] = [(b, c, p), (c, a, p)]
        count += 2
    # third[a, b] is the last vertex of the triangle that runs a -> b
    third = {edge: c for a, b, c in mesh.tolist() for edge, c in (((a, b), c), ((b, c), a), ((c, a), b))}
    queue = sorted(edge for edge in third if edge[0] < edge[1])
    tolerance = 1e-10 * float(np.ptp(xy, axis=0).max()) ** 4
    for _ in range(100 * len(third)):
        if not queue:
            return _faces(third)
        a, b = queue.pop()
        if (a, b) not in third or (b, a) not in third:
            continue
        c, d = third[a, b], third[b, a]
        if (
            (c, d) in barred
            or (c, d) in third
            or (d, c) in third
            or _in_circle(xy[a], xy[b], xy[c], xy[d]) <= tolerance
        ):
            continue
        # Where the polygon overlaps itself, some triangles are inverted: skip those, and flips that would invert more.
        if (
            min(_turn(xy[a], xy[b], xy[c]), _turn(xy[b], xy[a], xy[d])) < 0.0
            or min(_turn(xy[a], xy[d], xy[c]), _turn(xy[d], xy[b], xy[c])) <= 0.0
        ):
            continue
        for edge in ((a, b), (b, c), (c, a), (b, a), (a, d), (d, b)):
            del third[edge]
        for i, j, k in ((a, d, c), (d, b, c)):
            third[i, j], third[j, k], third[k, i] = k, i, j
        queue += [(a, d), (d, b), (b, c), (c, a)]
    return None


def _triangle_around(xy: NDArray[np.float64], mesh: Ints, p: int) -> int | None:
    """A triangle that contains the point: the one whose smallest signed sub-area is largest, if not negative."""
    corner = xy[mesh] - xy[p]
    a, b, c = corner[:, 0], corner[:, 1], corner[:, 2]
    turns = np.stack([x[:, 0] * y[:, 1] - x[:, 1] * y[:, 0] for x, y in ((a, b), (b, c), (c, a))])
    least = turns.min(axis=0)
    best = int(least.argmax())
    return best if least[best] >= 0.0 else None


def _turn(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]) -> float:
    """Twice the area of the triangle a, b, c: positive counter-clockwise."""
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


def _in_circle(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64], d: NDArray[np.float64]) -> float:
    """Positive where d lies inside the circle through a, b, c (counter-clockwise)."""
    (ax, ay), (bx, by), (cx, cy) = (a - d).tolist(), (b - d).tolist(), (c - d).tolist()
    return float(
        (ax * ax + ay * ay) * (bx * cy - cx * by)
        - (bx * bx + by * by) * (ax * cy - cx * ay)
        + (cx * cx + cy * cy) * (ax * by - bx * ay)
    )


def _faces(third: dict[tuple[int, int], int]) -> Ints:
    """The triangles of an edge map, each once, in a fixed order."""
    return np.array(sorted((a, b, c) for (a, b), c in third.items() if a < b and a < c), dtype=np.int64)
