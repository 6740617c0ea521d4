"""Connectivity of a triangle mesh: edges, boundary loops, rings, components.

Faces are integer arrays [F, 3]; nothing here looks at vertex positions. All functions are pure.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facegraft.arrays import Ints
from facegraft.lazily import lazy_import
from facegraft.surfaces.errors import TopologyError

if TYPE_CHECKING:
    import scipy.sparse as sp


def directed_edges(faces: ArrayLike) -> Ints:
    """The 3F directed edges [3F, 2] of the faces, edge i of every face in block i."""
    f = np.asarray(faces, dtype=np.int64)
    return np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]])


def unique_edges(faces: ArrayLike) -> Ints:
    """The undirected edges [E, 2], each with its smaller vertex first, in lexicographic order."""
    edges = np.sort(directed_edges(faces), axis=1)
    base = _base(edges)
    return np.stack(np.divmod(np.unique(edges @ np.array([base, 1])), base), axis=1)


def _base(edges: Ints) -> int:
    """A number above every vertex: a pair (a, b) becomes the single number a · base + b, which sorts far faster."""
    return int(edges.max()) + 1 if len(edges) else 1


def boundary_edges(faces: ArrayLike) -> Ints:
    """Directed edges [B, 2] that belong to only one face, in the direction of that face."""
    edges = directed_edges(faces)
    keys = np.sort(edges, axis=1) @ np.array([_base(edges), 1])
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return edges[counts[inverse] == 1]


def boundary_loops(faces: ArrayLike) -> list[Ints]:
    """The boundary loops, ordered and oriented as their faces, longest first (ties: smallest vertex first).

    Raises TopologyError where a boundary passes twice through one vertex (a pinched, non-manifold boundary).
    """
    edges = boundary_edges(faces)
    follower = dict(zip(edges[:, 0].tolist(), edges[:, 1].tolist(), strict=True))
    if len(follower) != len(edges):
        starts, counts = np.unique(edges[:, 0], return_counts=True)
        raise TopologyError(
            f"boundary passes {counts.max()} times through vertex {starts[counts.argmax()]}: not a manifold boundary"
        )
    loops = []
    while follower:
        start = min(follower)
        loop, vertex = [start], follower.pop(start)
        while vertex != start:
            loop.append(vertex)
            if vertex not in follower:
                raise TopologyError(f"the boundary ends at vertex {vertex}: faces are not consistently oriented")
            vertex = follower.pop(vertex)
        loops.append(np.array(loop, dtype=np.int64))
    return sorted(loops, key=lambda loop: (-len(loop), int(loop.min())))


def vertex_adjacency(faces: ArrayLike, vertex_count: int) -> sp.csr_matrix:
    """Symmetric boolean adjacency [V, V] of the vertices that share an edge."""
    edges = unique_edges(faces)
    ones = np.ones(len(edges), dtype=bool)
    half = lazy_import("scipy.sparse").coo_matrix(
        (ones, (edges[:, 0], edges[:, 1])), shape=(vertex_count, vertex_count)
    )
    return (half + half.T).tocsr()


def grow_rings(adjacency: sp.csr_matrix, seeds: ArrayLike, k: int) -> list[Ints]:
    """Rings 1..k around the seed vertices: ring i holds the vertices whose edge distance to the seeds is i."""
    reached = np.zeros(adjacency.shape[0], dtype=bool)
    reached[np.asarray(seeds, dtype=np.int64)] = True
    front, rings = reached.copy(), []
    for _ in range(k):
        front = (adjacency @ front) & ~reached
        reached |= front
        rings.append(np.flatnonzero(front).astype(np.int64))
    return rings


def vertex_components(faces: ArrayLike, vertex_count: int) -> NDArray[np.int32]:
    """Component number [V] of every vertex; a vertex that no face uses is a component by itself."""
    adjacency = vertex_adjacency(faces, vertex_count)
    component: NDArray[np.int32] = lazy_import("scipy.sparse.csgraph").connected_components(adjacency, directed=False)[
        1
    ]
    return component


def face_components(faces: ArrayLike) -> NDArray[np.int32]:
    """Component number [F] of every face; faces are joined where they share a vertex."""
    f = np.asarray(faces, dtype=np.int64)
    small, _ = compact(f, int(f.max()) + 1)
    return vertex_components(small, int(small.max()) + 1)[small[:, 0]]


def euler_characteristic(faces: ArrayLike) -> int:
    """V - E + F over the vertices that the faces use: 2 for a sphere, 1 for a disk."""
    f = np.asarray(faces)
    return len(np.unique(f)) - len(unique_edges(f)) + len(f)


def open_edge_count(faces: ArrayLike) -> int:
    """Number of edges without exactly two faces in opposite directions (0: the mesh is closed and oriented)."""
    f = np.asarray(faces, dtype=np.int64)
    a, b = np.concatenate([f[:, 0], f[:, 1], f[:, 2]]), np.concatenate([f[:, 1], f[:, 2], f[:, 0]])
    # +1 for an edge that runs from its smaller vertex, -1 for the other way; balanced edges cancel
    size = int(f.max()) + 1
    keys = np.minimum(a, b) * size + np.maximum(a, b)
    forward = np.sort(keys[a < b])
    backward = np.sort(keys[a > b])
    degenerate = int((a == b).sum())
    if len(forward) == len(backward) and np.array_equal(forward, backward) and (forward[1:] != forward[:-1]).all():
        return degenerate
    values, counts = np.unique(np.concatenate([forward, backward]), return_counts=True)
    ahead = np.searchsorted(forward, values, side="right") - np.searchsorted(forward, values, side="left")
    return degenerate + int(((ahead != 1) | (counts != 2)).sum())


def is_watertight(faces: ArrayLike) -> bool:
    """Whether every edge has exactly two faces, which run along it in opposite directions."""
    return len(np.asarray(faces)) > 0 and open_edge_count(faces) == 0


def compact(faces: ArrayLike, vertex_count: int) -> tuple[Ints, Ints]:
    """Renumber the faces over the vertices that they use: (faces [F, 3], kept [V'] old indices, ascending)."""
    f = np.asarray(faces, dtype=np.int64)
    used = np.zeros(vertex_count, dtype=bool)
    used[f] = True
    kept = np.flatnonzero(used)
    new = np.full(vertex_count, -1, dtype=np.int64)
    new[kept] = np.arange(len(kept))
    return new[f], kept


def faces_within(faces: ArrayLike, keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mask [F] of the faces whose vertices are all kept (mask [V])."""
    return keep[np.asarray(faces)].all(axis=1)


def faces_sha256(faces: ArrayLike) -> str:
    """SHA-256 of the faces as little-endian int32 in C order: the name of a topology."""
    return hashlib.sha256(np.ascontiguousarray(faces, dtype="<i4").tobytes()).hexdigest()
