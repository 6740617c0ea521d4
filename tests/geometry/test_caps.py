"""Caps: triangulations of rims, fixed weights, and placement on a sphere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from facegraft.arrays import Floats
from facegraft.geometry.caps import (
    CapError,
    estimated_eye_radius,
    minimal_area_cap,
    place_flat,
    place_on_sphere,
    planar_cap,
    sphere_centre,
    sphere_radius,
)
from facegraft.surfaces.normals import face_areas
from facegraft.surfaces.topology import boundary_edges, euler_characteristic


def clockwise(x: float, y: float, n: int, z: float = 0.0) -> Floats:
    """An ellipse that runs clockwise seen from +z, as the rim of an opening in a surface that faces +z does."""
    turn = -2.0 * np.pi * np.arange(n) / n
    return np.column_stack([x * np.cos(turn), y * np.sin(turn), np.full(n, z)])


def assert_disk(faces: NDArray[np.int64], n: int) -> None:
    """One disk whose boundary runs against the rim."""
    against = {(int((i + 1) % n), int(i)) for i in range(n)}
    assert {(int(a), int(b)) for a, b in boundary_edges(faces)} == against
    assert euler_characteristic(faces) == 1


def test_minimal_area_of_a_square_is_its_area() -> None:
    pattern = minimal_area_cap(clockwise(1.0, 1.0, 4))
    assert_disk(pattern.faces, 4)
    assert pattern.new_count == 0
    assert face_areas(clockwise(1.0, 1.0, 4), pattern.faces).sum() == pytest.approx(2.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 7), st.randoms(use_true_random=False))
def test_minimal_area_is_minimal(n: int, random: object) -> None:
    """Against the area of every triangulation, for small crooked loops."""
    rng = np.random.default_rng(random.randrange(2**32))  # type: ignore[attr-defined]
    rim = clockwise(1.0, 1.0, n) + 0.5 * rng.standard_normal((n, 3))

    def every(a: int, b: int) -> list[list[tuple[int, int, int]]]:
        if b - a < 2:
            return [[]]
        return [[(a, b, k), *left, *right] for k in range(a + 1, b) for left in every(a, k) for right in every(k, b)]

    best = min(face_areas(rim, np.array(faces)).sum() for faces in every(0, n - 1))
    found = minimal_area_cap(rim, evenness=0.0)
    assert_disk(found.faces, n)
    assert face_areas(rim, found.faces).sum() == pytest.approx(best, rel=1e-9)


def test_taken_chords_are_not_drawn() -> None:
    rim = clockwise(3.0, 1.0, 8)
    free = minimal_area_cap(rim)
    chords = {
        tuple(sorted((int(a), int(b)))) for f in free.faces for a, b in ((f[0], f[1]), (f[1], f[2]), (f[2], f[0]))
    }
    chords = {(a, b) for a, b in chords if b - a not in (1, 7)}
    taken = sorted(chords)[0]
    other = minimal_area_cap(rim, [taken])
    assert_disk(other.faces, 8)
    assert taken not in {
        tuple(sorted((int(a), int(b)))) for f in other.faces for a, b in ((f[0], f[1]), (f[1], f[2]), (f[2], f[0]))
    }
    with pytest.raises(CapError, match="already has"):
        minimal_area_cap(clockwise(1.0, 1.0, 4), [(0, 2), (1, 3)])


def test_a_rim_of_two_is_refused() -> None:
    with pytest.raises(CapError, match="at least 3"):
        minimal_area_cap(np.zeros((2, 3)))


@pytest.mark.parametrize("shape", [(15.0, 6.0, 42), (60.0, 50.0, 46), (1.0, 1.0, 12), (20.0, 3.0, 90)])
def test_planar_caps_are_well_shaped_disks(shape: tuple[float, float, int]) -> None:
    rim = clockwise(*shape)
    pattern = planar_cap(rim)
    assert pattern is not None
    n = shape[2]
    assert_disk(pattern.faces, n)
    assert pattern.weights.min() > -1e-12
    np.testing.assert_allclose(pattern.weights.sum(axis=1), 1.0, atol=1e-12)
    every = np.concatenate([rim, place_flat(pattern, rim)])
    corners = every[pattern.faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (cross[:, 2] > 0).all()  # faces +z, as the surface around does
    assert 0.5 * cross[:, 2].sum() == pytest.approx(face_areas(rim, minimal_area_cap(rim).faces).sum())
    within = (pattern.faces >= n).any(axis=1)
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
    quality = 2.0 * np.sqrt(3.0) * cross[within, 2] / (edges[within] ** 2).sum(axis=1)  # 1 for an equilateral triangle
    assert np.median(quality) > 0.9
    assert quality.min() > 0.2


def test_weights_reproduce_affine_maps() -> None:
    rim = clockwise(15.0, 6.0, 42)
    pattern = planar_cap(rim)
    assert pattern is not None
    matrix = np.array([[1.2, 0.3, 0.0], [-0.1, 0.8, 0.0], [0.4, 0.2, 1.0]])
    np.testing.assert_allclose(
        place_flat(pattern, rim @ matrix.T + 5.0), place_flat(pattern, rim) @ matrix.T + 5.0, atol=1e-10
    )


def test_a_corner_that_doubles_back_is_kept_a_disk() -> None:
    """Lid corners of real topologies cross themselves when projected; the cap stays a disk with its rim intact."""
    rim = clockwise(15.0, 6.0, 60)
    rim[0:3] = rim[[2, 1, 0]] + [[0.0, 0.0, 1.0]]
    pattern = planar_cap(rim)
    assert pattern is not None
    assert_disk(pattern.faces, 60)


def test_a_slit_has_no_room_for_a_planar_cap() -> None:
    assert planar_cap(clockwise(20.0, 0.05, 40)) is None


def test_planar_cap_avoids_taken_chords() -> None:
    rim = clockwise(15.0, 6.0, 42)
    pattern = planar_cap(rim, [(41, 1)])
    assert pattern is not None
    assert not any({41, 1} <= set(face.tolist()) for face in pattern.faces)


@settings(max_examples=30, deadline=None)
@given(st.floats(11.0, 20.0), st.floats(0.2, 0.9), st.floats(-3.0, 3.0), st.floats(-3.0, 3.0))
def test_cap_on_a_sphere_lies_on_it(radius: float, height: float, x: float, y: float) -> None:
    rim = clockwise(10.0 * 0.95, 10.0 * height, 42)
    rim[:, 2] = np.sqrt(radius**2 - (rim[:, :2] ** 2).sum(axis=1))
    rim += [x, y, 7.0]
    np.testing.assert_allclose(sphere_centre(rim, radius), [x, y, 7.0], atol=1e-5)
    pattern = planar_cap(rim)
    assert pattern is not None
    new = place_on_sphere(pattern, rim, radius)
    np.testing.assert_allclose(np.linalg.norm(new - [x, y, 7.0], axis=1), radius, atol=1e-4)
    assert (new[:, 2] > rim[:, 2].min()).all()  # it bulges out


def test_closed_lids_get_a_thin_cap_not_a_bulge() -> None:
    pattern = planar_cap(clockwise(15.0, 6.0, 42))
    assert pattern is not None
    shut = clockwise(15.0, 0.0, 42)
    shut[:, 2] = -0.02 * shut[:, 0] ** 2
    new = place_on_sphere(pattern, shut, 15.0)
    assert np.abs(new[:, 1]).max() < 1e-9
    assert new[:, 2].max() < 1.0


def test_radii() -> None:
    rng = np.random.default_rng(3)
    ball = rng.standard_normal((500, 3))
    ball = 12.0 * ball / np.linalg.norm(ball, axis=1)[:, None] + [30.0, 30.0, 80.0]
    assert sphere_radius(ball) == pytest.approx(12.0)
    assert estimated_eye_radius(clockwise(12.5, 5.0, 40)) == pytest.approx(15.0)
    with pytest.raises(CapError, match="no area"):
        sphere_centre(np.zeros((5, 3)), 1.0)
