"""Looking things up in a tree of boxes, in machine code: nearest points, and the crossings of a line along an axis. Everything is in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Floats, Ints, Ints32
from facegraft.surfaces.compiled.boxtree import FLAT, WAITING, WIDTH, BoxTree
from facegraft.surfaces.compiled.machine_code import compiled

CELLS = 1024
"""Cells along the longest side of the box of the points, by which they are put in order."""
LOWER_HALF = (1 << 32) - 1
ROUNDED = 1.0 - 1e-12
"""Boxes this much beyond the nearest triangle may hold another one as near, but for rounding."""


def near_together(points: Floats) -> Ints:
    """An order [n] of points [n, 3] in which neighbours follow each other, along the Z curve of Morton 1966: `nearest_triangles` begins the
    search of each with what it found for the one before."""
    extent = float(np.ptp(points, axis=0).max()) if len(points) else 0.0
    scale = CELLS / extent if extent > 0.0 else 0.0
    keys = _places(points, points.min(axis=0, initial=np.inf), scale if np.isfinite(scale) else 0.0)
    return np.sort(keys) & LOWER_HALF


def nearest_triangles(tree: BoxTree, points: Floats, order: Ints) -> tuple[Ints, Floats, Floats, NDArray[np.int8]]:
    """For points [n, 3], looked up in this order: slot [n], nearest point [n, 3], distance [n] and feature [n] of the triangle on which it lies:
    0, 1, 2 for its corners, 3 + i for the side from corner i, 6 for its inside."""
    return _nearest(*tree[:5], points, order, WIDTH)


def crossing_number(tree: BoxTree, point: Floats, axis: int, direction: float, own: int) -> tuple[int, bool]:
    """How often the half line from a point [3] along an axis leaves what the triangles enclose, less how often it enters it, leaving out the
    triangle in slot `own` (-1: none); and whether it could be told, which a line through a corner or a side cannot.

    It is the winding number of a closed mesh about the point. Neighbours agree on which side of their common edge a line passes, as the same
    products decide it for both, so that no crossing is counted twice or lost.
    """
    return _crossings(tree.boxes, tree.children, tree.sizes, tree.corners, point, axis, direction, own)


# -- nearest points ---------------------------------------------------------------------------------------------------
# The two functions with a loop over out.shape[0] are those that the processor runs on WIDTH numbers at a time. The compiler sees to it where
# it does not know that length beforehand, and where there is no branch: hence the conditional expressions.


@compiled
def _box_distances(box: Floats, x: float, y: float, z: float, out: Floats) -> None:
    """Squared distances [WIDTH] of a point to boxes [6, WIDTH]."""
    for j in range(out.shape[0]):
        dx, e = box[0, j] - x, x - box[3, j]
        dx = dx if dx > e else e
        dx = dx if dx > 0.0 else 0.0
        dy, e = box[1, j] - y, y - box[4, j]
        dy = dy if dy > e else e
        dy = dy if dy > 0.0 else 0.0
        dz, e = box[2, j] - z, z - box[5, j]
        dz = dz if dz > e else e
        dz = dz if dz > 0.0 else 0.0
        out[j] = dx * dx + dy * dy + dz * dz


@compiled
def _leaf_distances(plane: Floats, x: float, y: float, z: float, out: Floats) -> None:
    """Squared distances [WIDTH] of a point to the triangles of a leaf [18, WIDTH]: to the plane over its inside, else to its nearest side."""
    for j in range(out.shape[0]):
        px, py, pz = x - plane[0, j], y - plane[1, j], z - plane[2, j]
        ux, uy, uz = plane[3, j], plane[4, j], plane[5, j]
        wx, wy, wz = plane[6, j], plane[7, j], plane[8, j]
        d1 = ux * px + uy * py + uz * pz
        d2 = wx * px + wy * py + wz * pz
        t = d1 * plane[9, j]
        t = t if t > 0.0 else 0.0
        t = t if t < 1.0 else 1.0
        rx, ry, rz = px - t * ux, py - t * uy, pz - t * uz
        best = rx * rx + ry * ry + rz * rz
        t = d2 * plane[10, j]
        t = t if t > 0.0 else 0.0
        t = t if t < 1.0 else 1.0
        rx, ry, rz = px - t * wx, py - t * wy, pz - t * wz
        side = rx * rx + ry * ry + rz * rz
        best = best if best < side else side
        qx, qy, qz = px - ux, py - uy, pz - uz
        ex, ey, ez = wx - ux, wy - uy, wz - uz
        t = (ex * qx + ey * qy + ez * qz) * plane[11, j]
        t = t if t > 0.0 else 0.0
        t = t if t < 1.0 else 1.0
        rx, ry, rz = qx - t * ex, qy - t * ey, qz - t * ez
        side = rx * rx + ry * ry + rz * rz
        best = best if best < side else side
        v = plane[12, j] * d1 - plane[13, j] * d2
        w = plane[14, j] * d2 - plane[13, j] * d1
        height = plane[15, j] * px + plane[16, j] * py + plane[17, j] * pz
        rest = 1.0 - v - w
        inside = v if v < w else w
        inside = inside if inside < rest else rest
        out[j] = height * height if inside > 0.0 else best


@compiled
def _on_triangle(corners: Floats, x: float, y: float, z: float) -> tuple[int, float, float, float]:
    """Feature, and the nearest point, of a triangle's nine coordinates: the regions of Ericson, "Real-Time Collision Detection", 5.1.5."""
    ax, ay, az = corners[0], corners[1], corners[2]
    ux, uy, uz = corners[3] - ax, corners[4] - ay, corners[5] - az
    wx, wy, wz = corners[6] - ax, corners[7] - ay, corners[8] - az
    px, py, pz = x - ax, y - ay, z - az
    d1, d2 = ux * px + uy * py + uz * pz, wx * px + wy * py + wz * pz
    uu, uw, ww = ux * ux + uy * uy + uz * uz, ux * wx + uy * wy + uz * wz, wx * wx + wy * wy + wz * wz
    d3, d4, d5, d6 = d1 - uu, d2 - uw, d1 - uw, d2 - ww
    vc, vb, va = d1 * d4 - d3 * d2, d5 * d2 - d1 * d6, d3 * d6 - d5 * d4
    if d1 <= 0.0 and d2 <= 0.0:
        return 0, ax, ay, az
    if d3 >= 0.0 and d4 <= d3:
        return 1, corners[3], corners[4], corners[5]
    if d6 >= 0.0 and d5 <= d6:
        return 2, corners[6], corners[7], corners[8]
    nx, ny, nz = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
    flat = not nx * nx + ny * ny + nz * nz > FLAT * uu * ww
    if flat or vc <= 0.0 or vb <= 0.0 or va <= 0.0:
        # The nearest of the three sides, which in a flat triangle the products above do not tell.
        t1 = min(max(d1 / uu, 0.0), 1.0) if uu > 0.0 else 0.0
        t2 = min(max(d2 / ww, 0.0), 1.0) if ww > 0.0 else 0.0
        ex, ey, ez = wx - ux, wy - uy, wz - uz
        ee = ex * ex + ey * ey + ez * ez
        t3 = min(max((ex * (px - ux) + ey * (py - uy) + ez * (pz - uz)) / ee, 0.0), 1.0) if ee > 0.0 else 0.0
        r1 = (px - t1 * ux) ** 2 + (py - t1 * uy) ** 2 + (pz - t1 * uz) ** 2
        r2 = (px - t2 * wx) ** 2 + (py - t2 * wy) ** 2 + (pz - t2 * wz) ** 2
        r3 = (px - ux - t3 * ex) ** 2 + (py - uy - t3 * ey) ** 2 + (pz - uz - t3 * ez) ** 2
        if r1 <= r2 and r1 <= r3:
            feature = 0 if t1 == 0.0 else 1 if t1 == 1.0 else 3
            return feature, ax + t1 * ux, ay + t1 * uy, az + t1 * uz
        if r3 <= r2:
            feature = 1 if t3 == 0.0 else 2 if t3 == 1.0 else 4
            return feature, corners[3] + t3 * ex, corners[4] + t3 * ey, corners[5] + t3 * ez
        feature = 0 if t2 == 0.0 else 2 if t2 == 1.0 else 5
        return feature, ax + t2 * wx, ay + t2 * wy, az + t2 * wz
    share = 1.0 / (va + vb + vc)
    v, w = vb * share, vc * share
    return 6, ax + v * ux + w * wx, ay + v * uy + w * wy, az + v * uz + w * wz


@compiled
def _nearest(
    boxes: Floats, children: Ints32, sizes: Ints32, planes: Floats, corners: Floats, points: Floats, order: Ints, width: int
) -> tuple[Ints, Floats, Floats, NDArray[np.int8]]:
    """`nearest_triangles`; width is WIDTH, which the compiler must not know (above)."""
    count = len(points)
    slots, nearest, distance = np.empty(count, np.int64), np.empty((count, 3)), np.empty(count)
    features = np.empty(count, np.int8)
    waiting, beyond = np.empty(WAITING, np.int32), np.empty(WAITING)
    gaps, found = np.empty(width), np.empty(width)
    slot = 0
    for i in order:
        x, y, z = points[i]
        # Points follow each other in space: what was nearest to the last one is not far from this one.
        leaf = slot // WIDTH
        _leaf_distances(planes[leaf], x, y, z, found)
        slot, best = leaf * WIDTH, found[0]
        for j in range(1, WIDTH):
            if found[j] < best:
                slot, best = leaf * WIDTH + j, found[j]
        waiting[0], beyond[0], top = 0, 0.0, 1
        while top > 0:
            top -= 1
            if beyond[top] * ROUNDED > best:
                continue
            node = waiting[top]
            _box_distances(boxes[node], x, y, z, gaps)
            base = top
            for j in range(WIDTH):
                gap, size = gaps[j], sizes[node, j]
                if gap * ROUNDED > best or size < 0:
                    continue
                child = children[node, j]
                if size > 0:
                    _leaf_distances(planes[child], x, y, z, found)
                    for k in range(size):
                        place = child * WIDTH + k
                        if found[k] < best or (found[k] == best and place < slot):
                            slot, best = place, found[k]
                else:
                    k = top
                    while k > base and beyond[k - 1] < gap:
                        waiting[k], beyond[k] = waiting[k - 1], beyond[k - 1]
                        k -= 1
                    waiting[k], beyond[k] = child, gap
                    top += 1
        feature, qx, qy, qz = _on_triangle(corners[slot], x, y, z)
        slots[i], features[i] = slot, feature
        nearest[i] = qx, qy, qz
        distance[i] = np.sqrt((x - qx) ** 2 + (y - qy) ** 2 + (z - qz) ** 2)
    return slots, nearest, distance, features


@compiled
def _places(points: Floats, least: Floats, scale: float) -> Ints:
    """Of each point the place of its cell on the curve and, in the lower half, its own number."""
    places = np.empty(len(points), np.int64)
    for i in range(len(points)):
        place = 0
        for k in range(3):
            cell = min(int((points[i, k] - least[k]) * scale), CELLS - 1)
            cell = (cell | cell << 16) & 0x030000FF
            cell = (cell | cell << 8) & 0x0300F00F
            cell = (cell | cell << 4) & 0x030C30C3
            cell = (cell | cell << 2) & 0x09249249
            place |= cell << k
        places[i] = place << 32 | i
    return places


# -- lines along an axis ----------------------------------------------------------------------------------------------


@compiled
def _side_of(au: float, av: float, bu: float, bv: float) -> float:
    """Twice the signed area of the triangle of the origin, a and b; exactly the opposite of that with a and b exchanged."""
    return au * bv - av * bu


@compiled
def _crossings(
    boxes: Floats, children: Ints32, sizes: Ints32, corners: Floats, point: Floats, axis: int, direction: float, own: int
) -> tuple[int, bool]:
    """`crossing_number`."""
    u, v = (axis + 1) % 3, (axis + 2) % 3
    pu, pv, pw = point[u], point[v], point[axis]
    waiting = np.empty(WAITING, np.int32)
    waiting[0], top, number = 0, 1, 0
    while top > 0:
        top -= 1
        node = waiting[top]
        for j in range(WIDTH):
            size = sizes[node, j]
            ahead = boxes[node, 3 + axis, j] >= pw if direction > 0.0 else boxes[node, axis, j] <= pw
            if size < 0 or not ahead or not boxes[node, u, j] <= pu <= boxes[node, 3 + u, j]:
                continue
            if not boxes[node, v, j] <= pv <= boxes[node, 3 + v, j]:
                continue
            child = children[node, j]
            if size == 0:
                waiting[top] = child
                top += 1
                continue
            for k in range(size):
                slot = child * WIDTH + k
                if slot == own:
                    continue
                t = corners[slot]
                au, av, bu, bv, cu, cv = t[u] - pu, t[v] - pv, t[3 + u] - pu, t[3 + v] - pv, t[6 + u] - pu, t[6 + v] - pv
                ea, eb, ec = _side_of(bu, bv, cu, cv), _side_of(cu, cv, au, av), _side_of(au, av, bu, bv)
                least, most = min(ea, eb, ec), max(ea, eb, ec)
                if least < 0.0 < most:
                    continue
                above = ea * (t[axis] - pw) + eb * (t[3 + axis] - pw) + ec * (t[6 + axis] - pw)
                if least == 0.0 or most == 0.0 or above == 0.0:
                    return 0, False
                side = 1 if least > 0.0 else -1
                if above * side * direction > 0.0:
                    number += side if direction > 0.0 else -side
    return number, True
