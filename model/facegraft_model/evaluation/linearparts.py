"""A linear model with a code for each part: PCA of the displacements between the stages of the template morph, no network.

The template morph of a neutral head puts the template's parts in place one after the other, and ends at the template. A head is the
template + the displacement of the remainder (last stage but one − template) + that of each part (its stage − the one with the
template's part in place) + that of its expression (as scanned − neutral). The modes of each are learnt on their own, so noses,
eyes and mouths of the training heads combine freely; code 0 of a part is the mean part.

The surfaces hold every vertex of the head, but the stages only at the stage points, about a third of the vertices. The rest
follows from two facts. A part's displacement is 0 outside the part, so there the remainder's is exactly the whole displacement. And
inside it, the remainder's is that of the template's part grafted onto the head: an affine map and a seam, smooth along the
surface. So it is interpolated from the stage points to the part's other vertices (radial basis functions of the place on the
template; held-out stage points of ICT heads come back within 0.05 mm on average, of a motion of 3.7 mm), and the part's displacement is
defined as the exact whole displacement − the remainder's: the sum is the registered head to the last digit. Grafting the template
anew would need the registered heads and the grafts, which a model does not see; interpolating the parts' displacements themselves
would lose the part's details between the stage points.

scipy is imported where a model is trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from facegraft.arrays import Floats, Ints
from facegraft.store import AnyPath
from facegraft.vocabulary import EXP, REM, SCAN, TRAIN
from facegraft_model.data.ids import DataError
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.linear import LinearModel
from facegraft_model.evaluation.trainingheads import ROUNDING, TrainingHeads, principal_modes

NEIGHBOURS = 20
"""Known vertices from which the remainder's displacement of an unknown one is interpolated."""
ON_VERTEX = 8 * ROUNDING
"""Stage points are vertices of the surface, stored twice in float32: they coincide within this, in units."""


def train_linear_parts(
    surfaces: AnyPath,
    split: str = TRAIN,
    modes: int = 300,
    expression: int = 100,
    origins: Sequence[str] = (SCAN,),
) -> LinearModel:
    """The linear model of a dataset of surfaces with the codes rem, each part in cascade order, and exp.

    modes, expression: largest number of modes of rem and of each part, and of the expression; there are fewer where the heads span less.
    Raises ModelError for counts that are too small, DataError when the items do not share faces, when there are fewer than two
    neutral heads, and when the surfaces hold no template morph of all their parts.
    """
    if modes < 1 or expression < 0:
        raise ModelError(f"modes ({modes}) must be at least 1 and expression ({expression}) at least 0")
    heads = TrainingHeads.read(surfaces, split, origins)
    displacements = part_displacements(heads)
    template = heads.neutral.mean(0)
    learnt = {
        name: principal_modes(moved - moved.mean(0), modes, len(moved) - 1) for name, moved in displacements.items()
    }
    learnt[EXP] = heads.expression_modes(expression)
    return LinearModel.of(heads, template, learnt)


def part_displacements(heads: TrainingHeads) -> dict[str, Floats]:
    """The displacement [n, 3 V] of rem and of each part, in units; their sum is neutral head − mean neutral head, exactly.

    Raises DataError when the surfaces hold no template morph of all their parts.
    """
    reader, count = heads.reader, len(heads.neutral)
    parts, labels = reader.store.parts, reader.parts
    stages = _stages(heads)
    place = _vertices_of(stages[0, 0], heads.neutral[0].reshape(-1, 3), str(heads.rows[0]["key"]))
    mean = heads.neutral.mean(0).reshape(-1, 3)
    whole = heads.neutral.reshape(count, -1, 3) - mean
    rem = whole.copy()
    inside = labels > 0
    if inside.any():
        # A part's stage points have their place in the template's part at the last stage but one; every other vertex is where it was.
        known = np.concatenate([place[inside[place]], np.flatnonzero(~inside)])
        moved = np.concatenate([stages[:, -2, inside[place]] - mean[place[inside[place]]], whole[:, ~inside]], axis=1)
        rem[:, inside] = _interpolated(mean[known], moved, mean[inside])
    result = {REM: rem.reshape(count, -1)}
    for name in parts:
        own = (labels == parts.label(name))[:, None]
        result[name] = np.where(own, whole - rem, 0.0).reshape(count, -1)
    return result


def _stages(heads: TrainingHeads) -> Floats:
    """The stage points [n, S, M, 3] of the neutral heads."""
    store = heads.reader.store
    expected = len(store.parts.stages)
    stages = np.stack([store.read(row["key"], "stage_points").astype(np.float64) for row in heads.rows])
    if stages.shape[1] != expected or not stages.shape[2]:
        raise DataError(
            f"{store.path} holds {stages.shape[1]} stages of {stages.shape[2]} points, not the {expected} of a template morph, from "
            "which linear-parts learns its parts; clean composites and heads together (facegraft clean COMPOSITES HEADS -o SURFACES)"
        )
    return stages


def _vertices_of(points: Floats, vertices: Floats, key: str) -> Ints:
    """The vertex [M] at each stage point. Raises DataError where there is none."""
    from scipy.spatial import cKDTree

    distance, place = cKDTree(vertices).query(points)
    if distance.max() > ON_VERTEX:
        raise DataError(
            f"item {key}: a stage point lies {distance.max():.2g} units from the nearest vertex, so it is none of them; linear-parts needs "
            "registered surfaces (facegraft clean --set mode=head)"
        )
    return np.asarray(place, dtype=np.int64)


def _interpolated(known: Floats, values: Floats, wanted: Floats) -> Floats:
    """Values [n, W, 3] at the points wanted [W, 3], from the values [n, K, 3] at the points known [K, 3].

    Linear radial basis functions of the nearest known points and a constant; a known point has its own value again.
    """
    from scipy.interpolate import RBFInterpolator

    columns = np.moveaxis(values, 0, 1).reshape(len(known), -1)
    neighbours = min(NEIGHBOURS, len(known))
    found = RBFInterpolator(known, columns, neighbors=neighbours, kernel="linear", degree=0)(wanted)
    return np.moveaxis(found.reshape(len(wanted), len(values), 3), 1, 0)
