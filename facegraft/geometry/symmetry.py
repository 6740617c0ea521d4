"""The mirror symmetry of a mesh topology: for each vertex, its counterpart on the other side of the face.

The result is an involution on vertex indices. It is found from connectivity, guided by position: a scan's two
sides differ by several edge lengths, so the nearest mirrored vertex is the wrong one nearly everywhere.
"""

from __future__ import annotations

import heapq
from collections import defaultdict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from facegraft.arrays import Floats, Ints
from facegraft.surfaces.mirror import MIRROR
from facegraft.surfaces.topology import compact, directed_edges, unique_edges, vertex_components

_SEED_EDGES = 12  # places at which a propagation is tried
_SEED_CANDIDATES = (12, 48)  # nearest mirrored vertices considered for each end of a seed edge; more only if few fail
_TRIAL_VERTICES = 200  # how far a trial propagation runs before seeds are compared
_MOST_WALKS = 24  # walks over the whole piece; symmetric topologies need one or two, and others would cost minutes
_MAX_CONFLICTS = 0.005  # share of contradictory faces beyond which a topology counts as asymmetric
_CLEAR_CONFLICTS = 0.0005  # share at which the search for a better seed stops
_SMALL_PIECE = 0.2  # share of the vertices below which a piece is small
_MAX_LEFTOVER = 0.01  # share of vertices that may be paired by position alone


def mirror_map(vertices: ArrayLike, faces: ArrayLike) -> Ints | None:
    """Mirror vertex [V] of every vertex, an involution; None where the topology is not symmetric.

    `vertices` [V, 3] in any unit, symmetric about x = 0 up to the natural asymmetry of a face. A vertex that no face uses
    may lie anywhere, and is its own mirror vertex. Connected pieces
    are paired first (an eyeball with the other eyeball, the skin with itself), then their vertices: by nearest
    mirrored position where that already preserves every edge, else by propagation over the faces. A small piece
    whose triangles are not mirrored (an eyeball copied to the other side) is paired by position, one to one.
    """
    f, kept = compact(faces, len(np.asarray(vertices)))
    v = np.asarray(vertices, dtype=np.float64)[kept]
    found = _mirror_of_used(v, f)
    if found is None:
        return None
    whole = np.arange(len(np.asarray(vertices)), dtype=np.int64)
    whole[kept] = kept[found]
    return whole


def _mirror_of_used(v: Floats, f: Ints) -> Ints | None:
    """`mirror_map` of a mesh whose faces use every vertex."""
    component = vertex_components(f, len(v))
    pairs = _pair_components(v, component)
    if pairs is None:
        return None
    mirror = np.full(len(v), -1, dtype=np.int64)
    face_component = component[f[:, 0]]
    for here, there in pairs:
        own, other = np.flatnonzero(component == here), np.flatnonzero(component == there)
        piece = f[(face_component == here) | (face_component == there)]
        found = _by_position(v, piece, own, other)
        for candidates in _SEED_CANDIDATES:
            if found is None:
                found = _by_propagation(v, piece, own, other, candidates)
        if found is None and here != there and len(own) < _SMALL_PIECE * len(v):
            found = other[linear_sum_assignment(cdist(v[own] * MIRROR, v[other]))[1]]
        if found is None:
            return None
        mirror[own] = found
        mirror[found] = own
    return mirror


def preserved_edges(mirror: ArrayLike, faces: ArrayLike) -> float:
    """Share of the edges whose mirror image is an edge too: 1 for an exactly symmetric topology."""
    m = np.asarray(mirror)
    edges = unique_edges(faces)
    size = int(edges.max()) + 1
    image = np.sort(m[edges], axis=1)
    return float(np.isin(image[:, 0] * size + image[:, 1], edges[:, 0] * size + edges[:, 1]).mean())


def _pair_components(v: Floats, component: NDArray[np.int32]) -> list[tuple[int, int]] | None:
    """Each component with its mirror image (possibly itself); None where a component has no partner of its size."""
    members = [np.flatnonzero(component == c) for c in range(int(component.max()) + 1)]
    sizes = np.array([len(m) for m in members])
    n = len(members)
    trees = [cKDTree(v[m]) for m in members]
    span = float(np.linalg.norm(np.ptp(v, axis=0)))
    cost = np.full((n, n), 1e3 * span)
    for i in range(n):
        for j in np.flatnonzero(sizes == sizes[i]):
            cost[i, j] = trees[j].query(v[members[i]] * MIRROR)[0].mean()
    cost = 0.5 * (cost + cost.T)
    partner = linear_sum_assignment(cost)[1]
    if (cost[np.arange(n), partner] > 0.1 * span).any() or (partner[partner] != np.arange(n)).any():
        return None
    return [(int(i), int(j)) for i, j in enumerate(partner) if i <= j]


def _by_position(v: Floats, piece: Ints, own: Ints, other: Ints) -> Ints | None:
    """Nearest mirrored vertex of `own` among `other`, if that is one to one and preserves every edge."""
    found = other[cKDTree(v[other]).query(v[own] * MIRROR)[1]]
    full = np.arange(len(v))
    full[own] = found
    full[found] = own
    if len(np.unique(found)) < len(own) or not np.array_equal(full[own], found):
        return None
    if len(piece) and preserved_edges(full, piece) < 1.0:
        return None
    return found


def _by_propagation(v: Floats, piece: Ints, own: Ints, other: Ints, candidates: int) -> Ints | None:
    """Mirror `own` onto `other` by walking over the faces from the seed that contradicts itself least."""
    opposite = _opposite_vertices(piece)
    inside = set(own.tolist())
    edges = [edge for edge in opposite if edge[0] in inside]
    if not edges:
        return None
    trials: list[tuple[float, _Seed]] = []
    consistent: list[dict[int, int]] = []
    for seed in _seed_candidates(v, edges, opposite, other, candidates):
        p, q, p_, q_ = seed
        if any(known.get(p) == p_ and known.get(q) == q_ for known in consistent):
            continue  # the same map, found from another edge
        known, contradictions, _ = _propagate(v, opposite, seed, _TRIAL_VERTICES)
        if len(known) >= min(_TRIAL_VERTICES, len(own)):
            offset = np.median([np.linalg.norm(v[a] * MIRROR - v[b]) for a, b in known.items()])
            trials.append((float(offset), seed))
            if not contradictions:
                consistent.append(known)
    best: tuple[float, dict[int, int]] | None = None
    for _, seed in sorted(trials)[:_MOST_WALKS]:
        # A regular patch of quads is symmetric about many lines: only the whole piece shows the right one.
        assigned, conflicts, visited = _propagate(v, opposite, seed, len(own))
        share = conflicts / max(visited, 1)
        if (
            share <= _MAX_CONFLICTS
            and len(assigned) > (1 - _MAX_LEFTOVER) * len(own)
            and (best is None or share < best[0])
        ):
            best = share, assigned
            if share <= _CLEAR_CONFLICTS:
                break
    if best is None:
        return None
    assigned = best[1]
    return _complete(v, assigned, own, other)


def _opposite_vertices(piece: Ints) -> dict[tuple[int, int], int]:
    """Third vertex of the face to the left of every directed edge."""
    third = np.concatenate([piece[:, 2], piece[:, 0], piece[:, 1]])
    return dict(zip(map(tuple, directed_edges(piece).tolist()), third.tolist(), strict=True))


_Seed = tuple[int, int, int, int]


def _seed_candidates(
    v: Floats, edges: list[tuple[int, int]], opposite: dict[tuple[int, int], int], other: Ints, candidates: int
) -> list[_Seed]:
    """Pairs of directed edges (p, q) and (q', p') that may be mirror images, at edges spread over the midline."""
    table = np.array(edges)
    middle = np.abs(v[table].mean(axis=1)[:, 0])
    near = np.lexsort((table[:, 1], table[:, 0], np.round(middle, 9)))[: 20 * _SEED_EDGES]
    chosen = table[near[:: max(1, len(near) // _SEED_EDGES)]]
    tree = cKDTree(v[other])
    k = min(candidates, len(other))
    seeds: list[_Seed] = []
    for p, q in chosen.tolist():
        near_p = other[np.atleast_1d(tree.query(v[p] * MIRROR, k)[1])].tolist()
        near_q = other[np.atleast_1d(tree.query(v[q] * MIRROR, k)[1])].tolist()
        seeds += [(p, q, a, b) for a in near_p for b in near_q if (b, a) in opposite]
    return seeds


def _propagate(
    v: Floats, opposite: dict[tuple[int, int], int], seed: _Seed, limit: int
) -> tuple[dict[int, int], int, int]:
    """Walk from a seed over both sides at once: (mirror of each vertex reached, contradictions, faces seen).

    Mirroring reverses orientation: the face left of p→q corresponds to the face left of q'→p'. The face whose new
    vertex is most plausible is taken first, so that a quad that is split along the other diagonal on the other side
    (which gives a wrong vertex) is skipped and its corners are matched through their other faces.
    """
    p, q, p_, q_ = seed
    assigned = {p: p_, q: q_}
    queue: list[tuple[float, int, int]] = []
    pushed: set[tuple[int, int]] = set()

    def push(a: int, b: int) -> None:
        new, image = opposite.get((a, b)), opposite.get((assigned[b], assigned[a]))
        if new is None or image is None or (a, b) in pushed:
            return
        pushed.add((a, b))
        here = v[new] * MIRROR - v[image]
        there = 0.5 * (v[a] * MIRROR - v[assigned[a]] + v[b] * MIRROR - v[assigned[b]])
        scale = np.linalg.norm(v[a] - v[b]) + 1e-12
        heapq.heappush(queue, (round(float(np.linalg.norm(here - there) / scale), 9), a, b))

    push(p, q)
    push(q, p)
    conflicts = visited = 0
    while queue and len(assigned) < limit and conflicts <= 3 + 2 * _MAX_CONFLICTS * visited:
        _, a, b = heapq.heappop(queue)
        new, image = opposite[a, b], opposite[assigned[b], assigned[a]]
        visited += 1
        if assigned.setdefault(new, image) != image:
            conflicts += 1
            continue
        for edge in ((new, b), (b, new), (a, new), (new, a)):
            push(*edge)
    return assigned, conflicts, visited


def _complete(v: Floats, assigned: dict[int, int], own: Ints, other: Ints) -> Ints | None:
    """A partial map completed to an involution: contradictory and unreached vertices are paired by position."""
    self_mirror = bool(own[0] == other[0])
    found = np.full(len(v), -1, dtype=np.int64)
    claims: dict[int, int] = defaultdict(int)
    for b in assigned.values():
        claims[b] += 1
    for a, b in assigned.items():
        if (self_mirror and assigned.get(b) == a) or (not self_mirror and claims[b] == 1):
            found[a] = b
    left = own[found[own] < 0]
    free = np.setdiff1d(other, found[own])
    if len(left) > _MAX_LEFTOVER * len(own):
        return None
    if not len(left):
        return found[own]
    cost = cdist(v[left] * MIRROR, v[free])
    if not self_mirror:
        found[left] = free[linear_sum_assignment(cost)[1]]
        return found[own]
    cost = 0.5 * (cost + cost.T)
    partner = linear_sum_assignment(cost)[1]
    if np.array_equal(partner[partner], np.arange(len(left))):
        found[left] = left[partner]
        return found[own]
    cost = np.triu(cost) + np.tril(np.full(cost.shape, np.inf), -1)
    for flat in np.argsort(np.round(cost, 9), axis=None, kind="stable"):  # nearest pairs first: always an involution
        i, j = divmod(int(flat), len(left))
        if i <= j and found[left[i]] < 0 and found[left[j]] < 0:
            found[left[i]], found[left[j]] = left[j], left[i]
    return found[own]
