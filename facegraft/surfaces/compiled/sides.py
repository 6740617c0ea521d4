"""On which side of a closed mesh points lie, exactly: in machine code.

The straight line from a point to its nearest point c of the mesh meets the mesh only there. So the point has the winding number of the side of
the mesh from which it is seen, at c. Where the faces about c meet no others, that number is the same for all faces that are joined
with them through faces that meet no others (a *patch*), and the side is told by the pseudonormal at c (Bærentzen and Aanæs 2005): one
number for each patch answers for nearly all points, with no winding number of their own. Where faces pass through each other (closed
lips and lids do), at vertices where two sheets touch, and where a direction is too near the tangent to be told by it, the winding number of the
point itself is counted along a line.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Bools, Floats, Ints
from facegraft.surfaces.compiled.boxtree import FLAT, BoxTree
from facegraft.surfaces.compiled.machine_code import compiled
from facegraft.surfaces.compiled.meeting import meeting
from facegraft.surfaces.compiled.search import crossing_number
from facegraft.surfaces.signed import size_of

TANGENT = 1e-6
"""Cosine between a direction and a pseudonormal below which it does not tell the side."""

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
    single: Bools


def sides_of(vertices: Floats, faces: Ints, tree: BoxTree) -> Sides:
    """The sides of a closed, oriented mesh, vertices [V, 3], faces [F, 3], and its tree."""
    across = _across(faces, len(vertices))
    normals, at_vertex, flat = _normals(vertices, faces)
    met = meeting(tree, faces, normals, flat, size_of(vertices))
    patches, first = _patches(across, met)
    slot_of = np.empty(len(faces), dtype=np.int64)
    slot_of[tree.faces[::-1]] = np.arange(len(tree.faces))[::-1]
    outside = np.array([_in_front(vertices, faces, normals, tree, slot_of, int(face)) for face in first], dtype=np.int64)
    return Sides(normals, across, at_vertex, patches, outside, _single(faces, across, patches, len(vertices)))


def inside(
    sides: Sides, vertices: Floats, faces: Ints, tree: BoxTree, points: Floats, nearest: Floats, face: Ints, feature: NDArray[np.int8]
) -> Bools:
    """Whether points [n, 3] lie inside: where the winding number is at least 1. nearest [n, 3], face [n] and feature [n] are those of
    `search.nearest_triangles`, with faces instead of slots."""
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
    ahead = 1e-6 * size_of(vertices[faces[face]])
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
def _normals(vertices: Floats, faces: Ints) -> tuple[Floats, Floats, Bools]:
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
        (ax, ay, az), (bx, by, bz) = units[0], units[1]
        n = (ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx)
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
def _patches(across: Ints, met: Bools) -> tuple[Ints, Ints]:
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
def _single(faces: Ints, across: Ints, patches: Ints, count: int) -> Bools:
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
    single: Bools,
    faces: Ints,
    points: Floats,
    nearest: Floats,
    face: Ints,
    feature: NDArray[np.int8],
) -> tuple[Ints, Bools]:
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
