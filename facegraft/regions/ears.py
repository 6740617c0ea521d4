"""The position of the ears. The 68 landmarks end in front of them, so it is measured on the template itself."""

from __future__ import annotations

import numpy as np
from scipy.sparse.csgraph import connected_components

from facegraft.arrays import Bools, Floats, Ints
from facegraft.regions.tracing import FaceSurface
from facegraft.surfaces.normals import face_areas, vertex_normals
from facegraft.surfaces.topology import faces_within, vertex_adjacency

FOLDED = 0.7  # skin is folded where its normal is more than 45 degrees off the direction away from the head's axis
BEHIND = 0.9  # radians behind landmark 16 in which an ear is searched
HEIGHTS = (0.6, 2.2)  # smallest and largest height of an ear, as a multiple of the distance from the eye to the base of the nose

JAW_AT_EAR, BROW, UPPER_LID, INNER_CANTHUS, NOSE_BASE, LOWER_LIP = 16, 24, 44, 42, 33, 57  # landmarks


def ear_folds(face: FaceSurface, skin: Bools, flat: Floats) -> Ints:
    """Vertices of the left ear's folds: the largest area of folded skin behind landmark 16, from the brow to the lower lip.

    `skin` [V] marks the outer skin, `flat` [68, 2] are the landmarks in the chart. Empty where no fold is as tall as an ear.
    """
    count = len(face.vertices)
    faces = face.faces[faces_within(face.faces, skin)]
    used = np.zeros(count, dtype=bool)
    used[faces] = True
    along = np.einsum("ij,ij->i", vertex_normals(face.vertices, faces), face.chart.outward(face.vertices))
    x, y = face.flat.T
    start, brow = flat[JAW_AT_EAR, 0], flat[BROW, 1]
    place = (x > start) & (x < start + BEHIND * face.chart.radius)
    place &= (y > flat[LOWER_LIP, 1]) & (y < brow + (brow - flat[UPPER_LID, 1]))
    folded = used & place & (along < FOLDED)
    adjacency = vertex_adjacency(faces, count)
    joined = np.flatnonzero(folded | ((adjacency @ folded) & place))  # folds that lie an edge apart are one ear's
    if not len(joined):
        return np.empty(0, dtype=np.int64)
    piece = np.full(count, -1)
    piece[joined] = connected_components(adjacency[joined][:, joined], directed=False)[1]
    corner_piece = np.where(piece[faces].min(axis=1) >= 0, piece[faces[:, 0]], -1)
    areas = face_areas(face.vertices, faces)
    area = np.bincount(corner_piece[corner_piece >= 0], areas[corner_piece >= 0], minlength=int(piece.max()) + 1)
    found = np.flatnonzero(folded & (piece == int(area.argmax())))
    height = float(np.ptp(y[found])) / float(flat[INNER_CANTHUS, 1] - flat[NOSE_BASE, 1])
    return found if HEIGHTS[0] < height < HEIGHTS[1] else np.empty(0, dtype=np.int64)


def ear_places(face: FaceSurface, skin: Bools, flat: Floats) -> dict[str, float]:
    """`ear_front`, `ear_back` (x in the chart), `ear_bottom`, `ear_top` (y) of the left ear; nothing where there is no ear."""
    folds = ear_folds(face, skin, flat)
    if not len(folds):
        return {}
    low, high = face.flat[folds].min(axis=0), face.flat[folds].max(axis=0)
    return {"ear_front": float(low[0]), "ear_back": float(high[0]), "ear_bottom": float(low[1]), "ear_top": float(high[1])}
