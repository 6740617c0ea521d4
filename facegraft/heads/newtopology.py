"""A topology without a region map: one is built of its first sound mesh and 68 landmarks, as `facegraft regions build` does."""

from __future__ import annotations

import logging

import numpy as np

from facegraft.heads.errors import SourceError
from facegraft.meshfiles.rawmesh import RawMesh
from facegraft.regions.build import build_region_map
from facegraft.regions.check import check_region_map
from facegraft.regions.landmarks import read_landmarks
from facegraft.regions.regionmap import RegionMap
from facegraft.surfaces.triangulate import triangulate

log = logging.getLogger("facegraft")


def build_for(
    mesh: RawMesh, where: str, landmarks: str, key: str | None = None, name: str | None = None, mm_per_unit: float | None = None
) -> RegionMap:
    """The region map of a mesh, by the landmark file that the user named (`key`: its array); says what was built and where to look.

    name: of the topology; default: by its number of vertices. Raises LandmarkError or RegionMapError for landmarks that do not fit,
    SourceError where the map is not sound.
    """
    faces = mesh.polygons[:, :3] if mesh.is_triangles else triangulate(mesh.polygons, mesh.vertices)
    indices = read_landmarks(landmarks, key=key, faces=faces, option="`--set ingest.landmarks_key=NAME`")
    name = name or f"mesh_{len(mesh.vertices)}"
    region_map = build_region_map(
        mesh.vertices,
        faces.astype(np.int64),
        indices,
        name,
        mm_per_unit=mm_per_unit,
        polygons_sha256=None if mesh.is_triangles else mesh.polygons_sha256,
        where=where,
    )
    findings, _ = check_region_map(region_map, mesh.vertices, faces)
    if findings:
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        raise SourceError(
            f"{where}: the region map built with {landmarks} is not sound: {findings[0]}{more}; see all with "
            f"`facegraft regions build {where} --landmarks {landmarks}{f' --key {key}' if key else ''} --name {name} -o {name}.json`, and give a sound one with --region-map"
        )
    log.warning(
        "built the region map %s (%d vertices) of %s and %s; it is sound, and the dataset keeps it as region_map.json: look at it with "
        "`facegraft regions show HEADS/region_map.json %s -o regions.png`; for another dataset of this topology give `--region-map HEADS`",
        name, region_map.vertex_count, where, landmarks, where,
    )  # fmt: skip
    return region_map
