"""Do the parts of a region map have two halves, and hold what belongs to them? Measured on the shape, not on a symmetry of the topology.

A part may be wrong although its loops are flawless: goggles around one eye, a mouth that ends at its middle.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.spatial import cKDTree

from facegraft.arrays import Bools, Floats, Ints
from facegraft.regions.landmarks import MIRROR68
from facegraft.regions.regionmap import Disk, RegionMap, RegionSet
from facegraft.surfaces.mirror import MIRROR
from facegraft.surfaces.normals import face_areas
from facegraft.vocabulary import OPENING_LANDMARKS

MAX_SIDES = 1.6
"""Largest accepted ratio of the areas left and right. Where no symmetry of the topology helps, whole parts come out at up to 1.4 (a forehead of
large triangles on a scan), goggles of half a face at 100 and more."""
NEAR_MM, NEAR_EDGES = 6.0, 1.5
"""A landmark this near to a disk (in mm, or in edges of its loop where that is more) counts as in it: loops run between landmarks."""
NEAR_CENTRES = 0.5
"""How far from the mirror image of a disk's middle the other disk's middle may lie, as a share of the root of its area."""


def side_findings(
    region_map: RegionMap, shape: Floats, regions: RegionSet, inside: Mapping[str, Ints]
) -> list[str]:
    """A text for each disk whose halves, or whose mirror disk, differ in size or in landmarks, and for openings that are held in part.

    `shape` [V, 3] in mm in the face frame; `inside`: the faces [n, 3] of each disk.
    """
    landmarks = shape[region_map.landmarks68]
    areas = {name: _areas(shape, faces) for name, faces in inside.items()}
    centres = {name: _centre(shape, faces) for name, faces in inside.items()}
    held = {name: _held(disk, region_map.landmarks68) for name, disk in regions.disks.items()}
    reach = {name: _within_reach(shape, disk, landmarks) for name, disk in regions.disks.items()}
    findings = []
    for name, disk in regions.disks.items():
        if not len(inside[name]):
            continue
        left, right = areas[name]
        mirrored = centres[name] * MIRROR
        other = min(centres, key=lambda found: float(np.linalg.norm(centres[found] - mirrored)))
        limit = NEAR_CENTRES * np.sqrt(left + right)
        alone = np.linalg.norm(centres[other] - mirrored) > limit
        if alone or other == name:
            other = name
            if max(left, right) > MAX_SIDES * min(left, right):
                findings.append(
                    f"{regions.name}.{name}: {left:.0f} mm² of it lie on the left side of the face and {right:.0f} mm² on the right, and no "
                    "disk is its mirror image; is it half a part?"
                )
        elif name > other and not 1 / MAX_SIDES < sum(areas[name]) / sum(areas[other]) < MAX_SIDES:
            findings.append(
                f"{regions.name}: {other} has {sum(areas[other]):.0f} mm², but {name} on the other side {sum(areas[name]):.0f} mm²"
            )
        lost = [int(MIRROR68[mark]) for mark in held[name] if not reach[other][MIRROR68[mark]] and MIRROR68[mark] not in held[other]]
        if lost:
            findings.append(
                f"{regions.name}.{name}: holds landmarks whose mirror images {', '.join(map(str, sorted(lost)))} "
                f"{'it' if other == name else other} does not hold"
            )
        for opening, marks in OPENING_LANDMARKS.items():
            carried = any(region_map.groups[group].behind == opening for group in disk.followers)
            missing = [mark for mark in marks if mark not in held[name] and not reach[name][mark]]
            if missing and (carried or 2 * len(missing) < len(marks)):
                findings.append(
                    f"{regions.name}.{name}: {'carries' if carried else 'holds most of'} {opening}, but not its landmarks "
                    f"{', '.join(map(str, missing))}"
                )
    return findings


def _areas(shape: Floats, faces: Ints) -> tuple[float, float]:
    """Area left and right of the middle in mm²; a face across it is divided by how far its corners reach to either side."""
    x = shape[faces][:, :, 0]
    reach = np.abs(x).sum(axis=1)
    left = np.divide(np.maximum(x, 0.0).sum(axis=1), reach, out=np.full(len(faces), 0.5), where=reach > 0)
    area = face_areas(shape, faces)
    return float(area @ left), float(area @ (1.0 - left))


def _centre(shape: Floats, faces: Ints) -> Floats:
    area = face_areas(shape, faces)
    return np.asarray(area @ shape[faces].mean(axis=1) / max(float(area.sum()), 1e-12)) if len(faces) else np.full(3, np.inf)


def _held(disk: Disk, landmarks68: Ints) -> set[int]:
    return set(np.flatnonzero(np.isin(landmarks68, disk.interior)).tolist())


def _within_reach(shape: Floats, disk: Disk, landmarks: Floats) -> Bools:
    """Which landmarks [68] lie on a disk or near it."""
    ring = shape[disk.loop]
    near = max(NEAR_MM, NEAR_EDGES * float(np.linalg.norm(np.roll(ring, -1, axis=0) - ring, axis=1).mean()))
    members = np.concatenate([disk.loop, disk.interior])
    return np.asarray(cKDTree(shape[members]).query(landmarks)[0] <= near)
