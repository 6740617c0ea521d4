"""Build a region map: from one template mesh and 68 landmarks to parts with clean loops.

Outlines are smooth curves in a chart of the mirror-symmetric template, through points given by landmark ratios; loops
of mesh edges follow them at the least cost of distance, length and turning; the faces inside a loop are its disk. The
parts and their outlines are read from region sets (`regions.regionsets`). Everything is deterministic.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facegraft.arrays import Floats, Ints
from facegraft.geometry.chart import CylinderChart
from facegraft.geometry.cutpath import NoPath
from facegraft.geometry.symmetry import mirror_map
from facegraft.parts import PartsError, check_part_name
from facegraft.regions.ears import ear_places
from facegraft.regions.groups import KNOWN_GROUPS, find_openings, group_mask, groups_by_connectivity
from facegraft.regions.landmarks import MIRROR68, FaceFrame, check_indices, check_landmarks, guess_mm_per_unit
from facegraft.regions.meshfaults import mesh_faults
from facegraft.regions.neck import neck_crop
from facegraft.regions.outlines import DiskOutline, mirrored_outline, outline_of
from facegraft.regions.regionmap import Disk, Group, Region, RegionMap, RegionMapError, RegionSet
from facegraft.regions.regionsets import DiskSpec, PartSpec, RegionSetSpec, shipped_sets
from facegraft.regions.tracing import FaceSurface, enclosed_disk, keep_clear, masked_disks, nearest_skin, trace_loop
from facegraft.surfaces.mirror import MIRROR, symmetrised
from facegraft.surfaces.topology import faces_sha256, faces_within
from facegraft.vocabulary import FACE_LANDMARKS, NECK, NOSE_TIP, OPENING_LANDMARKS

log = logging.getLogger("facegraft")


def build_region_map(
    vertices: ArrayLike,
    faces: ArrayLike,
    landmarks68: ArrayLike,
    name: str,
    mm_per_unit: float | None = None,
    groups: dict[str, Group] | None = None,
    polygons_sha256: str | None = None,
    provenance: str = "",
    sets: Sequence[RegionSetSpec] | None = None,
    where: str | None = None,
) -> RegionMap:
    """The region map of a template: `vertices` [V, 3] (+y up, +z forward, +x the subject's left), `faces` [F, 3].

    `landmarks68`: vertex indices. `mm_per_unit` is guessed from the outer eye corners where not given. `groups` default to
    those published for the topology `name`, else they are found by connectivity. `polygons_sha256` is the hash of the
    published polygons, where `faces` triangulate them. `sets`: the region sets to trace, by default those that facegraft
    ships; an optional one that cannot be traced here is left out, with a warning. Vertices that no face uses may lie anywhere.
    `where` names the mesh in messages, by default `name`.
    Raises RegionMapError for a mesh that is no proper surface (`regions.meshfaults`), LandmarkError if the landmarks do not fit,
    RegionMapError or NoPath, naming the disk, if a disk cannot be traced.
    """
    where = where or name
    v, f = _checked_mesh(vertices, faces, where)
    lm = np.asarray(landmarks68, dtype=np.int64)
    check_indices(lm, len(v))
    faults = mesh_faults(v, f, lm)
    if faults:
        raise RegionMapError(f"{where}: {'; also '.join(faults)}")
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
    flat = chart.flatten(points)
    places = ear_places(face, surface, flat)
    regions: dict[str, RegionSet] = {}
    for spec in shipped_sets() if sets is None else sets:
        try:
            regions[spec.name] = _region_set(spec, _Tracer(face, flat, lm, places), groups)
        except (NoPath, RegionMapError) as error:
            if not spec.optional:
                raise type(error)(f"region set {spec.name}: {error}") from error
            log.warning("%s: region set %s is left out: %s", name, spec.name, error)
    openings = find_openings(shape, f, surface, lm)
    neck = neck_crop(face, points, openings.get(NECK), int(lm[NOSE_TIP]), surface)
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
    """Chart with its axis at the depth of the ears (landmarks 0 and 16) and its scale true at the face's median distance."""
    axis_z = float(points68[[0, 16], 2].mean())
    return CylinderChart(axis_z, float(np.median(np.hypot(points68[17:, 0], points68[17:, 2] - axis_z))))


def _checked_mesh(vertices: ArrayLike, faces: ArrayLike, name: str) -> tuple[Floats, Ints]:
    v, f = np.asarray(vertices, dtype=np.float64), np.asarray(faces, dtype=np.int64)
    if v.ndim != 2 or v.shape[1] != 3 or f.ndim != 2 or f.shape[1] != 3 or not len(f):
        raise RegionMapError(
            f"{name}: a template needs vertices [V, 3] and triangles [F, 3], got {v.shape} and {f.shape}"
        )
    if f.min() < 0 or f.max() >= len(v):
        wrong = int(f.min()) if f.min() < 0 else int(f.max())
        raise RegionMapError(f"{name}: a face names vertex {wrong}, but there are {len(v)} vertices")
    v = settled(v, f)
    if not np.isfinite(v).all():
        raise RegionMapError(f"{name}: vertex {int(np.flatnonzero(~np.isfinite(v).all(axis=1))[0])} is not finite")
    return v, f


def settled(vertices: Floats, faces: Ints) -> Floats:
    """The vertices [V, 3] with those that no face uses in the middle of the others, wherever an export left them."""
    loose = np.ones(len(vertices), dtype=bool)
    loose[faces] = False
    if not loose.any():
        return vertices
    placed = vertices.copy()
    placed[loose] = vertices[~loose].mean(axis=0)
    return placed


def _region_set(
    spec: RegionSetSpec, tracer: _Tracer, groups: dict[str, Group]
) -> RegionSet:
    """Trace one region set on the template; each loop keeps a distance from the disks traced before it."""
    regions: dict[str, Region] = {}
    for part in spec.parts:
        disks: dict[str, Disk] = {}
        for disk in part.disks:
            for name, found in tracer.disks_of(disk).items():
                carries = disk.carries if disk.mask is None else openings_within(found, tracer.landmarks)
                followers = tuple(n for n, g in groups.items() if g.role == "inner" and g.behind in carries)
                disks[name] = replace(found, followers=followers, residual_mm=disk.residual_mm)
        regions[part.name] = Region(_five_landmarks(part, tracer.face, disks, tracer.landmarks), part.holds, disks)
    return RegionSet(spec.name, regions)


class _Tracer:
    """Traces the disks of one set, one after the other."""

    def __init__(self, face: FaceSurface, flat: Floats, landmarks: Ints, places: Mapping[str, float]) -> None:
        self.face, self.flat, self.landmarks, self.places = face, flat, landmarks, places
        self.outlines: dict[str, DiskOutline] = {}
        self.traced: dict[str, Disk] = {}

    def disks_of(self, spec: DiskSpec) -> dict[str, Disk]:
        """The disks of a description by name: one, or one for each piece of a mask. Raises NoPath, RegionMapError."""
        if spec.mask is not None:
            found = self._masked(spec)
        elif spec.mirror_of is not None:
            found = {spec.name: self._mirrored(spec)}
        else:
            assert spec.outline is not None
            try:
                self.outlines[spec.name] = outline_of(spec.name, spec.outline, self.flat, self.places)
            except ValueError as error:
                raise RegionMapError(str(error)) from error
            found = {spec.name: self._along(self.outlines[spec.name])}
        for name in found:
            self._check_name(name, spec)
        self.traced |= found
        return found

    def _check_name(self, name: str, spec: DiskSpec) -> None:
        """A mask's pieces are named here, so that only here a name can come twice, or become too long."""
        try:
            check_part_name(name)
        except PartsError as error:
            raise RegionMapError(f"mask {spec.name}: of a piece of it, {error}") from error
        if name in self.traced:
            raise RegionMapError(f"mask {spec.name}: there is a disk {name!r} already, by another mask's pieces; rename one of the two")

    def _along(self, outline: DiskOutline) -> Disk:
        loop = trace_loop(self.face, outline, self._taken())
        return self._enclosed(loop, outline)

    def _mirrored(self, spec: DiskSpec) -> Disk:
        assert spec.mirror_of is not None
        outline = mirrored_outline(self.outlines[spec.mirror_of], spec.name)
        self.outlines[spec.name] = outline
        if self.face.mirror is None:
            return self._along(outline)
        return self._enclosed(self.face.mirror[self.traced[spec.mirror_of].loop], outline)

    def _enclosed(self, loop: Ints, outline: DiskOutline) -> Disk:
        seed = outline.seed
        vertex = int(self.landmarks[seed]) if isinstance(seed, int) else nearest_skin(self.face, seed)
        return enclosed_disk(self.face.faces, len(self.face.vertices), loop, vertex, outline.name)

    def _masked(self, spec: DiskSpec) -> dict[str, Disk]:
        """The mask without the area near earlier disks: masks may touch or overlap, but seams need a distance."""
        assert spec.mask is not None
        count = len(self.face.vertices)
        if spec.mask_length not in (None, count):
            raise RegionMapError(
                f"mask {spec.name}: says of {spec.mask_length} vertices whether they belong to it, but the mesh has {count}; "
                "the mask belongs to another topology"
            )
        beyond = spec.mask[(spec.mask < 0) | (spec.mask >= count)]
        if len(beyond):
            raise RegionMapError(
                f"mask {spec.name}: names vertex {beyond[0]}, but the mesh has {count}; the mask belongs to another topology"
            )
        left = spec.mask[~self._taken()[spec.mask]]
        if not len(left):
            raise RegionMapError(
                f"mask {spec.name}: lies inside the disks before it, or too near to them ({', '.join(self.traced)}), to which it gives "
                "way; leave it out, or name it before them"
            )
        disks = masked_disks(self.face, left, spec.name)
        if len(disks) == 1:
            return {spec.name: disks[0]}
        sides = [float(self.face.vertices[disk.interior, 0].mean()) for disk in disks]
        if len(disks) == 2 and sides[0] * sides[1] < 0:
            return {
                f"{spec.name}_{'left' if side > 0 else 'right'}": disk for side, disk in zip(sides, disks, strict=True)
            }
        return {f"{spec.name}_{number}": disk for number, disk in enumerate(disks, start=1)}

    def _taken(self) -> NDArray[np.bool_]:
        blocked = np.zeros(len(self.face.vertices), dtype=bool)
        for disk in self.traced.values():
            blocked |= keep_clear(self.face, disk)
        return blocked


def openings_within(disk: Disk, landmarks: Ints) -> tuple[str, ...]:
    """The eyes and the mouth inside a disk: those with most of their landmarks inside it."""
    inside = {name: np.isin(landmarks[list(marks)], disk.interior).mean() for name, marks in OPENING_LANDMARKS.items()}
    return tuple(name for name, share in inside.items() if share > 0.5)


def _five_landmarks(part: PartSpec, face: FaceSurface, disks: dict[str, Disk], landmarks: Ints) -> tuple[int, ...]:
    """The landmarks of the description; for a mask without any, the five landmarks nearest to it."""
    if part.landmarks is not None:
        return part.landmarks
    covered = face.vertices[np.concatenate([disk.interior for disk in disks.values()])]
    if not len(covered):
        return FACE_LANDMARKS
    points = face.vertices[landmarks]
    distance = np.array([np.linalg.norm(covered - point, axis=1).min() for point in points])
    return tuple(int(mark) for mark in np.sort(np.argsort(np.round(distance, 6), kind="stable")[:5]))
