"""Displacement by grafting and visibility of the seams, averaged over composites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Floats
from facegraft.geometry.quality import dihedral_angles, dihedral_excess, loop_edges
from facegraft.regions.regionmap import RegionMap, RegionSet
from facegraft.report.gather import Gathered


@dataclass(frozen=True)
class SeamMap:
    """Means over `count` composites: displacement [V] of the skin in mm against the recipient (0 for other vertices), its
    maximum outside the parts, and for each disk the loop [n] with the seam excess [n] in degrees of the edge from each vertex to the next."""

    count: int
    displacement: Floats
    largest_outside: float
    loops: Mapping[str, NDArray[np.int64]]
    excess: Mapping[str, Floats]


def seam_map(
    found: Gathered,
    region_map: RegionMap,
    regions: RegionSet,
    faces: NDArray[np.int64],
    rows: Sequence[Mapping[str, Any]],
) -> SeamMap | None:
    """Measure the composites of these index rows; None if the recipient and donors are missing for all of them."""
    dataset = found.dataset("composites")
    assert dataset is not None
    surface = region_map.mask_of("surface")
    skin_faces = region_map.skin_faces(faces)
    disks, columns, part_of = regions.disks, regions.parts.donor_columns, regions.part_of
    edges = {name: loop_edges(skin_faces, disk.loop) for name, disk in disks.items()}
    kept = surface.copy()
    for disk in disks.values():
        kept[disk.interior] = False
    total = np.zeros(region_map.vertex_count)
    excess = {name: np.zeros(len(disk.loop)) for name, disk in disks.items()}
    count, outside = 0, 0.0
    heads: dict[str, Floats | None] = {}

    def vertices_of(subject: str) -> Floats | None:
        if subject not in heads:
            head = found.neutral_head(subject)
            heads[subject] = None if head is None else head["vertices"]
        return heads[subject]

    for row in rows:
        host = vertices_of(row["recipient"])
        donors = {name: vertices_of(row[columns[part_of[name]]]) for name in disks}
        if host is None or any(donor is None for donor in donors.values()):
            continue
        composite = dataset.read(row["key"], "vertices").astype(np.float64)
        moved = np.linalg.norm(composite - host, axis=1)
        outside = max(outside, float(moved[kept].max()))
        total[surface] += moved[surface]
        for name, seam in edges.items():
            donor = donors[name]
            assert donor is not None
            angles = [dihedral_angles(vertices, skin_faces, seam) for vertices in (composite, donor, host)]
            excess[name] += dihedral_excess(*angles)
        count += 1
    if count == 0:
        return None
    loops = {name: disk.loop for name, disk in disks.items()}
    return SeamMap(count, total / count, outside, loops, {name: value / count for name, value in excess.items()})
