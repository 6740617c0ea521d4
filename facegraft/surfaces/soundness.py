"""Is a triangle mesh a proper surface: wound alike, welded, at most two faces at an edge, faces outward?

Each function looks for one fault and returns where it is, as index arrays that are empty for a sound mesh. Faces [F, 3], counter-clockwise
seen from outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from facegraft.arrays import Bools, Ints
from facegraft.lazily import lazy_import
from facegraft.surfaces.normals import signed_volume
from facegraft.surfaces.topology import boundary_edges, directed_edges, face_components

SAME_PLACE = 1e-4
"""Vertices nearer to each other than this share of the median edge lie on the same place."""


ON_EDGE = 1e-3
"""Share of an edge's length within which a vertex lies on it."""


def repeated_corners(faces: ArrayLike) -> Ints:
    """The faces [n] that name a vertex twice."""
    f = np.sort(np.asarray(faces, dtype=np.int64), axis=1)
    return np.flatnonzero((f[:, 1:] == f[:, :-1]).any(axis=1))


def doubled_faces(faces: ArrayLike) -> Ints:
    """The faces [n] on the same three vertices as one before them."""
    f = np.sort(np.asarray(faces, dtype=np.int64), axis=1)
    return np.setdiff1d(np.arange(len(f)), np.unique(f, axis=0, return_index=True)[1])


def crowded_edges(faces: ArrayLike) -> Ints:
    """The edges [n, 2] at which more than two faces meet."""
    edges, counts = np.unique(np.sort(directed_edges(faces), axis=1), axis=0, return_counts=True)
    return np.asarray(edges[counts > 2], dtype=np.int64)


def pinched_vertices(faces: ArrayLike) -> Ints:
    """The vertices [n] through which the boundary of a consistently wound mesh passes more than once."""
    starts, counts = np.unique(boundary_edges(faces)[:, 0], return_counts=True)
    return np.asarray(starts[counts > 1], dtype=np.int64)


def vertices_on_edges(vertices: ArrayLike, faces: ArrayLike) -> Ints:
    """The border vertices [n] that lie on another border edge, between its ends: where one side of an edge was divided and the other not."""
    v = np.asarray(vertices, dtype=np.float64)
    border = boundary_edges(faces)
    if not len(border):
        return np.empty(0, dtype=np.int64)
    rim = np.unique(border)
    start, step = v[border[:, 0]], v[border[:, 1]] - v[border[:, 0]]
    length = np.linalg.norm(step, axis=1)
    inside = lazy_import("scipy.spatial").cKDTree(v[rim]).query_ball_point(start + 0.5 * step, (0.5 - SAME_PLACE) * length)
    edge = np.repeat(np.arange(len(border)), [len(found) for found in inside])
    point = rim[np.concatenate([np.asarray(found, dtype=np.int64) for found in inside])]
    offset = v[point] - start[edge]
    along = np.einsum("ij,ij->i", offset, step[edge]) / np.maximum(length[edge], 1e-300)
    across = np.sqrt(np.maximum(np.einsum("ij,ij->i", offset, offset) - along**2, 0.0))
    return np.unique(point[across < ON_EDGE * length[edge]])


@dataclass(frozen=True)
class Winding:
    """`against` [n]: the faces wound against the others, the fewer ones of each connected piece; `one_sided`: faces [m] of pieces that no
    winding makes consistent, such as a Moebius strip."""

    against: Ints
    one_sided: Ints


def winding(faces: ArrayLike) -> Winding:
    """Which faces run along a common edge in the same direction as their neighbours; edges of three faces or more do not count.

    A graph over faces that keep or turn their winding, two nodes a face: an edge joins equal nodes of neighbours that agree, and unequal
    ones of neighbours that do not. A piece is one-sided where both nodes of a face are joined.
    """
    sparse, csgraph = lazy_import("scipy.sparse"), lazy_import("scipy.sparse.csgraph")
    edges = directed_edges(faces)
    count = len(edges) // 3
    if not count:
        return Winding(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    face = np.tile(np.arange(count), 3)
    keys = np.sort(edges, axis=1) @ np.array([int(edges.max()) + 1, 1])
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(keys[order]) > 0])
    twice = starts[np.diff(np.r_[starts, len(order)]) == 2]
    one, other = order[twice], order[twice + 1]
    turned = (edges[one, 0] == edges[other, 0]) * count  # the same direction: one of the two is wrong
    a, b = face[one], face[other]
    rows, columns = np.concatenate([a, a + count]), np.concatenate([b + turned, b + count - turned])
    graph = sparse.coo_matrix((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(2 * count, 2 * count))
    label = csgraph.connected_components(graph, directed=False)[1]
    kept, flipped = label[:count], label[count:]
    piece, second = np.minimum(kept, flipped), kept > flipped
    size = int(label.max()) + 1
    fewer = np.bincount(piece[second], minlength=size) * 2 <= np.bincount(piece, minlength=size)
    against = np.flatnonzero((second == fewer[piece]) & (kept != flipped))
    return Winding(against.astype(np.int64), np.flatnonzero(kept == flipped).astype(np.int64))


def main_piece(faces: ArrayLike) -> Ints:
    """The numbers [n] of the faces of the largest connected piece."""
    piece = face_components(faces)
    return np.flatnonzero(piece == np.bincount(piece).argmax()).astype(np.int64)


def looks_inward(vertices: ArrayLike, faces: ArrayLike) -> bool:
    """Whether a consistently wound mesh in one piece, open or closed, faces its own inside.

    By the sign of the volume between the faces and the middle of the boundary (of the vertices, without one), which lies in a cup's opening.
    """
    v, f = np.asarray(vertices, dtype=np.float64), np.asarray(faces, dtype=np.int64)
    rim = np.unique(boundary_edges(f))
    return signed_volume(v - v[rim if len(rim) else np.unique(f)].mean(axis=0), f) < 0


@dataclass(frozen=True)
class Seams:
    """Where a mesh is not welded: border edges [n, 2] that lie on other border edges; `place` [V]: the first vertex on each vertex's place.

    `slit` [n]: both edges belong to one piece of the border, as at a cut that ends inside the mesh, or at lips that touch.
    """

    edges: Ints
    place: Ints
    slit: Bools

    @property
    def surplus(self) -> int:
        """How many vertices go when those of the seams are merged."""
        used = np.unique(self.edges)
        return len(used) - len(np.unique(self.place[used]))


def open_seams(vertices: ArrayLike, faces: ArrayLike) -> Seams:
    """The seams of a mesh along which vertices were doubled, as exports do at the borders of a texture."""
    v, f = np.asarray(vertices, dtype=np.float64), np.asarray(faces, dtype=np.int64)
    border = boundary_edges(f)
    place = np.arange(len(v))
    rim = np.unique(border)
    if not len(rim):
        return Seams(np.empty((0, 2), dtype=np.int64), place, np.empty(0, dtype=bool))
    length = np.linalg.norm(v[f[:, 0]] - v[f[:, 1]], axis=1)
    near = lazy_import("scipy.spatial").cKDTree(v[rim]).query_pairs(SAME_PLACE * float(np.median(length)), output_type="ndarray")
    place[rim] = rim[_first_joined(near, len(rim))]
    ends = np.sort(place[border], axis=1)
    _, inverse, counts = np.unique(ends, axis=0, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    on_seam = (counts[inverse] > 1) & (ends[:, 0] != ends[:, 1])
    run = _first_joined(np.searchsorted(rim, border), len(rim))[np.searchsorted(rim, border[:, 0])]
    low, high = np.full(len(counts), len(rim)), np.full(len(counts), -1)
    np.minimum.at(low, inverse, run)
    np.maximum.at(high, inverse, run)
    return Seams(border[on_seam], place, (low == high)[inverse[on_seam]])


def _first_joined(pairs: Ints, count: int) -> Ints:
    """For each of `count` nodes the smallest node that it is joined with by pairs [n, 2]."""
    ones = np.ones(len(pairs), dtype=bool)
    graph = lazy_import("scipy.sparse").coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    label = lazy_import("scipy.sparse.csgraph").connected_components(graph, directed=False)[1]
    return np.asarray(np.unique(label, return_index=True)[1][label], dtype=np.int64)
