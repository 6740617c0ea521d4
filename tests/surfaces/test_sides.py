"""Which side of a closed mesh points lie on, against sums of solid angles: where faces pass through each other, where sheets touch, and where
lines along the axes meet corners and sides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from facegraft.arrays import Floats, Ints
from facegraft.geometry.clipping import icosphere
from facegraft.surfaces.compiled.sides import winding_number
from facegraft.surfaces.nearest import SearchTree
from facegraft.testing.distance import brute_force_nearest, brute_force_winding

AWAY = 1e-9
"""Points nearer than this to the mesh are on no side."""
BALL, BALL_FACES = icosphere(2)
CUBE = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
QUADS = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
CUBE_FACES = np.array([t for a, b, c, d in QUADS for t in ((a, b, c), (a, c, d))])


def together(*meshes: tuple[Floats, Ints]) -> tuple[Floats, Ints]:
    """Several meshes as one."""
    shift = np.cumsum([0, *(len(v) for v, _ in meshes)])
    return np.concatenate([v for v, _ in meshes]), np.concatenate([f + n for (_, f), n in zip(meshes, shift[:-1], strict=True)])


def check(vertices: Floats, faces: Ints, points: Floats) -> None:
    """Distance and side of the points [n, 3] against every triangle."""
    found, inside = SearchTree(vertices, faces).nearest_and_inside(points)
    distance, _ = brute_force_nearest(vertices, faces, points)
    np.testing.assert_allclose(found.distance, distance, atol=1e-9)
    clear = distance > AWAY
    expected = brute_force_winding(vertices, faces, points) > 0.5
    wrong = clear & (inside != expected)
    assert not wrong.any(), f"{wrong.sum()} of {clear.sum()} on the wrong side, first {points[wrong][0]}"


def around(vertices: Floats, faces: Ints, rng: np.random.Generator, count: int = 150) -> Floats:
    """Points in the box of a mesh, and beside the middles, sides and corners of its faces."""
    low, high = vertices.min(0) - 0.2, vertices.max(0) + 0.2
    chosen = faces[rng.integers(len(faces), size=count)]
    weights = rng.dirichlet((0.3, 0.3, 0.3), size=count)
    weights[: count // 3] = np.round(weights[: count // 3])  # at corners, or between two
    beside = np.einsum("nc,ncj->nj", weights, vertices[chosen]) + rng.normal(size=(count, 3)) * rng.choice([1e-7, 1e-3, 0.1], size=(count, 1))
    return np.concatenate([rng.uniform(low, high, (count, 3)), beside])


@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.05, 0.3]))
@settings(max_examples=25, deadline=None)
@example(7, 0.3)
def test_rough_balls_that_pass_through_themselves(seed: int, noise: float) -> None:
    """With noise of a third of its radius a ball is a tangle: numbers from below 0 to above 1."""
    rng = np.random.default_rng(seed)
    vertices = BALL + noise * rng.standard_normal(BALL.shape)
    check(vertices, BALL_FACES, around(vertices, BALL_FACES, rng))


def test_two_balls_that_overlap() -> None:
    """Inside both the number is 2; the parts of each in the other are patches with 1 in front of them."""
    vertices, faces = together((BALL, BALL_FACES), (0.9 * BALL + [0.7, 0.1, 0.0], BALL_FACES))
    tree = SearchTree(vertices, faces)
    assert sorted(np.unique(tree.sides.outside)) == [0, 1] and (tree.sides.patches < 0).any()
    assert winding_number(vertices, faces, tree.tree, np.array([0.4, 0.05, 0.01])) == 2
    check(vertices, faces, around(vertices, faces, np.random.default_rng(0)))


def test_a_hollow_ball_and_one_turned_inside_out() -> None:
    hollow = together((BALL, BALL_FACES), (0.5 * BALL, BALL_FACES[:, ::-1]))
    assert sorted(SearchTree(*hollow).sides.outside) == [0, 0]
    check(*hollow, around(*hollow, np.random.default_rng(1)))
    beside = together((BALL, BALL_FACES), (0.5 * BALL + [4.0, 0, 0], BALL_FACES[:, ::-1]))
    assert sorted(SearchTree(*beside).sides.outside) == [-1, 0]
    check(*beside, around(*beside, np.random.default_rng(2)))


def test_sheets_that_touch_in_a_vertex_or_a_side() -> None:
    """Two tetrahedra share a vertex, a side or a face's plane: the pseudonormal there is of both, and must not be used."""
    tet, tet_faces = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]), np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    joined = np.concatenate([tet, -tet[1:]]), np.concatenate([tet_faces, np.array([[0, 5, 4], [0, 4, 6], [0, 6, 5], [4, 5, 6]])[:, ::-1]])
    assert not SearchTree(*joined).sides.single[0]
    rng = np.random.default_rng(3)
    for mesh in (joined, together((tet, tet_faces), (tet * [1, -1, 1], tet_faces[:, ::-1])), together((CUBE, CUBE_FACES), (CUBE + np.array([2.0, 0, 0]), CUBE_FACES))):
        points = np.concatenate([around(*mesh, rng), rng.normal(size=(60, 3)) * 1e-4])
        check(*mesh, points)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_lines_along_the_axes_through_corners_and_sides(axis: int) -> None:
    """Points on a grid that the mesh shares: every line meets corners, sides or planes seen edge on."""
    vertices, faces = together((CUBE, CUBE_FACES), (0.5 * CUBE + 0.75, CUBE_FACES))
    grid = np.stack(np.meshgrid(*3 * [np.arange(-1.5, 1.75, 0.25)], indexing="ij"), axis=-1).reshape(-1, 3)
    grid = grid[np.random.default_rng(axis).permutation(len(grid))[:300]]
    check(np.roll(vertices, axis, axis=1), faces, np.roll(grid, axis, axis=1))


def test_faces_folded_onto_each_other() -> None:
    """A sheet of no thickness: two triangles back to back, and a tetrahedron flattened to a square."""
    flat = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), np.array([[0, 1, 2], [0, 2, 1]])
    square = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]), np.array([[0, 2, 1], [0, 3, 2], [0, 1, 3], [1, 2, 3]])
    for vertices, faces in (flat, square):
        points = np.random.default_rng(4).uniform(-0.5, 1.5, (200, 3))
        assert not SearchTree(vertices, faces).nearest_and_inside(points)[1].any()


@given(st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_nearest_points_of_a_soup_of_slivers(seed: int) -> None:
    """Triangles that are long, short, lines or points, in any order."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 60))
    corners = rng.normal(size=(count, 3, 3)) * np.exp(rng.uniform(-8, 1, (count, 1, 1)))
    kind = rng.integers(4, size=count)
    corners[kind == 1, 2] = 0.3 * corners[kind == 1, 0] + 0.7 * corners[kind == 1, 1]
    corners[kind == 2, 2] = corners[kind == 2, 1]
    corners[kind == 3] = corners[kind == 3, :1]
    corners += rng.normal(size=(count, 1, 3))
    vertices, faces = corners.reshape(-1, 3), np.arange(3 * count).reshape(-1, 3)
    points = np.concatenate([rng.normal(size=(40, 3)), corners.mean(1), corners[:, 0]])
    found = SearchTree(vertices, faces).nearest(points)
    own = np.stack([to_triangles(corners, kind == 0, point) for point in points])
    np.testing.assert_allclose(found.distance, own.min(1), atol=1e-8)
    np.testing.assert_allclose(own[np.arange(len(points)), found.face], found.distance, atol=1e-8)


def to_triangles(corners: Floats, solid: NDArray[np.bool_], point: Floats) -> Floats:
    """Distance [F] of a point to triangles [F, 3, 3]: to the nearest side, and over the inside of those that are solid [F] to the plane."""
    best = np.full(len(corners), np.inf)
    for k in range(3):
        a, along = corners[:, k], corners[:, (k + 1) % 3] - corners[:, k]
        share = ((point - a) * along).sum(1) / np.maximum((along * along).sum(1), np.finfo(float).tiny)
        best = np.minimum(best, np.linalg.norm(point - a - np.clip(share, 0, 1)[:, None] * along, axis=1))
    if solid.any():
        best[solid] = np.minimum(best[solid], [brute_force_nearest(c, None, point[None], paired=True)[0][0] for c in corners[solid]])
    return best


def test_triangles_of_very_different_sizes() -> None:
    """Sizes from 1e-60 to 1e60: splits are as uneven as can be."""
    sizes = 10.0 ** np.arange(-60, 61)
    vertices = (np.array([[1.0, 0, 0], [1.1, 0, 0], [1.0, 0.1, 0]]) * sizes[:, None, None]).reshape(-1, 3)
    faces = np.arange(len(vertices)).reshape(-1, 3)
    middles = vertices.reshape(-1, 3, 3).mean(1)
    found = SearchTree(vertices, faces).nearest(middles)
    assert (found.face == np.arange(len(faces))).all()
    assert (found.distance <= 1e-14 * np.linalg.norm(middles, axis=1)).all()
