"""On which side of a closed mesh points lie, exactly: in machine code.

The straight line from a point to its nearest point c of the mesh meets the mesh only there. So the point has the winding number of the side of
the mesh from which it is seen, at c. Where the faces about c meet no others, that number is the same for all faces that are joined
with them through faces that meet no others (a *patch*), and the side is told by the pseudonormal at c (Bærentzen and Aanæs 2005): one
number for each patch answers for nearly all points, with no winding number of their own. Where faces pass through each other (closed
lips and lids do), at vertices where two sheets touch, and where a direction is too near the tangent to be told by it, the winding number of the
point itself is counted along a line.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Floats, Ints
from facegraft.surfaces.compiled.boxtree import FLAT, WAITING, WIDTH, BoxTree, Indices, crossing_number
from facegraft.surfaces.compiled.machine_code import compiled

TANGENT = 1e-6
"""Cosine between a direction and a pseudonormal below which it does not tell the side."""
TOUCHING = 1e-11
"""Share of the size of the mesh within which faces touch."""
FOLDED = 1e-10
"""Faces that share a side and fold back onto each other within this, as 1 + the cosine of their normals, touch beside it, too."""


Mask = NDArray[np.bool_]


class Sides(NamedTuple):
    """What tells the side, of a closed mesh of F faces and V vertices.

    normals   [F, 3]  f64  unit normals of the faces
    across    [F, 3]  i64  the face beyond each side
    at_vertex [V, 3]  f64  pseudonormals, not of length 1
    patches   [F]     i64  number of the patch of each face, -1 for those that meet others
    outside   [P]     i64  winding number in front of each patch
    single    [V]     bool whether the faces of a vertex are one patch, in a single ring
    """

    normals: Floats
    across: Ints
    at_vertex: Floats
    patches: Ints
    outside: Ints
    single: Mask


def sides_of(vertices: Floats, faces: Ints, tree: BoxTree) -> Sides:
    """The sides of a closed, oriented mesh, vertices [V, 3], faces [F, 3], and its tree."""
    across = _across(faces, len(vertices))
    normals, at_vertex, flat = _normals(vertices, faces)
    touching = TOUCHING * float(np.linalg.norm(np.ptp(vertices, axis=0)))
    met = _meeting(*tree[:3], tree.corners, tree.faces, faces, normals, flat, touching, WIDTH)
    patches, first = _patches(across, met)
    slot_of = np.empty(len(faces), dtype=np.int64)
    slot_of[tree.faces[::-1]] = np.arange(len(tree.faces))[::-1]
    outside = np.array([_in_front(vertices, faces, normals, tree, slot_of, int(face)) for face in first], dtype=np.int64)
    return Sides(normals, across, at_vertex, patches, outside, _single(faces, across, patches, len(vertices)))


def inside(
    sides: Sides, vertices: Floats, faces: Ints, tree: BoxTree, points: Floats, nearest: Floats, face: Ints, feature: NDArray[np.int8]
) -> Mask:
    """Whether points [n, 3] lie inside: where the winding number is at least 1. nearest [n, 3], face [n] and feature [n] are those of
    `boxtree.nearest_triangles`, with faces instead of slots."""
    numbers, known = _seen_from(*sides, faces, points, nearest, face, feature)
    for i in np.flatnonzero(~known):
        numbers[i] = winding_number(vertices, faces, tree, points[i])
    return np.asarray(numbers >= 1)


def winding_number(vertices: Floats, faces: Ints, tree: BoxTree, point: Floats, own: int = -1) -> int:
    """The winding number of a closed mesh about a point [3] that is not on it, by lines along the axes; where all of these pass through corners
    or sides, by the sum of solid angles (Van Oosterom and Strackee 1983)."""
    for axis in (2, 0, 1):
        for direction in (1.0, -1.0):
            number, told = crossing_number(tree, point, axis, direction, own)
            if told:
                return int(number)
    a, b, c = (vertices[faces] - point).transpose(1, 2, 0)
    la, lb, lc = (np.sqrt(np.einsum("if,if->f", x, x)) for x in (a, b, c))
    ab, bc, ca = (np.einsum("if,if->f", x, y) for x, y in ((a, b), (b, c), (c, a)))
    volume = np.einsum("if,if->f", a, np.cross(b, c, axis=0))
    angles = np.arctan2(volume, la * lb * lc + ab * lc + bc * la + ca * lb)
    return round(float(angles.sum() / (2.0 * np.pi)))


def _in_front(vertices: Floats, faces: Ints, normals: Floats, tree: BoxTree, slot_of: Ints, face: int) -> int:
    """The winding number just in front of a face: along the axis that its normal is nearest to, without the face itself."""
    for axis in np.argsort(-np.abs(normals[face])):
        direction = float(np.sign(normals[face, axis]))
        if direction == 0.0:
            break
        # The middle, and other places of the face where a line through it meets a corner or a side.
        for weights in ((1 / 3, 1 / 3, 1 / 3), (0.5, 0.3, 0.2), (0.21, 0.18, 0.61), (0.13, 0.59, 0.28)):
            point = np.asarray(weights) @ vertices[faces[face]]
            number, told = crossing_number(tree, point, int(axis), direction, int(slot_of[face]))
            if told:
                return int(number)
    ahead = 1e-6 * float(np.linalg.norm(np.ptp(vertices[faces[face]], axis=0)))
    return winding_number(vertices, faces, tree, vertices[faces[face]].mean(axis=0) + ahead * normals[face])


@compiled
def _across(faces: Ints, count: int) -> Ints:
    """The face [F, 3] beyond the side from each corner of each face; -1 where there is none."""
    begin = np.zeros(count + 1, np.int64)
    for f in range(len(faces)):
        for k in range(3):
            begin[faces[f, k] + 1] += 1
    for i in range(count):
        begin[i + 1] += begin[i]
    # The sides by the vertex that they run from.
    filled, sides = begin[:-1].copy(), np.empty(3 * len(faces), np.int64)
    for f in range(len(faces)):
        for k in range(3):
            sides[filled[faces[f, k]]] = 3 * f + k
            filled[faces[f, k]] += 1
    across = np.full((len(faces), 3), -1, np.int64)
    for f in range(len(faces)):
        for k in range(3):
            a, b = faces[f, k], faces[f, (k + 1) % 3]
            for i in range(begin[b], begin[b + 1]):
                g, m = sides[i] // 3, sides[i] % 3
                if faces[g, (m + 1) % 3] == a:
                    across[f, k] = g
    return across


@compiled
def _normals(vertices: Floats, faces: Ints) -> tuple[Floats, Floats, Mask]:
    """Unit normals [F, 3] of the faces, their sum by angles at each vertex [V, 3], and which faces are lines [F]."""
    normals, at_vertex = np.zeros((len(faces), 3)), np.zeros((len(vertices), 3))
    flat = np.zeros(len(faces), np.bool_)
    lengths, units = np.empty(3), np.empty((3, 3))
    for f in range(len(faces)):
        for k in range(3):
            a, b = vertices[faces[f, k]], vertices[faces[f, (k + 1) % 3]]
            lengths[k] = np.sqrt((b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2 + (b[2] - a[2]) ** 2)
            for m in range(3):
                units[k, m] = (b[m] - a[m]) / lengths[k] if lengths[k] > 0.0 else 0.0
        # The normal from two unit sides: its length is the sine of the angle between them.
        n = _cross(units[0], units[1])
        sine = np.sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2])
        flat[f] = not sine * sine > FLAT
        if flat[f]:
            continue
        for m in range(3):
            normals[f, m] = n[m] / sine
        for k in range(3):
            cosine = -(units[k, 0] * units[k - 1, 0] + units[k, 1] * units[k - 1, 1] + units[k, 2] * units[k - 1, 2])
            angle = np.arccos(min(max(cosine, -1.0), 1.0))
            for m in range(3):
                at_vertex[faces[f, k], m] += angle * normals[f, m]
    return normals, at_vertex, flat


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
    a, b, c = (
        _height(normals, g, corners, other, slot, 0, touching),
        _height(normals, g, corners, other, slot, 1, touching),
        _height(normals, g, corners, other, slot, 2, touching),
    )
    if _beside(a, b, c, shared):
        return False
    d, e, h = (
        _height(normals, f, corners, slot, other, 0, touching),
        _height(normals, f, corners, slot, other, 1, touching),
        _height(normals, f, corners, slot, other, 2, touching),
    )
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
    children: Indices,
    sizes: Indices,
    corners: Floats,
    numbers: Ints,
    faces: Ints,
    normals: Floats,
    flat: Mask,
    touching: float,
    width: int,
) -> Mask:
    """Which faces [F] touch or cross others elsewhere than along the sides and corners that they share; also those that are lines.

    width: WIDTH, which the compiler must not know (`boxtree`).
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
    flat: Mask,
    touching: float,
    met: Mask,
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


@compiled
def _patches(across: Ints, met: Mask) -> tuple[Ints, Ints]:
    """Number of the patch of each face [F], -1 for those that meet others, and one face of each patch [P]."""
    patches = np.full(len(across), -1, np.int64)
    first, waiting = np.empty(len(across), np.int64), np.empty(len(across), np.int64)
    count = 0
    for f in range(len(across)):
        if met[f] or patches[f] >= 0:
            continue
        first[count], patches[f], waiting[0], top = f, count, f, 1
        while top > 0:
            top -= 1
            own = waiting[top]
            for g in across[own]:
                if g >= 0 and not met[g] and patches[g] < 0:
                    patches[g], waiting[top] = count, g
                    top += 1
        count += 1
    return patches, first[:count].copy()


@compiled
def _single(faces: Ints, across: Ints, patches: Ints, count: int) -> Mask:
    """Whether the faces of each vertex [V] are of one patch and form a single ring: two rings are two sheets that touch there."""
    around, start = np.zeros(count, np.int64), np.full(count, -1, np.int64)
    single = np.zeros(count, np.bool_)
    for f in range(len(faces)):
        for k in range(3):
            around[faces[f, k]] += 1
            start[faces[f, k]] = f
    for vertex in range(count):
        f, steps = start[vertex], 0
        if f < 0 or patches[f] < 0:
            continue
        while steps < around[vertex]:
            k = 0 if faces[f, 0] == vertex else 1 if faces[f, 1] == vertex else 2
            f = across[f, k]
            steps += 1
            if f < 0 or patches[f] < 0 or f == start[vertex]:
                break
        single[vertex] = f == start[vertex] and steps == around[vertex]
    return single


@compiled
def _seen_from(
    normals: Floats,
    across: Ints,
    at_vertex: Floats,
    patches: Ints,
    outside: Ints,
    single: Mask,
    faces: Ints,
    points: Floats,
    nearest: Floats,
    face: Ints,
    feature: NDArray[np.int8],
) -> tuple[Ints, Mask]:
    """Winding number [n] about each point, and whether it is known [n]."""
    numbers, known = np.zeros(len(points), np.int64), np.zeros(len(points), np.bool_)
    for i in range(len(points)):
        f, where = face[i], feature[i]
        patch = patches[f]
        if patch < 0:
            continue
        nx, ny, nz = normals[f]
        if where < 3:
            vertex = faces[f, where]
            if not single[vertex]:
                continue
            nx, ny, nz = at_vertex[vertex]
        elif where < 6:
            g = across[f, where - 3]
            if g < 0 or patches[g] < 0:
                continue
            nx, ny, nz = nx + normals[g, 0], ny + normals[g, 1], nz + normals[g, 2]
        dx, dy, dz = points[i, 0] - nearest[i, 0], points[i, 1] - nearest[i, 1], points[i, 2] - nearest[i, 2]
        along = dx * nx + dy * ny + dz * nz
        if not along * along > TANGENT * TANGENT * (dx * dx + dy * dy + dz * dz) * (nx * nx + ny * ny + nz * nz):
            continue
        numbers[i] = outside[patch] if along > 0.0 else outside[patch] + 1
        known[i] = True
    return numbers, known
