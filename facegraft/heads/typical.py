"""The typical head of a set, and heads that differ from it as no face does: a stray vertex, a stretched mesh, a pose left in the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from facegraft.arrays import Floats, Ints
from facegraft.heads.alignment import STABLE_LANDMARKS, Motion, expression_map, median_landmarks, motion, moved
from facegraft.meshfiles.errors import MeshError
from facegraft.surfaces.procrustes import procrustes

FEWEST = 3
"""Heads whose median one bad head does not move."""
FAR_SKIN_MM, FAR_MM = 120.0, 500.0
"""Largest distance of a vertex of the face's skin, and of any other, from its place in the typical head: no jaw opens so far, no neck bends so far."""
SPIKE_MM, SPIKE_RATIO = 25.0, 6.0
"""An edge is a spike if it is longer than this, and than this multiple of its length in the typical head."""
STRETCH = 1.35
"""Largest ratio of the strongest to the weakest stretch of the affine map of the typical head onto a head."""
TURN_DEG = 15.0
"""Largest turn of a head against the typical one, by its landmarks, where the pose is kept."""
POSED_DEG, POSED_MM = 8.0, 25.0
"""Largest turn and shift of an expression against its subject's neutral head."""
_SPARSE = 8
"""Every so manieth vertex of the skin is enough to find an expression's pose."""

TO_ALIGN = "or give ingest.align=rigid, which takes out the pose of all heads"


def typical_head(heads: Sequence[Floats], landmarks68: Ints) -> Floats:
    """The median [V, 3] of heads, moved rigidly onto each other by their stable landmarks."""
    target = median_landmarks([head[landmarks68] for head in heads], similarity=False)
    stable = landmarks68[list(STABLE_LANDMARKS)]
    return np.asarray(np.median([moved(head, procrustes(head[stable], target, similarity=False)) for head in heads], axis=0))


def check_typical(
    vertices: Floats, typical: Floats, edges: Ints, skin: Ints, landmarks68: Ints, where: str, *, posed: bool
) -> None:
    """Raise MeshError for a head that differs from the typical one as no face does.

    vertices, typical [V, 3] in mm; edges [E, 2] of the mesh; skin: indices of the face's skin. posed: the pose is of no account. where names the file.
    """
    stable = landmarks68[list(STABLE_LANDMARKS)]
    matrix = procrustes(typical[stable], vertices[stable], similarity=True)
    placed = moved(typical, matrix)
    apart = np.linalg.norm(vertices - placed, axis=1)
    limits = np.full(len(vertices), np.inf)  # of vertices in no face, which may lie anywhere
    limits[edges.ravel()] = FAR_MM
    limits[skin] = FAR_SKIN_MM
    if (apart > limits).any():
        worst = int((apart / limits).argmax())
        raise MeshError(
            f"{where}: vertex {worst} lies {apart[worst]:,.0f} mm from its place in the other heads ({int((apart > limits).sum())} such vertices): "
            "a failed registration, or a mesh of another order of vertices; mend the file or leave it out"
        )
    own, usual = (np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1) for points in (vertices, placed))
    spikes = (own > SPIKE_MM) & (own > SPIKE_RATIO * usual)
    if spikes.any():
        worst = int(np.where(spikes, own, 0.0).argmax())
        a, b = edges[worst]
        raise MeshError(
            f"{where}: the edge from vertex {a} to {b} is {own[worst]:.0f} mm long, {usual[worst]:.1f} mm in the other heads ({int(spikes.sum())} such "
            "edges): a spike of a failed registration; mend the file or leave it out"
        )
    stretches = _stretches(placed[skin], vertices[skin])
    if stretches[0] > STRETCH * stretches[-1]:
        raise MeshError(
            f"{where}: the head is stretched or squashed beside the others, by factors of {stretches[0]:.2f} and {stretches[-1]:.2f} in two directions: "
            "an export with unequal scales; mend the file or leave it out"
        )
    turned = motion(matrix, typical[stable])
    if not posed and turned.turn_deg > TURN_DEG:
        raise MeshError(f"{where}: the head is turned by {turned.turn_deg:.0f} degrees against the others; turn it upright, {TO_ALIGN}")


def check_expression_pose(vertices: Floats, neutral: Floats, skin: Ints, landmarks68: Ints, where: str) -> Motion:
    """How an expression lies against its subject's neutral head, both [V, 3] in mm. Raises MeshError where the pose would be learnt as expression."""
    few = skin[::_SPARSE]
    matrix = expression_map(neutral[few], vertices[few], similarity=False)
    found = motion(matrix, neutral[landmarks68[list(STABLE_LANDMARKS)]])
    if found.turn_deg > POSED_DEG or found.shift_mm > POSED_MM:
        raise MeshError(
            f"{where}: the head is turned by {found.turn_deg:.0f} degrees and moved by {found.shift_mm:.0f} mm against its subject's neutral head, which would be "
            f"learnt as expression; take out its pose, {TO_ALIGN}"
        )
    return found


def _stretches(source: Floats, target: Floats) -> Floats:
    """The stretches, strongest first, of the affine map that takes points [n, 3] best onto others."""
    x, y = source - source.mean(axis=0), target - target.mean(axis=0)
    linear = np.linalg.lstsq(x, y, rcond=None)[0]
    return np.asarray(np.linalg.svd(linear, compute_uv=False))
