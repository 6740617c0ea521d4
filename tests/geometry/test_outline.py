"""Outlines: curves through their points, distances against brute force, roughness, crossings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facegraft.geometry.outline import Outline, catmull_rom, crosses, roughness


def star(points: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False) + rng.uniform(-0.1, 0.1, points)
    return np.column_stack([np.cos(angle), np.sin(angle)]) * rng.uniform(3, 6, (points, 1))


@given(st.integers(4, 20), st.integers(0, 10**6))
def test_curve_passes_through_its_control_points(points: int, seed: int) -> None:
    control = star(points, seed)
    curve = catmull_rom(control, samples=8)
    np.testing.assert_allclose(curve[::8], control, atol=1e-9)


def test_curve_of_a_mirrored_polygon_is_mirrored() -> None:
    half = np.array([[0, 4], [2, 3], [3, 0], [1.5, -2], [0, -3.0]])
    curve = catmull_rom(np.vstack([half, half[-2:0:-1] * [-1, 1]]), samples=10)
    image = (curve * [-1, 1])[::-1]
    np.testing.assert_allclose(np.roll(image, 1, axis=0), curve, atol=1e-9)


def test_too_few_points_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        catmull_rom([[0, 0], [1, 1]])


@given(st.integers(5, 12), st.integers(0, 10**6))
def test_distance_and_containment_against_brute_force(points: int, seed: int) -> None:
    curve = catmull_rom(star(points, seed), samples=12)
    query = np.random.default_rng(seed + 1).uniform(-7, 7, (40, 2))
    distance, tangent, along = Outline(curve).nearest(query)
    a, b = curve, np.roll(curve, -1, axis=0)
    t = np.clip(((query[:, None] - a) * (b - a)).sum(-1) / ((b - a) ** 2).sum(-1), 0, 1)
    true = np.linalg.norm(a + t[..., None] * (b - a) - query[:, None], axis=-1).min(axis=1)
    near = true < 1.0  # beyond, the nearest vertex may belong to another segment: not used there
    np.testing.assert_allclose(distance[near], true[near], atol=0.02)
    assert (distance >= true - 1e-9).all()
    np.testing.assert_allclose(np.linalg.norm(tangent, axis=1), 1.0, atol=1e-9)
    assert ((along >= 0) & (along < 1)).all()
    offset = curve[None] - query[:, None]
    angle = np.arctan2(offset[..., 1], offset[..., 0])
    turn = np.diff(np.concatenate([angle, angle[:, :1]], axis=1), axis=1)
    winding = np.round(((turn + np.pi) % (2 * np.pi) - np.pi).sum(axis=1) / (2 * np.pi))
    clear = true > 1e-6
    assert np.array_equal(Outline(curve).contains(query)[clear], winding[clear] != 0)


def test_roughness_tells_a_circle_from_stairs() -> None:
    angle = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    assert roughness(np.column_stack([np.cos(angle), np.sin(angle)])) < 1.01
    steps = [(1, 0), (0, 1)] * 20 + [(0, 1), (-1, 0)] * 20 + [(-1, 0), (0, -1)] * 20 + [(0, -1), (1, 0)] * 20
    assert roughness(np.cumsum(np.array(steps, dtype=float), axis=0)) > 1.3


def test_crossings_are_signed_and_counted_once() -> None:
    line = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    up = crosses([[0.5, -1], [1.0, -1], [3, -1]], [[0.5, 1], [1.0, 1], [3, 1]], line)
    assert up.tolist() == [1, 1, 0]
    assert crosses([[1.0, 1]], [[1.0, -1]], line).tolist() == [-1]
