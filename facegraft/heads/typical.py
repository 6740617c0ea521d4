"""The typical head of a set, and heads that differ from it as no face does: a stray vertex, a stretched mesh, a pose left in the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Floats, Ints
from facegraft.heads.alignment import (
    STABLE_LANDMARKS,
    TO_ALIGN,
    Motion,
    expression_map,
    median_landmarks,
    motion,
    moved,
)
from facegraft.surfaces.procrustes import procrustes

FEWEST = 3
"""Heads whose median one bad head does not move."""
FAR_SKIN_MM, FAR_MM = 120.0, 500.0
"""Largest distance of a vertex of the face's skin, and of any other, from its place in the typical head: no jaw opens so far, no neck bends so far."""
SPIKE_MM, SPIKE_RATIO = 25.0, 6.0
"""An edge is a spike if it is longer than this, and than this multiple of its length in the typical head."""
LONGEST_MM = 100.0
"""No edge of a head is so long, in whatever topology: those that we know have edges of up to 31 mm."""
COLLAPSED_SHARE, MOST_COLLAPSED = 0.1, 2
"""A vertex is collapsed if all its edges are shorter than this share of those in the typical head; no expression does that to any."""
STRETCH = 1.35
"""Largest ratio of the strongest to the weakest stretch of the affine map of the typical head onto a head."""
TURN_DEG = 15.0
"""Largest turn of a head against the typical one, by its landmarks, where the pose is kept."""
POSED_DEG, POSED_MM = 6.0, 15.0
"""Largest turn and shift of an expression against its subject's neutral head: good ones come to 1 degree and 3 mm."""
POSED_SCALE = 1.05
"""Largest ratio of their sizes."""
_SPARSE = 8
"""Every so manieth vertex of the skin is enough to find an expression's pose."""


def typical_head(heads: Sequence[Floats], landmarks68: Ints) -> Floats:
    """The median [V, 3] of heads, moved rigidly onto each other by their stable landmarks."""
    target = median_landmarks([head[landmarks68] for head in heads], similarity=False)
    stable = landmarks68[list(STABLE_LANDMARKS)]
    return np.asarray(np.median([moved(head, procrustes(head[stable], target, similarity=False)) for head in heads], axis=0))


@dataclass(frozen=True)
class Likeness:
    """How a head differs from the typical one.

    vertex: the one that is farthest from its place, as a share of what it may be; apart_mm: how far; beyond: how many are too far. edge: the longest
    spike (its two vertices), None without one; edge_mm, usual_mm: its length, and in the typical head; spikes: how many. stretches: the strongest and
    the weakest of the affine map onto the head. collapsed: vertices that lie in one place with all their neighbours. turn_deg: by the stable landmarks.
    """

    vertex: int
    apart_mm: float
    beyond: int
    edge: tuple[int, int] | None
    edge_mm: float
    usual_mm: float
    spikes: int
    stretches: tuple[float, float]
    collapsed: tuple[int, ...]
    turn_deg: float

    @property
    def stretch(self) -> float:
        """Ratio of the strongest to the weakest stretch."""
        return self.stretches[0] / self.stretches[1] if self.stretches[1] > 0 else math.inf

    def fault(self, *, posed: bool) -> str | None:
        """What no face does, in words; None for a head like the others. posed: the pose is of no account."""
        if self.beyond:
            return (
                f"vertex {self.vertex} lies {self.apart_mm:,.0f} mm from its place in the other heads ({self.beyond} such vertices): "
                "a failed registration, or a mesh of another order of vertices; mend the file or leave it out"
            )
        if self.edge is not None:
            return (
                f"the edge from vertex {self.edge[0]} to {self.edge[1]} is {self.edge_mm:.0f} mm long, {self.usual_mm:.1f} mm in the other heads "
                f"({self.spikes} such edges): a spike of a failed registration; mend the file or leave it out"
            )
        if len(self.collapsed) > MOST_COLLAPSED:
            return (
                f"{len(self.collapsed)} vertices (such as {self.collapsed[0]}) lie in one place with all their neighbours: a part that was not registered, "
                "or was left at the origin; mend the file or leave it out"
            )
        if self.stretch > STRETCH:
            return (
                f"the head is stretched or squashed beside the others, by factors of {self.stretches[0]:.2f} and {self.stretches[1]:.2f} in two "
                "directions: an export with unequal scales; mend the file or leave it out"
            )
        if not posed and self.turn_deg > TURN_DEG:
            return f"the head is turned by {self.turn_deg:.0f} degrees against the others; turn it upright, {TO_ALIGN}"
        return None


def likeness(vertices: Floats, typical: Floats, edges: Ints, skin: Ints, landmarks68: Ints) -> Likeness:
    """A head beside the typical one, both [V, 3] in mm; edges [E, 2] of the mesh; skin: indices of the face's skin."""
    stable = landmarks68[list(STABLE_LANDMARKS)]
    matrix = procrustes(typical[stable], vertices[stable], similarity=True)
    placed = moved(typical, matrix)
    apart = np.linalg.norm(vertices - placed, axis=1)
    limits = np.full(len(vertices), np.inf)  # of vertices in no face, which may lie anywhere
    limits[edges.ravel()] = FAR_MM
    limits[skin] = FAR_SKIN_MM
    worst = int((apart / limits).argmax())
    own, usual = (np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1) for points in (vertices, placed))
    spikes = (own > SPIKE_MM) & (own > SPIKE_RATIO * usual)
    spike = int(np.where(spikes, own, 0.0).argmax())
    stretches = _stretches(placed[skin], vertices[skin])
    return Likeness(
        vertex=worst,
        apart_mm=float(apart[worst]),
        beyond=int((apart > limits).sum()),
        edge=(int(edges[spike, 0]), int(edges[spike, 1])) if spikes.any() else None,
        edge_mm=float(own[spike]),
        usual_mm=float(usual[spike]),
        spikes=int(spikes.sum()),
        stretches=(float(stretches[0]), float(stretches[-1])),
        collapsed=tuple(_only_at(edges, own < COLLAPSED_SHARE * usual, len(vertices)).tolist()),
        turn_deg=motion(matrix, typical[stable]).turn_deg,
    )


def _only_at(edges: Ints, chosen: NDArray[np.bool_], count: int) -> Ints:
    """The vertices, of so many, all of whose edges [E, 2] are chosen [E]."""
    here = np.bincount(edges.ravel(), minlength=count)
    return np.flatnonzero((here > 0) & (np.bincount(edges[chosen].ravel(), minlength=count) == here))


def fault_of_edges(vertices: Floats, edges: Ints) -> str | None:
    """What is wrong with a head [V, 3] (mm) by itself, without others beside it: an edge that no head has. None where nothing is."""
    lengths = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)
    longest = int(lengths.argmax())
    if lengths[longest] <= LONGEST_MM:
        return None
    a, b = edges[longest]
    return (
        f"the edge from vertex {a} to {b} is {lengths[longest]:,.0f} mm long ({int((lengths > LONGEST_MM).sum())} edges are longer than {LONGEST_MM:g} mm): a spike of a "
        "failed registration; mend the file or leave it out"
    )


def pose_of_expression(vertices: Floats, neutral: Floats, skin: Ints, landmarks68: Ints) -> Motion:
    """How an expression lies against its subject's neutral head, both [V, 3] in mm."""
    few = skin[::_SPARSE]
    matrix = expression_map(neutral[few], vertices[few], similarity=True)
    return motion(matrix, neutral[landmarks68[list(STABLE_LANDMARKS)]])


def fault_of_pose(found: Motion) -> str | None:
    """What is wrong where the pose of an expression would be learnt as expression; None where it would not."""
    if not 1 / POSED_SCALE <= found.scale <= POSED_SCALE:
        return (
            f"the head has {found.scale:.2f} times the size of its subject's neutral head, which would be learnt as expression; export both in one unit, or give "
            "ingest.align=similarity, which takes out the size too"
        )
    if found.turn_deg <= POSED_DEG and found.shift_mm <= POSED_MM:
        return None
    return (
        f"the head is turned by {found.turn_deg:.0f} degrees and moved by {found.shift_mm:.0f} mm against its subject's neutral head, which would be "
        f"learnt as expression; take out its pose, {TO_ALIGN}"
    )


def _stretches(source: Floats, target: Floats) -> Floats:
    """The stretches, strongest first, of the affine map that takes points [n, 3] best onto others."""
    x, y = source - source.mean(axis=0), target - target.mean(axis=0)
    linear = np.linalg.lstsq(x, y, rcond=None)[0]
    return np.asarray(np.linalg.svd(linear, compute_uv=False))
