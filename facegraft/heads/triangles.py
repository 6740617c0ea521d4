"""Vertices and triangles of one mesh file, in file order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facegraft.heads.meshfile import read_mesh
from facegraft.heads.triangulate import triangulate
from facegraft.regions.regionmap import RegionMap


def read_triangles(path: Path, region_map: RegionMap | None = None) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices [V, 3] in the file's unit and triangles [F, 3]; raises MeshError for a file that is no mesh.

    Quads are split by their shorter diagonal, mirror images alike where a region map gives the symmetry.
    """
    mesh = read_mesh(path)
    if mesh.is_triangles:
        return mesh.vertices, mesh.polygons[:, :3].astype(np.int64)
    symmetry = region_map.symmetry if region_map is not None and region_map.vertex_count == len(mesh.vertices) else None
    return mesh.vertices, triangulate(mesh.polygons, mesh.vertices, symmetry).astype(np.int64)
