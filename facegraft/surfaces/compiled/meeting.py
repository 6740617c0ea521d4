"""Which faces of a mesh touch or pass through others, in machine code.

Each leaf of the tree is compared with those whose boxes overlap its own, and their triangles in pairs (Möller 1997, "A fast triangle-triangle
intersection test"). Where rounding leaves it open, faces count as meeting.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from facegraft.arrays import Bools, Floats, Ints, Ints32
from facegraft.surfaces.compiled.boxtree import WAITING, WIDTH, BoxTree
from facegraft.surfaces.compiled.machine_code import compiled

TOUCHING = 1e-11
"""Share of the size of the mesh within which faces touch."""
FOLDED = 1e-10
"""Faces that share a side and fold back onto each other within this, as 1 + the cosine of their normals, touch beside it, too."""


def meeting(tree: BoxTree, faces: Ints, normals: Floats, flat: Bools, size: float) -> Bools:
    """Which faces [F, 3] touch or cross others elsewhere than along the sides and corners that they share [F]; also those that are lines,
    `flat` [F]. normals [F, 3]: unit; size: of the mesh."""
    return _meeting(*tree[:3], tree.corners, tree.faces, faces, normals, flat, TOUCHING * size, WIDTH)


@compiled
def _cross(a: Any, b: Any) -> tuple[float, float, float]:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@compiled
def _height(normals: Floats, g: int, corners: Floats, start: int, slot: int, k: int, touching: float) -> float:
    """Height of corner k of a slot over the plane through the first corner of slot `start` with normal g; 0 where it touches it."""
    height = 0.0
    for m in range(3):
        height += normals[g, m] * (corners[slot, 3 * k + m] - corners[start, m])
    return height if np.abs(height) > touching else 0.0


@compiled
def _heights(normals: Floats, g: int, corners: Floats, start: int, slot: int, touching: float) -> tuple[float, float, float]:
    """`_height` of the three corners of a slot."""
    return (
        _height(normals, g, corners, start, slot, 0, touching),
        _height(normals, g, corners, start, slot, 1, touching),
        _height(normals, g, corners, start, slot, 2, touching),
    )


@compiled
def _beside(a: float, b: float, c: float, shared: int) -> bool:
    """Whether heights of corners tell that a triangle lies on one side of a plane, but for a corner that is shared."""
    zeros = (a == 0.0) + (b == 0.0) + (c == 0.0)
    return zeros <= shared and (min(a, b, c) >= 0.0 or max(a, b, c) <= 0.0)


@compiled
def _span(a: float, b: float, c: float, pa: float, pb: float, pc: float) -> tuple[float, float]:
    """Where a triangle meets a plane, by the heights a, b, c of its corners over it and their places along the common line."""
    least, most = np.inf, -np.inf
    for x, y, px, py in ((a, b, pa, pb), (b, c, pb, pc), (c, a, pc, pa)):
        if x == 0.0:
            least, most = min(least, px), max(most, px)
        if x * y < 0.0:
            place = px + (py - px) * x / (x - y)
            least, most = min(least, place), max(most, place)
    return least, most


@compiled
def _apart_in_plane(corners: Floats, slot: int, other: int, normals: Floats, f: int, gap: float) -> bool:
    """Whether a side of the triangle in a slot has another triangle beyond it, by more than a gap."""
    for k in range(3):
        a, b = 3 * k, 3 * ((k + 1) % 3)
        side = (corners[slot, b] - corners[slot, a], corners[slot, b + 1] - corners[slot, a + 1], corners[slot, b + 2] - corners[slot, a + 2])
        out = _cross(side, (normals[f, 0], normals[f, 1], normals[f, 2]))
        length = np.sqrt(out[0] * out[0] + out[1] * out[1] + out[2] * out[2])
        nearest = np.inf
        for j in range(3):
            beyond = 0.0
            for i in range(3):
                beyond += out[i] * (corners[other, 3 * j + i] - corners[slot, a + i])
            nearest = min(nearest, beyond)
        if nearest > gap * length:
            return True
    return False


@compiled
def _meet(corners: Floats, slot: int, other: int, normals: Floats, f: int, g: int, shared: int, touching: float) -> bool:
    """Whether two triangles touch or cross elsewhere than in the corners that they share, fewer than two (Möller 1997)."""
    a, b, c = _heights(normals, g, corners, other, slot, touching)
    if _beside(a, b, c, shared):
        return False
    d, e, h = _heights(normals, f, corners, slot, other, touching)
    if _beside(d, e, h, shared):
        return False
    if (a == 0.0 and b == 0.0 and c == 0.0) or (d == 0.0 and e == 0.0 and h == 0.0):
        gap = touching if shared == 0 else -touching
        return not (
            _apart_in_plane(corners, slot, other, normals, f, gap) or _apart_in_plane(corners, other, slot, normals, g, gap)
        )
    line = _cross((normals[f, 0], normals[f, 1], normals[f, 2]), (normals[g, 0], normals[g, 1], normals[g, 2]))
    axis, largest = 0, -1.0
    for k in range(3):
        if np.abs(line[k]) > largest:
            axis, largest = k, np.abs(line[k])
    low, high = _span(a, b, c, corners[slot, axis], corners[slot, 3 + axis], corners[slot, 6 + axis])
    other_low, other_high = _span(d, e, h, corners[other, axis], corners[other, 3 + axis], corners[other, 6 + axis])
    common = min(high, other_high) - max(low, other_low)
    return common > touching if shared > 0 else common >= -touching


@compiled
def _triangle_boxes(corners: Floats, touching: float) -> Floats:
    """Boxes [L, 6, WIDTH] of the triangles of each leaf, with half of `touching` around them."""
    boxes = np.empty((len(corners) // WIDTH, 6, WIDTH))
    for slot in range(len(corners)):
        for m in range(3):
            a, b, c = corners[slot, m], corners[slot, 3 + m], corners[slot, 6 + m]
            boxes[slot // WIDTH, m, slot % WIDTH] = min(a, b, c) - 0.5 * touching
            boxes[slot // WIDTH, 3 + m, slot % WIDTH] = max(a, b, c) + 0.5 * touching
    return boxes


@compiled
def _overlaps(box: Floats, low: Floats, high: Floats, out: Floats) -> None:
    """How far apart a box [3] is from each of the boxes [6, WIDTH] along the axis on which they are farthest apart; not positive where they
    overlap. As the loops in `boxtree`, it is run on WIDTH numbers at a time."""
    for j in range(out.shape[0]):
        gap, other = box[0, j] - high[0], low[0] - box[3, j]
        gap = gap if gap > other else other
        other = box[1, j] - high[1]
        gap = gap if gap > other else other
        other = low[1] - box[4, j]
        gap = gap if gap > other else other
        other = box[2, j] - high[2]
        gap = gap if gap > other else other
        other = low[2] - box[5, j]
        out[j] = gap if gap > other else other


@compiled
def _meeting(
    boxes: Floats,
    children: Ints32,
    sizes: Ints32,
    corners: Floats,
    numbers: Ints,
    faces: Ints,
    normals: Floats,
    flat: Bools,
    touching: float,
    width: int,
) -> Bools:
    """Which faces [F] touch or cross others elsewhere than along the sides and corners that they share; also those that are lines.

    width: WIDTH, which the compiler must not know (`search`).
    """
    met = flat.copy()
    work = np.empty((2, 3))
    own = _triangle_boxes(corners, touching)
    waiting, low, high = np.empty(WAITING, np.int32), np.empty(3), np.empty(3)
    gaps, near = np.empty(width), np.empty(width)
    for node in range(len(children)):
        for lane in range(WIDTH):
            if sizes[node, lane] <= 0:
                continue
            leaf, count = children[node, lane], sizes[node, lane]
            for m in range(3):
                low[m], high[m] = boxes[node, m, lane] - touching, boxes[node, 3 + m, lane] + touching
            waiting[0], top = 0, 1
            while top > 0:
                top -= 1
                inner = waiting[top]
                _overlaps(boxes[inner], low, high, gaps)
                for j in range(WIDTH):
                    if gaps[j] > 0.0 or sizes[inner, j] < 0:
                        continue
                    child = children[inner, j]
                    if sizes[inner, j] == 0:
                        waiting[top] = child
                        top += 1
                    elif child >= leaf:
                        _leaf_meeting(
                            leaf, count, child, sizes[inner, j], own, corners, numbers, faces, normals, flat, touching, met, work, near
                        )
    return met


@compiled
def _leaf_meeting(
    leaf: int,
    count: int,
    child: int,
    size: int,
    own: Floats,
    corners: Floats,
    numbers: Ints,
    faces: Ints,
    normals: Floats,
    flat: Bools,
    touching: float,
    met: Bools,
    work: Floats,
    near: Floats,
) -> None:
    """Notes in `met` which triangles of two leaves meet, each pair once."""
    low, high = work[0], work[1]
    for rank in range(count):
        slot = leaf * WIDTH + rank
        f = numbers[slot]
        if flat[f]:
            continue
        for m in range(3):
            low[m], high[m] = own[leaf, m, rank], own[leaf, 3 + m, rank]
        _overlaps(own[child], low, high, near)
        for k in range(size):
            other = child * WIDTH + k
            g = numbers[other]
            # Nothing new can be found of two that are known to meet others.
            if near[k] > 0.0 or other <= slot or flat[g] or (met[f] and met[g]):
                continue
            shared = 0
            for a in range(3):
                for b in range(3):
                    shared += faces[f, a] == faces[g, b]
            if shared >= 2:
                cosine = normals[f, 0] * normals[g, 0] + normals[f, 1] * normals[g, 1] + normals[f, 2] * normals[g, 2]
                touch = cosine < FOLDED - 1.0 or shared == 3
            else:
                touch = _meet(corners, slot, other, normals, f, g, shared, touching)
            if touch:
                met[f] = met[g] = True
