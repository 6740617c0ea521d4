"""A tree of boxes over triangles, built in machine code; `search` looks things up in it.

Each node holds the boxes of up to WIDTH children, and each leaf up to WIDTH triangles, side by side, so that the processor takes a whole
node or leaf in a few instructions. Splits follow the surface area heuristic in bins (Wald 2007, "On fast construction of SAH-based bounding
volume hierarchies"). Everything is in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from facegraft.arrays import Floats, Ints, Ints32
from facegraft.surfaces.compiled.machine_code import compiled

WIDTH = 8
"""Children of a node, and triangles of a leaf."""
BINS = 8
"""Places along an axis at which a node may be split."""
UNEVEN = 40
"""Levels after which nodes are split in the middle of their order: that many uneven splits only come of triangles of very different sizes."""
WAITING = 1024
"""Room for the nodes that wait: WIDTH for each level, of which there are fewer than UNEVEN + 64."""
FLAT = 1e-14
"""Squared sine of the angle at a corner below which a triangle is a line: only its sides count. They are within 1e-7 of its length of it."""


class BoxTree(NamedTuple):
    """N nodes and L leaves over triangles. A slot is a triangle's place in a leaf; slots that are not needed repeat the one before them.

    boxes      [N, 6, WIDTH]   f64  least and greatest x, y, z of each child
    children   [N, WIDTH]      i32  node or leaf
    sizes      [N, WIDTH]      i32  triangles of a leaf; 0 for a node, -1 for nothing
    planes     [L, 18, WIDTH]  f64  what `_leaf_distances` needs of each triangle
    corners    [L · WIDTH, 9]  f64  the three corners of each slot's triangle
    faces      [L · WIDTH]     i64  its number
    """

    boxes: Floats
    children: Ints32
    sizes: Ints32
    planes: Floats
    corners: Floats
    faces: Ints


def build_tree(corners: Floats) -> BoxTree:
    """The tree over triangles with corners [F, 3, 3], F > 0."""
    order, boxes, children, sizes = _binary(corners)
    planes, slots, faces = _leaves(corners, order, children, sizes, int((sizes > 0).sum()))
    return BoxTree(*_widened(boxes, children, sizes), planes, slots, faces)


@compiled
def _half_area(box: Floats, i: int) -> float:
    a, b, c = box[i, 3] - box[i, 0], box[i, 4] - box[i, 1], box[i, 5] - box[i, 2]
    return a * b + b * c + c * a


@compiled
def _empty(boxes: Floats, i: int) -> None:
    for k in range(3):
        boxes[i, k] = np.inf
        boxes[i, 3 + k] = -np.inf


@compiled
def _grow(boxes: Floats, i: int, others: Floats, j: int) -> None:
    """Box i takes in box j of the others."""
    for k in range(3):
        low, high = others[j, k], others[j, 3 + k]
        if low < boxes[i, k]:
            boxes[i, k] = low
        if high > boxes[i, 3 + k]:
            boxes[i, 3 + k] = high


@compiled
def _bin_of(own: Floats, t: int, axis: int, start: float, scale: float) -> int:
    return min(int((0.5 * (own[t, axis] + own[t, 3 + axis]) - start) * scale), BINS - 1)


@compiled
def _best_split(own: Floats, order: Ints, begin: int, end: int, bins: Floats, counts: Ints, costs: Floats, run: Floats) -> tuple[int, int, float, float]:
    """Axis, first bin of the right side, and start and scale of the bins, of the split of least cost across the longest side of the middles' box;
    axis -1 where the middles coincide."""
    _empty(run, 0)
    for i in range(begin, end):
        for k in range(3):
            middle = 0.5 * (own[order[i], k] + own[order[i], 3 + k])
            run[0, k], run[0, 3 + k] = min(run[0, k], middle), max(run[0, 3 + k], middle)
    axis = 0
    for k in range(1, 3):
        if run[0, 3 + k] - run[0, k] > run[0, 3 + axis] - run[0, axis]:
            axis = k
    start = run[0, axis]
    scale = BINS / (run[0, 3 + axis] - start)
    if not np.isfinite(scale):
        return -1, 0, 0.0, 0.0
    for j in range(BINS):
        counts[j] = 0
        _empty(bins, j)
    for i in range(begin, end):
        j = _bin_of(own, order[i], axis, start, scale)
        counts[j] += 1
        _grow(bins, j, own, order[i])
    _empty(run, 1)
    count = 0
    for j in range(BINS - 1):
        count += counts[j]
        _grow(run, 1, bins, j)
        costs[j] = count * _half_area(run, 1) if count > 0 else 0.0
    _empty(run, 1)
    count, best, split = 0, np.inf, 1
    for j in range(BINS - 1, 0, -1):
        count += counts[j]
        _grow(run, 1, bins, j)
        if 0 < count < end - begin:
            cost = count * _half_area(run, 1) + costs[j - 1]
            if cost < best:
                best, split = cost, j
    return axis, split, start, scale


@compiled
def _binary(corners: Floats) -> tuple[Ints, Floats, Ints32, Ints32]:
    """A binary tree over triangles [F, 3, 3]: their order, and of each node's two children the box [2 N, 6], the node or the first place in the
    order [2 N], and the number of triangles [2 N] (0 for a node, -1 for nothing)."""
    count = len(corners)
    order, own = np.arange(count), np.empty((count, 6))
    for t in range(count):
        for k in range(3):
            own[t, k] = min(corners[t, 0, k], corners[t, 1, k], corners[t, 2, k])
            own[t, 3 + k] = max(corners[t, 0, k], corners[t, 1, k], corners[t, 2, k])
    boxes = np.empty((2 * count, 6))
    children, sizes = np.empty(2 * count, np.int32), np.zeros(2 * count, np.int32)
    waiting = np.empty((count + 1, 4), np.int64)
    bins, counts, costs, run = np.empty((BINS, 6)), np.empty(BINS, np.int64), np.empty(BINS), np.empty((2, 6))
    waiting[0] = 0, count, 0, 0
    top, nodes = 1, 1
    while top > 0:
        top -= 1
        begin, end, node, level = waiting[top]
        axis, split, start, scale = _best_split(own, order, begin, end, bins, counts, costs, run)
        middle = (begin + end) // 2
        if axis >= 0 and level < UNEVEN:
            middle, last = begin, end - 1
            while middle <= last:
                t = order[middle]
                if _bin_of(own, t, axis, start, scale) < split:
                    middle += 1
                else:
                    order[middle], order[last] = order[last], t
                    last -= 1
        for side in range(2):
            first, stop = (begin, middle) if side == 0 else (middle, end)
            child = 2 * node + side
            _empty(boxes, child)
            for i in range(first, stop):
                _grow(boxes, child, own, order[i])
            children[child], sizes[child] = first, stop - first
            if stop == first:
                sizes[child] = -1
            elif stop - first > WIDTH:
                children[child], sizes[child] = nodes, 0
                waiting[top] = first, stop, nodes, level + 1
                top += 1
                nodes += 1
    return order, boxes[: 2 * nodes].copy(), children[: 2 * nodes].copy(), sizes[: 2 * nodes].copy()


@compiled
def _leaves(corners: Floats, order: Ints, children: Ints32, sizes: Ints32, count: int) -> tuple[Floats, Floats, Ints]:
    """planes, corners and faces of a tree; the children that are leaves become their numbers."""
    planes = np.zeros((count, 18, WIDTH))
    slots, faces = np.empty((count * WIDTH, 9)), np.empty(count * WIDTH, np.int64)
    leaf = 0
    for child in range(len(children)):
        size = sizes[child]
        if size > 0:
            for j in range(WIDTH):
                t = order[children[child] + min(j, size - 1)]
                a, b, c = corners[t, 0], corners[t, 1], corners[t, 2]
                slot = leaf * WIDTH + j
                faces[slot] = t
                slots[slot, :3], slots[slot, 3:6], slots[slot, 6:] = a, b, c
                ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
                wx, wy, wz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
                ex, ey, ez = c[0] - b[0], c[1] - b[1], c[2] - b[2]
                uu, uw, ww = ux * ux + uy * uy + uz * uz, ux * wx + uy * wy + uz * wz, wx * wx + wy * wy + wz * wz
                ee = ex * ex + ey * ey + ez * ez
                nx, ny, nz = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
                square = nx * nx + ny * ny + nz * nz
                flat = not square > FLAT * uu * ww
                inverse = 0.0 if flat else 1.0 / square
                root = np.sqrt(inverse)
                values = (
                    a[0], a[1], a[2], ux, uy, uz, wx, wy, wz,
                    1.0 / uu if uu > 0.0 else 0.0, 1.0 / ww if ww > 0.0 else 0.0, 1.0 / ee if ee > 0.0 else 0.0,
                    ww * inverse, uw * inverse, uu * inverse, nx * root, ny * root, nz * root,
                )  # fmt: skip
                for k, value in enumerate(values):
                    planes[leaf, k, j] = value
            children[child] = leaf
            leaf += 1
    return planes, slots, faces


@compiled
def _widened(boxes: Floats, children: Ints32, sizes: Ints32) -> tuple[Floats, Ints32, Ints32]:
    """boxes, children and sizes of a tree whose nodes take in their largest children until they have WIDTH."""
    count = len(children) // 2
    wide, kin = np.empty((count, 6, WIDTH)), np.zeros((count, WIDTH), np.int32)
    own = np.full((count, WIDTH), -1, np.int32)
    queue = np.zeros(count, np.int32)
    taken = np.empty(WIDTH, np.int64)
    done, filled = 0, 1
    while done < filled:
        taken[0], taken[1], many = 2 * queue[done], 2 * queue[done] + 1, 2
        while many < WIDTH:
            largest, area = -1, -1.0
            for j in range(many):
                if sizes[taken[j]] == 0 and _half_area(boxes, taken[j]) > area:
                    largest, area = j, _half_area(boxes, taken[j])
            if largest < 0:
                break
            inner = 2 * children[taken[largest]]
            taken[largest], taken[many] = inner, inner + 1
            many += 1
        for j in range(WIDTH):
            for k in range(3):
                wide[done, k, j], wide[done, 3 + k, j] = np.inf, -np.inf
            if j < many:
                child = taken[j]
                for k in range(6):
                    wide[done, k, j] = boxes[child, k]
                own[done, j], kin[done, j] = sizes[child], children[child]
                if sizes[child] == 0:
                    kin[done, j] = filled
                    queue[filled] = children[child]
                    filled += 1
        done += 1
    return wide[:done].copy(), kin[:done].copy(), own[:done].copy()
