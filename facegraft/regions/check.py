"""Measure a region map: can it be used for grafting?

Loops must be simple edge loops on outer skin; disks must be in one piece, apart from each other, mirror symmetric and smooth;
parts must contain their landmarks. `check_region_map` measures this on a mesh of the topology and lists the failures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from facegraft.arrays import Floats, Ints
from facegraft.geometry.chart import outer_skin
from facegraft.geometry.cutpath import is_simple
from facegraft.geometry.outline import roughness
from facegraft.geometry.symmetry import preserved_edges
from facegraft.regions.build import face_chart, settled
from facegraft.regions.landmarks import MIRROR68, FaceFrame, LandmarkError, check_landmarks
from facegraft.regions.meshfaults import mesh_faults
from facegraft.regions.raggedness import loop_smoothing, roughness_limit
from facegraft.regions.regionmap import Disk, RegionMap, RegionSet
from facegraft.regions.sides import side_findings
from facegraft.surfaces.mirror import MIRROR, symmetrised
from facegraft.surfaces.topology import (
    boundary_loops,
    euler_characteristic,
    face_components,
    faces_within,
    grow_rings,
    unique_edges,
    vertex_adjacency,
)

MIN_GAP = 2  # edges between the loops of two disks of a set
MAX_MIRROR_DIFFERENCE = 2  # vertices
MAX_MIRROR_MM = 15.0  # median distance of a vertex from its partner's mirror image; a face's own asymmetry is a third of it
NOTCH_DEGREES = 60.0


@dataclass(frozen=True)
class DiskFigures:
    """Measurements of one disk, on the given mesh. Lengths in mm."""

    loop: int
    interior: int
    perimeter: float
    mean_edge: float
    roughness: float  # loops of fewer than `raggedness.SHORT_LOOP` vertices are smoothed by one vertex, others by two
    notches: int  # turns of the loop by more than NOTCH_DEGREES
    on_skin: float  # share of the loop's vertices on outer skin
    euler: int  # Euler characteristic with the template's own holes filled: 1 for a disk
    pieces: int
    mirror_difference: int | None  # vertices without their mirror image in the disk on the other side
    gap: int  # edges to the nearest other disk of the set
    gap_mm: float


def check_region_map(
    region_map: RegionMap, vertices: ArrayLike, faces: ArrayLike
) -> tuple[list[str], dict[str, dict[str, dict[str, object]]]]:
    """(findings, figures): a text for each failure (empty: none), and figures[set][disk] as in DiskFigures.

    `vertices` [V, 3] in the map's unit. Raises RegionMapError if the mesh is not of the map's topology.
    """
    v, f = np.asarray(vertices, dtype=np.float64), np.asarray(faces, dtype=np.int64)
    region_map.check_mesh(len(v), f, "the mesh to check")
    v = settled(v, f)
    faults = mesh_faults(v, f, region_map.landmarks68)
    if faults:  # nothing can be measured on such a mesh, and what would be found has its cause here
        return faults, {}
    in_mm = FaceFrame.of(v[region_map.landmarks68] * region_map.mm_per_unit).apply(v * region_map.mm_per_unit)
    findings = _check_landmarks(region_map, v) + _check_symmetry(region_map, f, in_mm) + _check_loops(region_map, f)
    shape = in_mm if region_map.symmetry is None else symmetrised(in_mm, region_map.symmetry)
    skin = f[faces_within(f, region_map.mask_of("surface", "socket"))]
    figures: dict[str, dict[str, dict[str, object]]] = {}
    for set_name, regions in region_map.regions.items():
        figures[set_name] = {}
        for name in regions.disks:
            measured = _measure(region_map, shape, skin, regions, name)
            figures[set_name][name] = asdict(measured)
            findings += [f"{set_name}.{name}: {what}" for what in _shortcomings(measured)]
        for a, b in combinations(regions.disks, 2):
            shared = np.intersect1d(_vertices(regions.disks[a]), _vertices(regions.disks[b]))
            if len(shared):
                findings.append(f"{set_name}: {a} and {b} share {len(shared)} vertices")
        findings += _check_held(region_map, regions) + _check_kept(region_map, regions)
        findings += side_findings(region_map, shape, regions, {name: disk_faces(skin, disk) for name, disk in regions.disks.items()})
    return findings, figures


def _vertices(disk: Disk) -> Ints:
    return np.concatenate([disk.loop, disk.interior])


def _check_held(region_map: RegionMap, regions: RegionSet) -> list[str]:
    """Findings for parts whose loops do not contain all of the landmarks that the part declares."""
    findings = []
    for part, region in regions.regions.items():
        inside = np.concatenate([disk.interior for disk in region.disks.values()])
        outside = [mark for mark in region.holds if region_map.landmarks68[mark] not in inside]
        if outside:
            findings.append(f"{regions.name}: part {part} does not hold its landmarks {', '.join(map(str, outside))}")
    return findings


def _check_kept(region_map: RegionMap, regions: RegionSet) -> list[str]:
    """Findings for disks that reach below the neck cut: those vertices are dropped when a head is cleaned."""
    if region_map.neck_crop_drop is None:
        return []
    lost = {name: int(np.isin(_vertices(disk), region_map.neck_crop_drop).sum()) for name, disk in regions.disks.items()}
    return [f"{regions.name}.{name}: {count} of its vertices lie below the neck cut" for name, count in lost.items() if count]


def disk_faces(faces: ArrayLike, disk: Disk) -> Ints:
    """The faces [n, 3] that a disk's loop encloses: those with an interior vertex, and those between loop vertices only."""
    f = np.asarray(faces, dtype=np.int64)
    size = int(f.max()) + 1
    inside = np.zeros(size, dtype=bool)
    inside[disk.interior] = True
    member = inside.copy()
    member[disk.loop] = True
    chosen = faces_within(f, member) & inside[f].any(axis=1)
    # A face on three loop vertices lies inside if one of its edges runs along the loop in the loop's direction.
    along = disk.loop * size + np.roll(disk.loop, -1)
    corner = f * size + np.roll(f, -1, axis=1)
    flat = faces_within(f, member) & ~inside[f].any(axis=1) & np.isin(corner, along).any(axis=1)
    return f[chosen | flat]


def _measure(region_map: RegionMap, shape: Floats, skin: Ints, regions: RegionSet, name: str) -> DiskFigures:
    disk = regions.disks[name]
    points = shape[disk.loop]
    step = np.roll(points, -1, axis=0) - points
    length = np.linalg.norm(step, axis=1)
    direction = step / np.maximum(length[:, None], 1e-12)
    turn = np.degrees(np.arccos(np.clip(np.einsum("ij,ij->i", direction, np.roll(direction, 1, axis=0)), -1.0, 1.0)))
    inside = disk_faces(skin, disk)
    holes = len(boundary_loops(inside)) - 1
    landmarks = shape[region_map.landmarks68]
    chart = face_chart(0.5 * (landmarks + landmarks[MIRROR68] * MIRROR))
    gap, gap_mm = _gap(region_map, shape, skin, regions.disks, name)
    return DiskFigures(
        loop=len(disk.loop),
        interior=len(disk.interior),
        perimeter=float(length.sum()),
        mean_edge=float(length.mean()),
        roughness=roughness(points, loop_smoothing(len(points))),
        notches=int((turn > NOTCH_DEGREES).sum()),
        on_skin=float(outer_skin(shape, skin, chart, disk.loop).mean()),
        euler=euler_characteristic(inside) + holes,
        pieces=len(np.unique(face_components(inside))),
        mirror_difference=_mirror_difference(region_map, regions.disks, name),
        gap=gap,
        gap_mm=gap_mm,
    )


def _mirror_difference(region_map: RegionMap, disks: Mapping[str, Disk], name: str) -> int | None:
    """Number of vertices whose mirror image is not in the disk on the other side (the disk with most of the images)."""
    if region_map.symmetry is None:
        return None
    image = region_map.symmetry[_vertices(disks[name])]
    return min(len(np.setdiff1d(image, _vertices(other))) for other in disks.values())


def _gap(
    region_map: RegionMap, shape: Floats, skin: Ints, disks: Mapping[str, Disk], name: str, most: int = 8
) -> tuple[int, float]:
    """(edges, mm) from a disk's loop to the nearest loop of another disk; edges counted up to `most`."""
    loops = [disk.loop for other, disk in disks.items() if other != name]
    if not loops:
        return most, math.inf
    others = np.concatenate(loops)
    rings = grow_rings(vertex_adjacency(skin, region_map.vertex_count), disks[name].loop, most)
    reached = [k for k, ring in enumerate(rings, start=1) if np.isin(others, ring).any()]
    distance = np.linalg.norm(shape[disks[name].loop][:, None] - shape[others][None], axis=2).min()
    return (reached[0] if reached else most), float(distance)


def _shortcomings(disk: DiskFigures) -> list[str]:
    limit = roughness_limit(disk.loop, disk.mean_edge)
    checks = [
        (disk.roughness <= limit, f"its loop is ragged (roughness {disk.roughness:.2f}, at most {limit})"),
        (disk.on_skin == 1.0, f"{1 - disk.on_skin:.0%} of its loop is not on outer skin"),
        (disk.euler == 1, f"it is not a disk (Euler characteristic {disk.euler})"),
        (disk.pieces == 1, f"it has {disk.pieces} pieces"),
        (disk.gap >= MIN_GAP, f"only {disk.gap} edges lie between it and another disk (at least {MIN_GAP})"),
    ]
    if disk.mirror_difference is not None:
        checks.append(
            (
                disk.mirror_difference <= MAX_MIRROR_DIFFERENCE,
                f"{disk.mirror_difference} of its vertices lack a mirror image",
            )
        )
    return [text for good, text in checks if not good]


def _check_landmarks(region_map: RegionMap, vertices: Floats) -> list[str]:
    surface = region_map.vertices_of("surface")
    try:
        check_landmarks(vertices, region_map.landmarks68, region_map.mm_per_unit, surface)
    except LandmarkError as error:
        return [str(error)]
    return []


def _check_symmetry(region_map: RegionMap, faces: Ints, in_mm: Floats) -> list[str]:
    mirror = region_map.symmetry
    if mirror is None:
        return []
    findings = []
    if not np.array_equal(mirror[mirror], np.arange(len(mirror))):
        findings.append("the symmetry map is not an involution")
    kept = preserved_edges(mirror, faces[faces_within(faces, region_map.mask_of("surface", "socket"))])
    if kept < 0.99:
        findings.append(f"the symmetry map preserves only {kept:.1%} of the skin's edges")
    apart = float(np.median(np.linalg.norm(in_mm * MIRROR - in_mm[mirror], axis=1)[np.unique(faces)]))
    if apart > MAX_MIRROR_MM:
        findings.append(f"the symmetry map pairs vertices that are {apart:.0f} mm (median) from being mirror images")
    return findings


def _check_loops(region_map: RegionMap, faces: Ints) -> list[str]:
    """Findings for loops (disks, openings, neck cut) that are not simple edge loops, and disks that do not match their loop."""
    findings = []
    edges = unique_edges(faces)
    known = edges[:, 0] * region_map.vertex_count + edges[:, 1]
    loops = {f"{s}.{n}": disk.loop for s, found in region_map.regions.items() for n, disk in found.disks.items()}
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
    skin = faces[faces_within(faces, region_map.mask_of("surface", "socket"))]
    for set_name, regions in region_map.regions.items():
        for name, disk in regions.disks.items():
            inside = disk_faces(skin, disk)
            bounds = boundary_loops(inside) if len(inside) else []
            start = int(disk.loop.min())
            same = any(
                len(found) == len(disk.loop)
                and np.array_equal(
                    np.roll(found, -int(np.argmin(found))),
                    np.roll(disk.loop, -int(np.flatnonzero(disk.loop == start)[0])),
                )
                for found in bounds
            )
            if not same or not np.array_equal(np.setdiff1d(np.unique(inside), disk.loop), np.sort(disk.interior)):
                findings.append(f"{set_name}.{name}: its interior is not what its loop encloses to the left")
    return findings
