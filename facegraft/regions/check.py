"""Measuring a region map: is it fit to graft with?

Loops must be simple edge loops on outer skin; parts disks in one piece, apart from each other, mirror symmetric and
smooth. `check_region_map` measures all of it on a mesh of the topology and lists what falls short.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facegraft.geometry.chart import outer_skin
from facegraft.geometry.cutpath import is_simple
from facegraft.geometry.outline import roughness
from facegraft.geometry.symmetry import preserved_edges
from facegraft.geometry.topology import (
    boundary_loops,
    euler_characteristic,
    face_components,
    faces_within,
    grow_rings,
    unique_edges,
    vertex_adjacency,
)
from facegraft.regions.build import face_chart
from facegraft.regions.groups import group_mask
from facegraft.regions.landmarks import MIRROR68, FaceFrame, LandmarkError, check_landmarks
from facegraft.regions.regionmap import Part, RegionMap
from facegraft.surfaces.mirror import MIRROR, symmetrised

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MAX_ROUGHNESS = 1.2
MAX_ROUGHNESS_COARSE = 1.3
COARSE_MM = 4.0  # mean loop edge beyond which a mesh counts as coarse
MIN_GAP = 2  # edges between the loops of two parts
MAX_MIRROR_DIFFERENCE = 2  # vertices
NOTCH_DEGREES = 60.0


@dataclass(frozen=True)
class PartFigures:
    """What was measured of one part. Lengths in mm, on the mesh that was given."""

    loop: int
    interior: int
    perimeter: float
    mean_edge: float
    roughness: float
    notches: int  # turns of the loop by more than NOTCH_DEGREES
    on_skin: float  # share of the loop's vertices on outer skin
    euler: int  # Euler characteristic with the template's own holes filled: 1 for a disk
    pieces: int
    mirror_difference: int | None  # vertices without their mirror image in the part on the other side
    gap: int  # edges to the nearest other part of the set
    gap_mm: float


def check_region_map(
    region_map: RegionMap, vertices: ArrayLike, faces: ArrayLike
) -> tuple[list[str], dict[str, dict[str, dict[str, object]]]]:
    """(findings, figures): what falls short, in words (empty: nothing), and figures[set][part] as in PartFigures.

    `vertices` [V, 3] in the map's unit. Raises RegionMapError if the mesh is not of the map's topology.
    """
    v, f = np.asarray(vertices, dtype=np.float64), np.asarray(faces, dtype=np.int64)
    region_map.check_mesh(len(v), f, "the mesh to check")
    findings = _check_landmarks(region_map, v) + _check_symmetry(region_map, f) + _check_loops(region_map, f)
    in_mm = FaceFrame.of(v[region_map.landmarks68] * region_map.mm_per_unit).apply(v * region_map.mm_per_unit)
    shape = in_mm if region_map.symmetry is None else symmetrised(in_mm, region_map.symmetry)
    skin = f[faces_within(f, group_mask(dict(region_map.groups), len(v), "surface", "socket"))]
    figures: dict[str, dict[str, dict[str, object]]] = {}
    for set_name, parts in region_map.regions.items():
        figures[set_name] = {}
        for name in parts:
            measured = _measure(region_map, shape, skin, parts, name)
            figures[set_name][name] = asdict(measured)
            findings += [f"{set_name}.{name}: {what}" for what in _shortcomings(measured)]
        for a, b in combinations(parts, 2):
            shared = np.intersect1d(_vertices(parts[a]), _vertices(parts[b]))
            if len(shared):
                findings.append(f"{set_name}: {a} and {b} share {len(shared)} vertices")
    return findings, figures


def _vertices(part: Part) -> Ints:
    return np.concatenate([part.loop, part.interior])


def part_faces(faces: ArrayLike, part: Part) -> Ints:
    """The faces [n, 3] that a part's loop encloses: those with an interior vertex, and those between loop vertices only."""
    f = np.asarray(faces, dtype=np.int64)
    size = int(f.max()) + 1
    inside = np.zeros(size, dtype=bool)
    inside[part.interior] = True
    member = inside.copy()
    member[part.loop] = True
    chosen = faces_within(f, member) & inside[f].any(axis=1)
    # A face on three loop vertices lies inside if one of its edges runs along the loop in the loop's direction.
    along = part.loop * size + np.roll(part.loop, -1)
    corner = f * size + np.roll(f, -1, axis=1)
    flat = faces_within(f, member) & ~inside[f].any(axis=1) & np.isin(corner, along).any(axis=1)
    return f[chosen | flat]


def _measure(region_map: RegionMap, shape: Floats, skin: Ints, parts: object, name: str) -> PartFigures:
    assert isinstance(parts, dict)
    part: Part = parts[name]
    points = shape[part.loop]
    step = np.roll(points, -1, axis=0) - points
    length = np.linalg.norm(step, axis=1)
    direction = step / np.maximum(length[:, None], 1e-12)
    turn = np.degrees(np.arccos(np.clip(np.einsum("ij,ij->i", direction, np.roll(direction, 1, axis=0)), -1.0, 1.0)))
    inside = part_faces(skin, part)
    holes = len(boundary_loops(inside)) - 1
    landmarks = shape[region_map.landmarks68]
    chart = face_chart(0.5 * (landmarks + landmarks[MIRROR68] * MIRROR))
    gap, gap_mm = _gap(region_map, shape, skin, parts, name)
    return PartFigures(
        loop=len(part.loop),
        interior=len(part.interior),
        perimeter=float(length.sum()),
        mean_edge=float(length.mean()),
        roughness=roughness(points),
        notches=int((turn > NOTCH_DEGREES).sum()),
        on_skin=float(outer_skin(shape, skin, chart, part.loop).mean()),
        euler=euler_characteristic(inside) + holes,
        pieces=len(np.unique(face_components(inside))),
        mirror_difference=_mirror_difference(region_map, parts, name),
        gap=gap,
        gap_mm=gap_mm,
    )


def _mirror_difference(region_map: RegionMap, parts: dict[str, Part], name: str) -> int | None:
    if region_map.symmetry is None:
        return None
    other = {"eye_left": "eye_right", "eye_right": "eye_left"}.get(name, name)
    return len(np.setdiff1d(region_map.symmetry[_vertices(parts[name])], _vertices(parts[other])))


def _gap(
    region_map: RegionMap, shape: Floats, skin: Ints, parts: dict[str, Part], name: str, most: int = 8
) -> tuple[int, float]:
    """(edges, mm) from a part's loop to the nearest loop of another part; edges counted up to `most`."""
    others = np.concatenate([part.loop for other, part in parts.items() if other != name])
    rings = grow_rings(vertex_adjacency(skin, region_map.vertex_count), parts[name].loop, most)
    reached = [k for k, ring in enumerate(rings, start=1) if np.isin(others, ring).any()]
    distance = np.linalg.norm(shape[parts[name].loop][:, None] - shape[others][None], axis=2).min()
    return (reached[0] if reached else most), float(distance)


def _shortcomings(part: PartFigures) -> list[str]:
    limit = MAX_ROUGHNESS_COARSE if part.mean_edge > COARSE_MM else MAX_ROUGHNESS
    checks = [
        (part.roughness <= limit, f"its loop is ragged (roughness {part.roughness:.2f}, at most {limit})"),
        (part.on_skin == 1.0, f"{1 - part.on_skin:.0%} of its loop is not on outer skin"),
        (part.euler == 1, f"it is not a disk (Euler characteristic {part.euler})"),
        (part.pieces == 1, f"it has {part.pieces} pieces"),
        (part.gap >= MIN_GAP, f"only {part.gap} edges lie between it and another part (at least {MIN_GAP})"),
    ]
    if part.mirror_difference is not None:
        checks.append(
            (
                part.mirror_difference <= MAX_MIRROR_DIFFERENCE,
                f"{part.mirror_difference} of its vertices lack a mirror image",
            )
        )
    return [text for good, text in checks if not good]


def _check_landmarks(region_map: RegionMap, vertices: Floats) -> list[str]:
    surface = np.flatnonzero(group_mask(dict(region_map.groups), len(vertices), "surface"))
    try:
        check_landmarks(vertices, region_map.landmarks68, region_map.mm_per_unit, surface)
    except LandmarkError as error:
        return [str(error)]
    return []


def _check_symmetry(region_map: RegionMap, faces: Ints) -> list[str]:
    mirror = region_map.symmetry
    if mirror is None:
        return []
    findings = []
    if not np.array_equal(mirror[mirror], np.arange(len(mirror))):
        findings.append("the symmetry map is not an involution")
    kept = preserved_edges(
        mirror, faces[faces_within(faces, group_mask(dict(region_map.groups), len(mirror), "surface", "socket"))]
    )
    if kept < 0.99:
        findings.append(f"the symmetry map preserves only {kept:.1%} of the skin's edges")
    return findings


def _check_loops(region_map: RegionMap, faces: Ints) -> list[str]:
    """Every loop (parts, openings, neck cut) must be simple and run along edges; every part must match its loop."""
    findings = []
    edges = unique_edges(faces)
    known = edges[:, 0] * region_map.vertex_count + edges[:, 1]
    loops = {f"{s}.{n}": part.loop for s, parts in region_map.regions.items() for n, part in parts.items()}
    loops |= {f"openings.{name}": loop for name, loop in region_map.openings.items()}
    if region_map.neck_crop_loop is not None:
        loops["neck_crop"] = region_map.neck_crop_loop
    for name, loop in loops.items():
        pair = np.sort(np.column_stack([loop, np.roll(loop, -1)]), axis=1)
        missing = int((~np.isin(pair[:, 0] * region_map.vertex_count + pair[:, 1], known)).sum())
        if missing:
            findings.append(f"{name}: {missing} steps of its loop are not edges of the mesh")
        if not is_simple(loop):
            findings.append(f"{name}: its loop passes twice through a vertex")
    skin = faces[faces_within(faces, group_mask(dict(region_map.groups), region_map.vertex_count, "surface", "socket"))]
    for set_name, parts in region_map.regions.items():
        for name, part in parts.items():
            inside = part_faces(skin, part)
            bounds = boundary_loops(inside) if len(inside) else []
            start = int(part.loop.min())
            same = any(
                len(found) == len(part.loop)
                and np.array_equal(
                    np.roll(found, -int(np.argmin(found))),
                    np.roll(part.loop, -int(np.flatnonzero(part.loop == start)[0])),
                )
                for found in bounds
            )
            if not same or not np.array_equal(np.setdiff1d(np.unique(inside), part.loop), np.sort(part.interior)):
                findings.append(f"{set_name}.{name}: its interior is not what its loop encloses to the left")
    return findings
