"""Measures of a graft's quality: dihedral angles over the seam, flipped faces, self-intersections."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from facegraft.arrays import Floats, Ints
from facegraft.surfaces.normals import face_cross


@dataclass(frozen=True)
class LoopEdges:
    """The edges of a closed loop with the faces on their left and right: edges [n, 2], left [n], right [n]."""

    edges: Ints
    left: Ints
    right: Ints


def loop_edges(faces: Ints, loop: Ints) -> LoopEdges:
    """Find the two faces of every edge of a loop. Raises ValueError where an edge of the loop lacks one."""
    f = np.asarray(faces, dtype=np.int64)
    base = int(f.max()) + 1
    starts = np.concatenate([f[:, 0], f[:, 1], f[:, 2]])
    ends = np.concatenate([f[:, 1], f[:, 2], f[:, 0]])
    keys = starts * base + ends
    order = np.argsort(keys)
    edges = np.stack([loop, np.roll(loop, -1)], axis=1)

    def face_of(start: Ints, end: Ints) -> Ints:
        wanted = start * base + end
        at = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
        found = order[at]
        if not np.array_equal(keys[found], wanted):
            raise ValueError("an edge of the loop is not an inner edge of the mesh")
        return found % len(f)

    return LoopEdges(edges, face_of(edges[:, 0], edges[:, 1]), face_of(edges[:, 1], edges[:, 0]))


def dihedral_angles(vertices: Floats, faces: Ints, seam: LoopEdges) -> Floats:
    """Signed dihedral angle [n] in degrees at every loop edge: 0 where flat, positive where convex."""
    cross_left = face_cross(vertices, faces[seam.left])
    cross_right = face_cross(vertices, faces[seam.right])
    along = vertices[seam.edges[:, 1]] - vertices[seam.edges[:, 0]]
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    sine = np.einsum("ij,ij->i", np.cross(cross_left, cross_right), along)
    cosine = np.einsum("ij,ij->i", cross_left, cross_right)
    return np.degrees(np.arctan2(sine, cosine))


def dihedral_excess(composite: Floats, donor: Floats, host: Floats) -> Floats:
    """How far [n] each angle of the composite lies outside the range between the same edge's angles in donor and host."""
    low, high = np.minimum(donor, host), np.maximum(donor, host)
    return np.maximum(np.maximum(low - composite, composite - high), 0.0)


def flipped_faces(composite: Floats, mapped_donor: Floats, faces: Ints) -> int:
    """Number of faces of a part whose normal turns by more than 90° against the donor's mapped part."""
    return int(
        np.count_nonzero(np.einsum("ij,ij->i", face_cross(composite, faces), face_cross(mapped_donor, faces)) < 0.0)
    )


def self_intersecting_faces(vertices: Floats, faces: Ints) -> int:
    """Number of faces that another face, with which it shares no vertex, passes through.

    Two triangles intersect where an edge of one crosses the other (Möller & Trumbore 1997); coplanar overlap does not
    count.
    """
    corners = vertices[faces]
    low, high = corners.min(axis=1), corners.max(axis=1)
    i, j = _overlapping_boxes(low, high)
    apart = ~(faces[i][:, :, None] == faces[j][:, None, :]).any(axis=(1, 2))
    i, j = i[apart], j[apart]
    hit = np.zeros(len(i), dtype=bool)
    for one, other in ((i, j), (j, i)):
        for k in range(3):
            hit |= _segment_crosses(corners[one][:, k], corners[one][:, (k + 1) % 3], corners[other])
    return len(np.unique(np.concatenate([i[hit], j[hit]])))


def _overlapping_boxes(low: Floats, high: Floats) -> tuple[Ints, Ints]:
    """Pairs (i, j) of axis-aligned boxes [n, 3] that overlap, each once.

    Small boxes are paired among themselves and the few large ones with all boxes, so that one large face on the skull
    does not turn every face of the lips into a candidate for every other.
    """
    centre, radius = (low + high) / 2, 0.5 * np.linalg.norm(high - low, axis=1)
    bound = float(np.percentile(radius, 80))
    small, large = np.flatnonzero(radius <= bound), np.flatnonzero(radius > bound)
    pairs = [small[cKDTree(centre[small]).query_pairs(2 * bound, output_type="ndarray")]]
    if len(large):
        among = cKDTree(centre[large]).query_pairs(2 * float(radius[large].max()), output_type="ndarray")
        pairs.append(large[among])
        around = cKDTree(centre[small]).query_ball_point(centre[large], radius[large] + bound)
        counts = np.array([len(found) for found in around])
        if counts.sum():
            pairs.append(np.stack([np.repeat(large, counts), small[np.concatenate(around).astype(np.int64)]], axis=1))
    i, j = np.concatenate(pairs).T
    near = ((low[i] <= high[j]) & (low[j] <= high[i])).all(axis=1)
    return i[near], j[near]


def _segment_crosses(start: Floats, end: Floats, triangle: Floats) -> NDArray[np.bool_]:
    """Whether segments [n, 3] pass through triangles [n, 3, 3], row by row."""
    along = end - start
    e1, e2 = triangle[:, 1] - triangle[:, 0], triangle[:, 2] - triangle[:, 0]
    p = np.cross(along, e2)
    det = np.einsum("ij,ij->i", e1, p)
    with np.errstate(divide="ignore", invalid="ignore"):
        s = start - triangle[:, 0]
        u = np.einsum("ij,ij->i", s, p) / det
        q = np.cross(s, e1)
        v = np.einsum("ij,ij->i", along, q) / det
        t = np.einsum("ij,ij->i", e2, q) / det
        return (u >= 0) & (v >= 0) & (u + v <= 1) & (t >= 0) & (t <= 1)
