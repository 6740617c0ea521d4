"""Cutting the neck by a plane below the neck's loop of edges, the same cut for every head.

The loop of edges along which a topology is cropped steps up and down with the mesh. The cut follows the plane at the
loop's lowest point instead. Its new vertices lie on fixed edges at fixed shares of their length, found once on the
template, so that on every head they lie exactly on the skin and the faces stay the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facegraft.arrays import Floats, Ints
from facegraft.surfaces.topology import boundary_loops, face_components

FLAT = 0.25
"""A loop needs no cut if its heights above its plane span less than this share of its mean edge length."""


@dataclass(frozen=True)
class NeckCut:
    """The skin above the cut: `faces` [F, 3] over the V vertices and k new ones, and the ordered `loop` [n] of the cut.

    New vertex V + i is (1 − share[i]) · head[edge[i, 0]] + share[i] · head[edge[i, 1]].
    """

    faces: Ints
    loop: Ints
    edge: Ints
    share: Floats

    def extend(self, head: Floats) -> Floats:
        """The head's vertices [V, 3] followed by the cut's: [V + k, 3]."""
        a, b = head[self.edge[:, 0]], head[self.edge[:, 1]]
        return np.concatenate([head, a + self.share[:, None] * (b - a)])


def cut_neck(template: Floats, faces: Ints, loop: Ints, drop: Ints) -> NeckCut | None:
    """Plan the cut on the template [V, 3]; None where the loop is already flat, or there is no skin below it to cut.

    Shapes: faces [F, 3] of the outer skin, loop [n] the ordered neck loop, drop [m] the vertices below it.
    """
    rim = template[loop]
    edge_length = float(np.linalg.norm(np.roll(rim, -1, axis=0) - rim, axis=1).mean())
    up = np.linalg.svd(rim - rim.mean(axis=0))[2][2]
    up = up * np.sign((template.mean(axis=0) - template[drop].mean(axis=0)) @ up) if len(drop) else up
    heights = rim @ up
    if len(drop) == 0 or np.ptp(heights) < FLAT * edge_length:
        return None
    above = template @ up - (heights.min() - 0.15 * edge_length)
    dropped = np.zeros(len(template), dtype=bool)
    dropped[drop] = True
    below_loop = dropped[faces].any(axis=1)
    kept, lower = faces[~below_loop], faces[below_loop]
    inside = above > 0
    count = inside[lower].sum(axis=1)
    one, two = lower[count == 1], lower[count == 2]
    one = _rotated(one, inside[one].argmax(axis=1))  # a stays; b, c go
    two = _rotated(two, (~inside[two]).argmax(axis=1))  # a goes; b, c stay
    crossing = np.concatenate(
        [one[:, [0, 1]], one[:, [0, 2]], two[:, [1, 0]], two[:, [2, 0]]]
    )  # the end that stays first
    if len(crossing) == 0:
        return None
    edge, where = np.unique(crossing, axis=0, return_inverse=True)
    share = above[edge[:, 0]] / (above[edge[:, 0]] - above[edge[:, 1]])
    new = len(template) + where.ravel()
    one_b, one_c, two_b, two_c = np.split(new, np.cumsum([len(one), len(one), len(two)]))
    pieces = [
        np.column_stack([one[:, 0], one_b, one_c]),
        np.column_stack([two[:, 1], two[:, 2], two_b]),
        np.column_stack([two[:, 2], two_c, two_b]),
    ]
    every = np.concatenate([kept, lower[count == 3], *pieces])
    component = face_components(every)
    every = every[component == component[0]]
    loops = boundary_loops(every)
    cut = [found for found in loops if (found >= len(template)).all()]
    rest = np.concatenate([found for found in loops if not (found >= len(template)).all()] or [np.empty(0, np.int64)])
    if len(cut) != 1 or (rest >= len(template)).any() or dropped[rest].any():
        return None  # the plane runs into the neck's own opening: there is not enough skin below the loop
    return NeckCut(every, cut[0], edge, share)


def _rotated(faces: Ints, first: Ints) -> Ints:
    """Faces [F, 3] rotated so that corner number `first` [F] comes first (orientation kept)."""
    return np.take_along_axis(faces, (first[:, None] + np.arange(3)) % 3, axis=1)
