"""Faults of a mesh, each made on a ball or a sheet in a place that is known."""

import numpy as np
import pytest
import trimesh

from facegraft.surfaces.soundness import (
    crowded_edges,
    doubled_faces,
    looks_inward,
    main_piece,
    open_seams,
    pinched_vertices,
    repeated_corners,
    vertices_on_edges,
    winding,
)
from facegraft.surfaces.topology import boundary_edges


@pytest.fixture
def ball() -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.creation.icosphere(subdivisions=2)
    return np.array(mesh.vertices), np.array(mesh.faces, dtype=np.int64)


def cut(v: np.ndarray, f: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices and faces with the rim of a part (mask [F]) doubled, and the vertices that were."""
    rim = np.intersect1d(f[part], f[~part])
    new = f.copy()
    new[part] = np.where(np.isin(f[part], rim), len(v) + np.searchsorted(rim, f[part]), f[part])
    return np.vstack([v, v[rim]]), new, rim


def test_a_ball_has_no_fault(ball) -> None:
    v, f = ball
    for found in (repeated_corners(f), doubled_faces(f), crowded_edges(f), pinched_vertices(f), vertices_on_edges(v, f)):
        assert len(found) == 0
    assert len(winding(f).against) == len(winding(f).one_sided) == len(open_seams(v, f).edges) == 0
    assert not looks_inward(v, f) and looks_inward(v, f[:, ::-1])
    assert len(main_piece(f)) == len(f)


def test_faces_that_are_degenerate_doubled_or_crowded(ball) -> None:
    _, f = ball
    assert repeated_corners(np.vstack([f, [[3, 3, 4]]])).tolist() == [len(f)]
    assert doubled_faces(np.vstack([f, f[7:8, ::-1], f[9:10, [1, 2, 0]]])).tolist() == [len(f), len(f) + 1]
    a, b = f[7, :2]
    assert crowded_edges(np.vstack([f, [[a, b, f[200, 2]]]])).tolist() == [sorted((a, b))]


@pytest.mark.parametrize("flipped", [[5], [5, 6, 200], list(range(60))])
def test_the_fewer_faces_are_wound_against_the_others(ball, flipped: list[int]) -> None:
    _, f = ball
    hurt = f.copy()
    hurt[flipped] = hurt[flipped][:, ::-1]
    assert winding(hurt).against.tolist() == flipped
    assert winding(hurt[:, ::-1]).against.tolist() == flipped  # whichever way the others face


def test_a_moebius_strip_has_one_side() -> None:
    strip = [[i, i + 1, 8 + i] for i in range(7)] + [[i + 1, 9 + i, 8 + i] for i in range(7)] + [[7, 8, 15], [8, 0, 15]]
    assert len(winding(np.array(strip)).one_sided) == len(strip)


def test_an_open_cup_faces_outward_by_its_middle(ball) -> None:
    v, f = ball
    cup = f[(v[f].mean(axis=1)[:, 2] > 0.3)]
    far = v + np.array([100.0, 50.0, 3.0])
    assert not looks_inward(far, cup) and looks_inward(far, cup[:, ::-1])


def test_seams_are_where_vertices_were_doubled(ball) -> None:
    v, f = ball
    wide, faces, rim = cut(v, f, v[f].mean(axis=1)[:, 0] > 0)
    seams = open_seams(wide, faces)
    assert seams.surplus == len(rim)
    assert not seams.slit.any()  # two rims
    assert np.array_equal(np.sort(seams.place[faces], axis=1), np.sort(f, axis=1))  # welded, it is the ball again
    soup = open_seams(v[f].reshape(-1, 3), np.arange(f.size).reshape(-1, 3))
    assert soup.surplus == f.size - len(v)
    half = f[v[f].mean(axis=1)[:, 0] > 0]
    assert len(open_seams(v, half).edges) == 0  # a rim with nothing beside it


def test_a_cut_that_ends_inside_is_a_slit() -> None:
    """A grid whose middle vertex is doubled, for the faces above it and for those below."""
    x, y = np.meshgrid(np.arange(5.0), np.arange(5.0), indexing="ij")
    v = np.column_stack([x.ravel(), y.ravel(), np.zeros(25)])
    a = (np.arange(4)[:, None] * 5 + np.arange(4)).ravel()
    f = np.concatenate([np.column_stack([a, a + 5, a + 6]), np.column_stack([a, a + 6, a + 1])])
    above = (f == 12).any(axis=1) & (v[f].mean(axis=1)[:, 1] > 2.0)
    faces = np.where(above[:, None] & (f == 12), 25, f)
    seams = open_seams(np.vstack([v, v[12]]), faces)
    assert seams.surplus == 1 and len(seams.edges) == 4 and seams.slit.all()


def test_a_divided_edge_is_a_t_junction(ball) -> None:
    v, f = ball
    middle = 0.5 * (v[f[7, 0]] + v[f[7, 1]])
    a, b, c = f[7]
    faces = np.vstack([np.delete(f, 7, axis=0), [[a, len(v), c], [len(v), b, c]]])
    assert vertices_on_edges(np.vstack([v, middle]), faces).tolist() == [len(v)]


def test_a_face_that_hangs_by_its_corner(ball) -> None:
    v, f = ball
    cup = f[v[f].mean(axis=1)[:, 2] > 0.3]
    rim = int(boundary_edges(cup)[0, 0])
    assert pinched_vertices(np.vstack([cup, [[rim, len(v), len(v) + 1]]])).tolist() == [rim]
