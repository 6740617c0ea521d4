"""Cheapest turn-priced paths and loops, against brute force on small graphs."""

import itertools

import numpy as np
import pytest

from facegraft.geometry.cutpath import NoPath, TurnGraph, cheapest_loop, cheapest_path, is_simple


def grid(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """A grid's vertices [n, 3] and its directed edges."""
    index = np.arange(width * height).reshape(height, width)
    vertices = np.array([(x, y, 0.0) for y in range(height) for x in range(width)])
    pairs = np.concatenate([
        np.column_stack([index[:, :-1].ravel(), index[:, 1:].ravel()]),
        np.column_stack([index[:-1].ravel(), index[1:].ravel()]),
    ])  # fmt: skip
    return vertices, np.concatenate([pairs, pairs[:, ::-1]])


def path_cost(graph: TurnGraph, vertices: list[int]) -> float:
    lookup = {tuple(e): i for i, e in enumerate(graph.edges.tolist())}
    used = [lookup[pair] for pair in itertools.pairwise(vertices)]
    turns = [graph.turn_weight * (1 - graph.vectors[a] @ graph.vectors[b]) for a, b in itertools.pairwise(used)]
    return float(graph.price[used].sum() + sum(turns))


def all_simple_paths(edges: np.ndarray, start: int, goal: int) -> list[list[int]]:
    following: dict[int, list[int]] = {}
    for a, b in edges.tolist():
        following.setdefault(a, []).append(b)
    found, stack = [], [[start]]
    while stack:
        path = stack.pop()
        if path[-1] == goal:
            found.append(path)
            continue
        stack += [[*path, b] for b in following[path[-1]] if b not in path]
    return found


@pytest.mark.parametrize("seed", range(6))
def test_path_is_the_cheapest_of_all(seed: int) -> None:
    vertices, edges = grid(4, 3)
    price = np.random.default_rng(seed).uniform(0.5, 2.0, len(edges))
    graph = TurnGraph.build(edges, vertices, price, turn_weight=0.7)
    start = np.where(edges[:, 0] == 0, 0.0, np.inf)
    end = np.where(edges[:, 1] == 11, 0.0, np.inf)
    path, cost = cheapest_path(graph, start, end)
    assert cost == pytest.approx(path_cost(graph, path.tolist()))
    assert cost == pytest.approx(min(path_cost(graph, p) for p in all_simple_paths(edges, 0, 11)))


def test_turning_price_prefers_one_corner_to_stairs() -> None:
    vertices, edges = grid(6, 6)
    graph = TurnGraph.build(edges, vertices, np.ones(len(edges)), turn_weight=0.1)
    path, cost = cheapest_path(graph, np.where(edges[:, 0] == 0, 0.0, np.inf), np.where(edges[:, 1] == 35, 0.0, np.inf))
    steps = np.diff(vertices[path], axis=0)
    assert (np.abs(np.diff(steps, axis=0)).sum(axis=1) > 0).sum() == 1
    assert cost == pytest.approx(10.1)


def test_loop_winds_once_around_the_hole() -> None:
    vertices, edges = grid(7, 7)
    centre = 24
    middle = vertices[edges].mean(axis=1)
    edges = edges[(edges != centre).all(axis=1)]
    middle = vertices[edges].mean(axis=1)
    step = vertices[edges[:, 1]] - vertices[edges[:, 0]]
    crossing = np.where((np.abs(middle[:, 1] - 2.5) < 0.1) & (middle[:, 0] > 3), np.sign(step[:, 1]), 0)
    keep = crossing >= 0
    graph = TurnGraph.build(edges[keep], vertices, np.ones(keep.sum()), 0.2)
    loop, cost = cheapest_loop(graph, crossing[keep] > 0)
    assert is_simple(loop)
    assert len(loop) == 8
    assert cost == pytest.approx(8.8)
    assert np.abs(vertices[loop][:, :2] - 3).max() == 1


def test_interrupted_outline_is_named() -> None:
    vertices, edges = grid(3, 3)
    broken = edges[(edges != 4).all(axis=1)]
    broken = broken[~((broken == 1).any(axis=1) | (broken == 7).any(axis=1))]
    graph = TurnGraph.build(broken, vertices, np.ones(len(broken)), 0.1)
    with pytest.raises(NoPath, match="interrupted"):
        cheapest_path(graph, np.where(broken[:, 0] == 0, 0.0, np.inf), np.where(broken[:, 1] == 8, 0.0, np.inf))
    with pytest.raises(NoPath, match="no edge crosses"):
        cheapest_loop(graph, np.zeros(len(broken), dtype=bool))
