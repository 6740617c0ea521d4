"""The 68 iBUG landmarks of the template, and its eyeballs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

from facegraft.arrays import Floats, Ints
from facegraft.heads.synthetic.layout import Layout

# left half, mm; the nearest vertex of the outer surface is taken
_JAW = [
    (70, -5, 20),
    (69, -22, 21),
    (66.5, -39, 24),
    (62.5, -56, 30),
    (56.5, -72, 40),
    (47.5, -86, 55),
    (35.5, -97, 70),
    (18.5, -106, 84),
]
_BROW = [(9.5, 20), (19, 23.5), (29, 24), (39.5, 22.5), (49, 17.5)]  # in the front view
_NOSE_WING = [(6.3, -49.0, 104.0), (12.5, -47.0, 101.5)]
_NOSE_RIDGE = [3.0, -10.5, -24.5]  # heights on the midline above the tip
_UPPER_LIP, _LOWER_LIP, _INNER_LIP = (5.5, 14.5), (7.5, 15.5), 9.0  # distances from the midline


def landmarks(half: Floats, layout: Layout, twin: Ints, border_ring: int) -> Ints:
    """Vertex indices [68]. `twin` gives every half vertex its mirror image; `border_ring` is the outline of the lips."""
    tree = cKDTree(half)

    def near(points: Sequence[tuple[float, float, float]]) -> list[int]:
        return [int(v) for v in tree.query(np.array(points))[1]]

    front = layout.grid[:, 0]
    front = front[front >= 0]

    def on_midline(y: float) -> int:
        return int(front[np.argmin(np.abs(half[front, 1] - y) - 1e3 * (half[front, 2] > 90))])

    jaw = near(_JAW)  # ear to chin
    gnathion = int(front[np.argmin(np.linalg.norm(half[front] - [0, -109.0, 92.0], axis=1))])
    ahead = np.flatnonzero(half[:, 2] > 60)
    brow = [int(ahead[k]) for k in cKDTree(half[ahead, :2]).query(np.array(_BROW))[1]]
    tip = int(front[np.argmax(half[front, 2])])
    ridge = [on_midline(y) for y in _NOSE_RIDGE]
    below = front[(half[front, 1] < half[tip, 1]) & (half[front, 1] > -60)]
    base = int(below[np.argmin(np.hypot(half[below, 1] + 48.0, 0.5 * (half[below, 2] - 105.0)))])
    wing = near(_NOSE_WING)

    rim = layout.eye[-1]
    n = len(rim)
    third = round(n / 6)
    eye = [
        int(rim[k]) for k in (n // 2, n // 2 - third, third, 0, n - third, n // 2 + third)
    ]  # inner, upper, outer, lower

    def on_ring(ring: Ints, x: float, upper: bool) -> int:
        corner = len(ring) // 2
        part = ring[corner:] if upper else ring[: corner + 1]
        return int(part[np.argmin(np.abs(half[part, 0] - x))])

    outer, inner = layout.mouth[border_ring], layout.mouth[-2]
    corner = len(outer) // 2
    left_outer = [on_ring(outer, x, True) for x in _UPPER_LIP] + [int(outer[corner])]
    left_lower = [on_ring(outer, x, False) for x in _LOWER_LIP[::-1]]

    def mirrored(vertices: list[int]) -> list[int]:
        return [int(twin[v]) for v in vertices]

    result = [*mirrored(jaw), gnathion, *jaw[::-1]]
    result += mirrored(brow[::-1]) + brow
    result += [*ridge, tip]
    result += [*mirrored(wing[::-1]), base, *wing]
    result += mirrored([eye[3], eye[2], eye[1], eye[0], eye[5], eye[4]]) + eye
    result += [*mirrored(left_outer[::-1]), int(outer[-1]), *left_outer]
    result += [*left_lower, int(outer[0]), *mirrored(left_lower[::-1])]
    up, low = on_ring(inner, _INNER_LIP, True), on_ring(inner, _INNER_LIP, False)
    result += [
        *mirrored([int(inner[corner]), up]),
        int(inner[-1]),
        up,
        int(inner[corner]),
        low,
        int(inner[0]),
        *mirrored([low]),
    ]
    return np.array(result, dtype=np.int64)


def sphere(centre: Floats, radius: float, rings: int = 15, sectors: int = 24) -> tuple[Floats, Ints]:
    """A closed sphere with its poles in front and behind: vertices [rings * sectors + 2, 3], faces outward."""
    polar = np.pi * np.arange(1, rings + 1) / (rings + 1)
    turn = 2 * np.pi * np.arange(sectors) / sectors
    ring = np.stack(
        [
            np.outer(np.sin(polar), np.cos(turn)),
            np.outer(np.sin(polar), np.sin(turn)),
            np.outer(np.cos(polar), np.ones(sectors)),
        ],
        axis=-1,
    )
    unit = np.concatenate([[[0, 0, 1.0]], ring.reshape(-1, 3), [[0, 0, -1.0]]])
    place = 1 + np.arange(rings * sectors).reshape(rings, sectors)
    after = np.roll(place, -1, axis=1)
    last = rings * sectors + 1
    faces = [
        np.column_stack([np.zeros(sectors, dtype=np.int64), place[0], after[0]]),
        np.column_stack([a.ravel() for a in (place[:-1], place[1:], after[1:])]),
        np.column_stack([a.ravel() for a in (place[:-1], after[1:], after[:-1])]),
        np.column_stack([place[-1], np.full(sectors, last), after[-1]]),
    ]
    return np.asarray(centre) + radius * unit, np.concatenate(faces).astype(np.int64)
