"""Cheapest edge paths along a curve: how an outline becomes a loop of mesh edges.

The graph's nodes are the mesh's *directed edges*, so that turns have a cost too: without it a path beside a diagonal
outline is a staircase. The cost of an edge depends on its length, its distance to the outline and its direction; the
cost of a turn depends on the angle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike
from scipy.sparse.csgraph import dijkstra

from facegraft.arrays import Bools, Floats, Ints
from facegraft.errors import FacegraftError


class NoPath(FacegraftError):
    """There is no edge path along the outline."""


@dataclass(frozen=True)
class TurnGraph:
    """Directed edges [E, 2] of a mesh as nodes, with the price of each edge and of each turn from one to the next.

    `transitions` [E, E]: entry (e, f) is the price of the turn from e to f plus that of f, where f starts at e's end.
    """

    edges: Ints
    vectors: Floats
    price: Floats
    transitions: sp.csr_matrix
    turn_weight: float

    @classmethod
    def build(cls, edges: ArrayLike, vertices: ArrayLike, price: ArrayLike, turn_weight: float) -> TurnGraph:
        """Build the graph from directed edges [E, 2], vertex positions [V, 3], prices [E] > 0 and a turn weight (unit of length)."""
        e = np.asarray(edges, dtype=np.int64)
        v = np.asarray(vertices, dtype=np.float64)
        cost = np.asarray(price, dtype=np.float64)
        vectors = v[e[:, 1]] - v[e[:, 0]]
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        order = np.argsort(e[:, 0], kind="stable")
        first = np.searchsorted(e[order, 0], e[:, 1], side="left")
        count = np.searchsorted(e[order, 0], e[:, 1], side="right") - first
        source = np.repeat(np.arange(len(e)), count)
        offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        target = order[np.repeat(first, count) + offset]
        forward = e[target, 1] != e[source, 0]  # no turning on the spot
        source, target = source[forward], target[forward]
        turn = turn_price(vectors[source], vectors[target], turn_weight)
        graph = sp.csr_matrix((turn + cost[target], (source, target)), shape=(len(e), len(e)))
        return cls(e, vectors, cost, graph, turn_weight)

    def vertices_of(self, path: list[int]) -> Ints:
        """Vertices along a path of edge numbers: one more than its edges."""
        return np.concatenate([self.edges[path[:1], 0], self.edges[path, 1]])


def turn_price(before: Floats, after: Floats, weight: float) -> Floats:
    """Price [N] of turning from one unit direction to another: weight · (1 - cos)."""
    return weight * (1.0 - np.einsum("ij,ij->i", before, after))


def cheapest_path(graph: TurnGraph, start_price: Floats, end_price: Floats) -> tuple[Ints, float]:
    """Cheapest path from an edge with a finite start price to an edge with a finite end price.

    Prices [E] are added at the two ends (infinite: not an end). Returns the vertices along it and its cost;
    raises NoPath.
    """
    n = len(graph.edges)
    starts = np.flatnonzero(np.isfinite(start_price))
    ends = np.flatnonzero(np.isfinite(end_price))
    if not len(starts) or not len(ends):
        raise NoPath("no edge to start from or to end at near the outline")
    row = sp.csr_matrix((start_price[starts] + graph.price[starts], (np.zeros(len(starts), int), starts)), shape=(1, n))
    corner = sp.csr_matrix((n + 1, 1))
    whole = sp.hstack([sp.vstack([graph.transitions, row]), corner], format="csr")
    distance, before = dijkstra(whole, indices=n, return_predecessors=True)
    total = distance[ends] + end_price[ends]
    best = int(np.argmin(np.round(total, 9)))  # rounded: equal costs tie by index on every machine
    if not np.isfinite(total[best]):
        raise NoPath("the outline is interrupted: no edge path follows it from end to end")
    path, node = [], int(ends[best])
    while node != n:
        path.append(node)
        node = int(before[node])
    return graph.vertices_of(path[::-1]), float(total[best])


def cheapest_loop(graph: TurnGraph, gate: Bools) -> tuple[Ints, float]:
    """Cheapest closed loop that passes exactly once through an edge of the gate [E]: its vertices in order, and its cost.

    The gate is the set of directed edges that cross a cut from one side to the other. The caller leaves every edge that
    crosses back out of the graph, so that the loop winds once around the end of the cut. Raises NoPath.
    """
    through = np.flatnonzero(gate)
    if not len(through):
        raise NoPath("no edge crosses the cut: the outline is interrupted there")
    closed = graph.transitions.copy()
    inner = sp.diags((~gate).astype(float)) @ closed @ sp.diags((~gate).astype(float))
    inner = sp.csr_matrix(inner)
    inner.eliminate_zeros()
    best: tuple[float, int, list[int]] | None = None
    for edge in through.tolist():
        leave = closed.getrow(edge)
        onward = leave.indices[~gate[leave.indices]]
        price = leave.data[~gate[leave.indices]]
        entering = closed.getcol(edge).tocoo()
        keep = ~gate[entering.row]
        if not len(onward) or not keep.any():
            continue
        n = len(graph.edges)
        row = sp.csr_matrix((price, (np.zeros(len(onward), int), onward)), shape=(1, n))
        whole = sp.hstack([sp.vstack([inner, row]), sp.csr_matrix((n + 1, 1))], format="csr")
        distance, before = dijkstra(whole, indices=n, return_predecessors=True)
        total = distance[entering.row[keep]] + entering.data[keep]
        last = int(np.argmin(np.round(total, 9)))
        if not np.isfinite(total[last]) or (best is not None and round(float(total[last]), 9) >= round(best[0], 9)):
            continue
        path, node = [], int(entering.row[keep][last])
        while node != n:
            path.append(node)
            node = int(before[node])
        best = float(total[last]), edge, path[::-1]
    if best is None:
        raise NoPath("the outline is interrupted: no closed edge loop follows it")
    cost, edge, path = best
    return np.concatenate(
        [graph.edges[[edge], 1], graph.edges[path[:-1] if path else [], 1], graph.edges[[edge], 0]]
    ), cost


def is_simple(loop: ArrayLike) -> bool:
    """Whether a closed loop of vertices visits no vertex twice."""
    return len(np.unique(np.asarray(loop))) == len(np.asarray(loop))
