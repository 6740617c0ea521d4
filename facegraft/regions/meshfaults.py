"""What is wrong with a template as a mesh: each fault in a line that names it and says what to do.

Tested before landmarks and outlines are, since a flipped face or an unwelded seam makes those fail in places that have nothing to do with it.
Only the largest piece counts, welded or not: it holds the skin. Eyeballs, teeth and lashes may be as their authors made them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from facegraft.arrays import Bools, Floats, Ints
from facegraft.surfaces.soundness import (
    Seams,
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
from facegraft.vocabulary import OPENING_LANDMARKS

SHUT = 0.25
"""Lips and lids that touch are a slit within the box of the mouth's or the eye's landmarks, widened by this share of its length on each side;
they are an opening and no seam."""
NAMED = 3
"""How many faces, edges or vertices a message names."""


def mesh_faults(vertices: ArrayLike, faces: ArrayLike, landmarks68: ArrayLike) -> list[str]:
    """A line for each fault of a mesh [V, 3], [F, 3] whose indices are in range, gravest first; empty for a sound one."""
    v, all_faces = np.asarray(vertices, dtype=np.float64), np.asarray(faces, dtype=np.int64)
    faults: list[str] = []
    number = np.arange(len(all_faces))

    def these(indices: Ints) -> str:
        corners = ", ".join(map(str, all_faces[indices[0]]))
        return f"{_count(indices, 'face', 'faces')} {_some(indices)} ({_count(indices, '', 'the first ')}on vertices {corners})"

    broken = repeated_corners(all_faces)
    if len(broken):
        faults.append(f"{these(broken)} {_count(broken, 'names', 'name')} a vertex twice: delete degenerate faces")
    number = np.delete(number, broken)
    double = number[doubled_faces(all_faces[number])]
    if len(double):
        faults.append(f"{these(double)} {_count(double, 'lies', 'lie')} on the same vertices as another: delete doubled faces")
    number = np.setdiff1d(number, double)
    if not len(number):
        return faults

    seams = open_seams(v, all_faces[number])
    number = number[main_piece(seams.place[all_faces[number]])]
    torn = np.isin(seams.edges, all_faces[number]).all(axis=1) & ~_shut(seams, v, np.asarray(landmarks68))
    seams = Seams(seams.edges[torn], seams.place, seams.slit[torn])
    if len(seams.edges):
        faults.append(
            f"the mesh is not welded: {seams.surplus:,} of its vertices {_plural(seams.surplus, 'lies', 'lie')} on the place of another along a "
            f"seam (vertices {_some(np.unique(seams.edges))}): merge them (merge by distance), and export without splitting vertices at "
            "the seams of textures or normals"
        )
    skin = (seams.place if len(seams.edges) else np.arange(len(v)))[all_faces[number]]  # as it would be, so that the rest is judged too

    crowded = crowded_edges(skin)
    if len(crowded) and len(seams.edges):  # merging would join what only touches: eyeballs and lids, or two lips
        return faults
    if len(crowded):
        pairs = ", ".join(f"{a}-{b}" for a, b in crowded[:NAMED])
        faults.append(
            f"more than two faces meet at {_plural(len(crowded), 'the edge', f'{len(crowded):,} edges, such as')} {pairs} (vertices): delete "
            "the faces that stand out of the surface (non-manifold edges)"
        )
    wound = winding(skin)
    if len(wound.one_sided):
        faults.append(f"{these(number[wound.one_sided])} belong to a surface with one side only (a Moebius strip): mend it where it is twisted")
        return faults
    if len(wound.against):
        against = wound.against
        skin[against] = skin[against][:, ::-1]
        if 4 * len(against) > len(skin) and looks_inward(v, skin):  # half a face: the fewer need not be the wrong ones
            skin = skin[:, ::-1]
            against = np.setdiff1d(np.arange(len(skin)), against)
        wrong = number[against]
        faults.append(
            f"{these(wrong)} {_count(wrong, 'is wound against its', 'are wound against their')} neighbours: flip "
            f"{_count(wrong, 'it', 'them')} (recalculate normals)"
        )
    if looks_inward(v, skin):
        faults.append("the faces look inwards: reverse all of them (flip normals); or the mesh was mirrored, then mirror it back")
    if faults:
        return faults
    divided = vertices_on_edges(v, skin)
    if len(divided):
        return [
            f"{_count(divided, 'vertex', 'vertices')} {_some(divided)} {_count(divided, 'lies', 'lie')} on the edge of a face that does not "
            "use it (T-junction), so that the mesh is open there: divide those faces too, or merge and triangulate again"
        ]
    pinched = pinched_vertices(skin)
    if len(pinched):
        faults.append(
            f"the mesh hangs by a corner at {_plural(len(pinched), 'vertex', 'vertices')} {_some(pinched)}, where its border passes more than "
            "once: delete the loose faces there"
        )
    return faults


def _shut(seams: Seams, vertices: Floats, landmarks: Ints) -> Bools:
    """Which seam edges [n] are of lips or lids that touch: slits near the landmarks of one mouth or eye."""
    shut = np.zeros(len(seams.edges), dtype=bool)
    ends = vertices[seams.edges]
    for marks in OPENING_LANDMARKS.values():
        corners = vertices[landmarks[list(marks)]]
        margin = SHUT * float(np.ptp(corners, axis=0).max())
        near = (ends >= corners.min(axis=0) - margin) & (ends <= corners.max(axis=0) + margin)
        shut |= seams.slit & near.all(axis=(1, 2))
    return shut


def _some(numbers: Ints) -> str:
    return ", ".join(map(str, numbers[:NAMED])) + (f" and {len(numbers) - NAMED:,} more" if len(numbers) > NAMED else "")


def _plural(count: int, one: str, many: str) -> str:
    return one if count == 1 else many


def _count(numbers: Ints, one: str, many: str) -> str:
    return _plural(len(numbers), one, many)
