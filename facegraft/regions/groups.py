"""Geometry groups of a template: its skin, the surfaces behind lids and lips, and the loose pieces inside.

A topology that is not known by name is divided by connectivity: the largest piece is the skin, and every other piece
belongs to the eye or the mouth in which it lies.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facegraft.arrays import Ints
from facegraft.regions.regionmap import Group
from facegraft.surfaces.topology import boundary_loops, face_components, faces_within
from facegraft.vocabulary import CHIN, NECK, OPENING_LANDMARKS

ICT_GROUPS: dict[str, Group] = {
    # ICT-FaceKit's published vertex ranges (README of the model, MIT licence), each with the eye or the mouth that it lies behind.
    "face": Group(((0, 9409),), "surface"),
    "head_neck": Group(((9409, 11248),), "surface"),
    "mouth_socket": Group(((11248, 13294),), "socket", "mouth"),
    "eye_socket_left": Group(((13294, 13678),), "socket", "eye_left"),
    "eye_socket_right": Group(((13678, 14062),), "socket", "eye_right"),
    "gums_tongue": Group(((14062, 17039),), "inner", "mouth"),
    "teeth": Group(((17039, 21451),), "inner", "mouth"),
    "eyeball_left": Group(((21451, 23021),), "inner", "eye_left"),
    "eyeball_right": Group(((23021, 24591),), "inner", "eye_right"),
    "lacrimal_left": Group(((24591, 24795),), "inner", "eye_left"),
    "lacrimal_right": Group(((24795, 24999),), "inner", "eye_right"),
    "eye_blend_left": Group(((24999, 25023),), "inner", "eye_left"),
    "eye_blend_right": Group(((25023, 25047),), "inner", "eye_right"),
    "eye_occlusion_left": Group(((25047, 25199),), "inner", "eye_left"),
    "eye_occlusion_right": Group(((25199, 25351),), "inner", "eye_right"),
    "lashes_left": Group(((25351, 26035),), "inner", "eye_left"),
    "lashes_right": Group(((26035, 26719),), "inner", "eye_right"),
}

KNOWN_GROUPS: dict[tuple[str, int], dict[str, Group]] = {("ict", 26719): ICT_GROUPS}
"""Published groups by (topology name, vertex count)."""


def groups_by_connectivity(vertices: ArrayLike, faces: ArrayLike, landmarks: ArrayLike) -> dict[str, Group]:
    """Groups of a template [V, 3] with 68 landmarks: `skin` and, where there are any, `inside_<eye or mouth>` and `unused`."""
    v, f = np.asarray(vertices, dtype=np.float64), np.asarray(faces, dtype=np.int64)
    piece_of_face = face_components(f)
    sizes = np.bincount(piece_of_face)
    skin = int(sizes.argmax())
    members: dict[str, list[Ints]] = {"skin": [np.unique(f[piece_of_face == skin])]}
    centres = {part: v[np.asarray(landmarks)[list(marks)]].mean(axis=0) for part, marks in OPENING_LANDMARKS.items()}
    for piece in np.flatnonzero(np.arange(len(sizes)) != skin):
        inside = np.unique(f[piece_of_face == piece])
        middle = v[inside].mean(axis=0)
        part = min(centres, key=lambda name: float(np.linalg.norm(centres[name] - middle)))
        members.setdefault(f"inside_{part}", []).append(inside)
    groups = {}
    for name, pieces in members.items():
        part = name.removeprefix("inside_")
        groups[name] = Group(
            as_ranges(np.concatenate(pieces)),
            "surface" if name == "skin" else "inner",
            None if name == "skin" else part,
        )
    unused = np.setdiff1d(np.arange(len(v)), f)
    if len(unused):
        groups["unused"] = Group(as_ranges(unused), "inner")
    return groups


def as_ranges(indices: ArrayLike) -> tuple[tuple[int, int], ...]:
    """Half-open ranges that hold exactly the given indices."""
    index = np.unique(np.asarray(indices, dtype=np.int64))
    if not len(index):
        return ()
    breaks = np.flatnonzero(np.diff(index) > 1)
    starts = index[np.concatenate([[0], breaks + 1])]
    stops = index[np.concatenate([breaks, [len(index) - 1]])] + 1
    return tuple(zip(starts.tolist(), stops.tolist(), strict=True))


def group_mask(groups: dict[str, Group], vertex_count: int, *roles: str) -> NDArray[np.bool_]:
    """Vertices [V] of the groups with one of the roles."""
    mask = np.zeros(vertex_count, dtype=bool)
    for group in groups.values():
        if group.role in roles:
            mask[group.vertices] = True
    return mask


def find_openings(
    vertices: ArrayLike, faces: ArrayLike, surface: NDArray[np.bool_], landmarks: ArrayLike
) -> dict[str, Ints]:
    """Boundary loops of the surface faces by name: `neck`, `mouth`, `eye_left`, `eye_right`, others `opening_<n>`.

    `vertices` [V, 3] in mm, face frame. The neck is the longest loop below the chin; the others are named by the landmarks near them.
    """
    v, lm = np.asarray(vertices, dtype=np.float64), np.asarray(landmarks)
    f = np.asarray(faces, dtype=np.int64)
    centres = {part: v[lm[list(marks)]].mean(axis=0) for part, marks in OPENING_LANDMARKS.items()}
    named: dict[str, Ints] = {}
    for loop in boundary_loops(f[faces_within(f, surface)]):
        middle = v[loop].mean(axis=0)
        part = min(centres, key=lambda name: float(np.linalg.norm(centres[name] - middle)))
        if v[loop, 1].min() < v[lm[CHIN], 1] and NECK not in named:
            named[NECK] = loop
        elif np.linalg.norm(centres[part] - middle) < 25.0 and part not in named:
            named[part] = loop
        else:
            named[f"opening_{len(named) + 1}"] = loop
    return {name: named[name] for name in sorted(named)}
