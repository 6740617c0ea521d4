"""Building a region map: from one template mesh and 68 landmarks to parts with clean loops.

Outlines are drawn in a chart of the mirror-symmetric template as smooth curves through points given by landmark
ratios; loops of mesh edges follow them at the least cost of distance, length and turning; the faces that a loop
encloses are the part. Everything is deterministic.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facegraft.geometry.chart import CylinderChart
from facegraft.geometry.symmetry import mirror_map
from facegraft.geometry.topology import faces_sha256, faces_within
from facegraft.regions.groups import KNOWN_GROUPS, find_openings, group_mask, groups_by_connectivity
from facegraft.regions.landmarks import MIRROR68, FaceFrame, check_indices, check_landmarks, guess_mm_per_unit
from facegraft.regions.neck import neck_crop
from facegraft.regions.outlines import PartOutline, part_outlines
from facegraft.regions.parts import FaceSurface, enclosed_part, keep_clear, mirrored_outline, trace_loop
from facegraft.regions.regionmap import Group, Part, RegionMap, RegionMapError
from facegraft.surfaces.mirror import MIRROR, symmetrised

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def build_region_map(
    vertices: ArrayLike,
    faces: ArrayLike,
    landmarks68: ArrayLike,
    name: str,
    mm_per_unit: float | None = None,
    groups: dict[str, Group] | None = None,
    polygons_sha256: str | None = None,
    provenance: str = "",
) -> RegionMap:
    """The region map of a template: `vertices` [V, 3] (+y up, +z forward, +x the subject's left), `faces` [F, 3].

    `landmarks68`: vertex indices. `mm_per_unit` is guessed from the outer eye corners where not given. `groups` default to
    those published for the topology `name`, else those by connectivity. `polygons_sha256` names the polygons as published, where `faces` triangulate them.
    Raises LandmarkError (the landmarks do not fit), RegionMapError or NoPath (a part cannot be traced), naming the part.
    """
    v, f = _checked_mesh(vertices, faces, name)
    lm = np.asarray(landmarks68, dtype=np.int64)
    check_indices(lm, len(v))
    if mm_per_unit is None:
        mm_per_unit = guess_mm_per_unit(v, lm)
    if groups is None:
        groups = KNOWN_GROUPS.get((name, len(v))) or groups_by_connectivity(v, f, lm)
    surface = group_mask(groups, len(v), "surface")
    check_landmarks(v, lm, mm_per_unit, np.flatnonzero(surface))
    in_mm = FaceFrame.of(v[lm] * mm_per_unit).apply(v * mm_per_unit)
    mirror = mirror_map(in_mm, f)
    shape = in_mm if mirror is None else symmetrised(in_mm, mirror)
    points = 0.5 * (shape[lm] + shape[lm][MIRROR68] * MIRROR)

    chart = face_chart(points)
    skin_faces = f[faces_within(f, group_mask(groups, len(v), "surface", "socket"))]
    face = FaceSurface.build(shape, skin_faces, chart, mirror)
    regions = _region_sets(face, part_outlines(chart.flatten(points)), lm)
    openings = find_openings(shape, f, surface, lm)
    neck = neck_crop(face, points, openings.get("neck"), int(lm[30]), surface)
    return RegionMap(
        name=name,
        vertex_count=len(v),
        face_count=len(f),
        faces_sha256=faces_sha256(f),
        polygons_sha256=polygons_sha256,
        mm_per_unit=float(mm_per_unit),
        landmarks68=lm,
        symmetry=mirror,
        groups=groups,
        regions=regions,
        openings=openings,
        neck_crop_loop=None if neck is None else neck[0],
        neck_crop_drop=None if neck is None else neck[1],
        provenance=provenance,
    )


def face_chart(points68: Floats) -> CylinderChart:
    """The chart's axis at the depth of the ears (landmarks 0 and 16), its scale true at the face's median distance."""
    axis_z = float(points68[[0, 16], 2].mean())
    return CylinderChart(axis_z, float(np.median(np.hypot(points68[17:, 0], points68[17:, 2] - axis_z))))


def _checked_mesh(vertices: ArrayLike, faces: ArrayLike, name: str) -> tuple[Floats, Ints]:
    v, f = np.asarray(vertices, dtype=np.float64), np.asarray(faces, dtype=np.int64)
    if v.ndim != 2 or v.shape[1] != 3 or f.ndim != 2 or f.shape[1] != 3 or not len(f):
        raise RegionMapError(
            f"{name}: a template needs vertices [V, 3] and triangles [F, 3], got {v.shape} and {f.shape}"
        )
    if not np.isfinite(v).all():
        raise RegionMapError(f"{name}: vertex {int(np.flatnonzero(~np.isfinite(v).all(axis=1))[0])} is not finite")
    if f.min() < 0 or f.max() >= len(v):
        raise RegionMapError(f"{name}: a face names vertex {f.max()}, but there are {len(v)} vertices")
    return v, f


def _region_sets(face: FaceSurface, outlines: dict[str, PartOutline], landmarks: Ints) -> dict[str, dict[str, Part]]:
    """Both region sets; each loop keeps its distance from the parts traced before it."""
    count = len(face.vertices)

    def trace(outline: PartOutline, beside: list[Part]) -> Part:
        blocked = np.zeros(count, dtype=bool)
        for part in beside:
            blocked |= keep_clear(face, part)
        loop = trace_loop(face, outline, blocked)
        return enclosed_part(face.faces, count, loop, int(landmarks[outline.seed]), outline.name)

    nose = trace(outlines["nose"], [])
    mouth = trace(outlines["mouth"], [nose])
    eye_left = trace(outlines["eye_left"], [nose, mouth])
    right = mirrored_outline(outlines["eye_left"], "eye_right")
    if face.mirror is None:
        eye_right = trace(right, [nose, mouth, eye_left])
    else:
        eye_right = enclosed_part(face.faces, count, face.mirror[eye_left.loop], int(landmarks[right.seed]), right.name)
    goggles = trace(outlines["goggles"], [nose, mouth])
    return {
        "eyes": {"nose": nose, "mouth": mouth, "eye_left": eye_left, "eye_right": eye_right},
        "goggles": {"nose": nose, "mouth": mouth, "goggles": goggles},
    }
