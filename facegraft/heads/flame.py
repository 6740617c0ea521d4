"""Heads fitted with FLAME (such as those of Headspace): a folder of meshes, or one npz of registered vertices.

FLAME's 5,023 vertices are in metres. A folder follows the naming of kind `meshes`. An npz holds an array [N, 5023, 3], and
optionally `subjects` [N] and `expressions` [N] (names). Its triangles come from its own `faces` or from the mesh that the
parameter `template` names, since the licence does not allow shipping the model.
Li et al., "Learning a model of facial shape and expression from 4D scans", SIGGRAPH Asia 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Floats
from facegraft.heads.errors import SourceError
from facegraft.heads.folders import Found, choose_heads, match_faces
from facegraft.heads.meshes import MeshesSource
from facegraft.heads.names import split_number
from facegraft.heads.sanity import check_head
from facegraft.heads.source import Head, Loader, SourcePlan, subject_name
from facegraft.heads.vertex_arrays import VertexArrays, read_vertex_arrays
from facegraft.meshfiles.errors import MeshError
from facegraft.meshfiles.meshfile import read_mesh
from facegraft.meshfiles.rawmesh import RawMesh
from facegraft.regions.regionmap import RegionMap, load_region_map


class FlameSource(MeshesSource):
    """A folder of FLAME meshes, or an npz file."""

    kind = "flame"

    def region_map(self) -> RegionMap:
        """FLAME's region map, unless the user named another."""
        return load_region_map(self.options.region_map or "flame")

    def plan(self) -> SourcePlan:
        """Find the heads and check the topology; raises SourceError, or MeshError for a damaged npz or template."""
        if self.path.is_dir():
            return super().plan()
        if self.path.suffix.lower() != ".npz":
            raise SourceError(
                f"{self.path}: kind flame reads a folder of .obj and .ply meshes, or one .npz of vertices"
            )
        region_map = self.region_map()
        arrays = read_vertex_arrays(self.path, region_map.vertex_count)
        faces = self._faces(arrays, region_map)
        heads = self._heads(arrays)
        scale = self.options.mm_per_unit or region_map.mm_per_unit
        complaints = [
            c
            for c in (_complaint(arrays.vertices[h.spec["row"]], region_map, scale, str(self.path)) for h in heads[:20])
            if c
        ]
        if len(complaints) == min(len(heads), 20):
            raise SourceError(complaints[0])
        return SourcePlan(region_map, faces, heads)

    def loader(self, shared: Mapping[str, NDArray[Any]], region_map: RegionMap) -> Loader:
        """For a folder see `folders.mesh_loader`; for an npz, the loader returns the row of the array that the spec names."""
        if self.path.is_dir():
            return super().loader(shared, region_map)
        scale = self.options.mm_per_unit or region_map.mm_per_unit

        @lru_cache(maxsize=1)
        def arrays() -> VertexArrays:
            return read_vertex_arrays(self.path, region_map.vertex_count)

        def load(spec: Mapping[str, Any]) -> Floats:
            rows = arrays().vertices
            vertices = np.asarray(rows[spec["row"]], dtype=np.float64)
            where = f"{self.path.name}, row {spec['row']}"
            if bad := _complaint(vertices, region_map, scale, where):
                raise MeshError(bad)
            return vertices * scale

        return load

    def _faces(self, arrays: VertexArrays, region_map: RegionMap) -> NDArray[np.int32]:
        if self.options.template is not None:
            template = Path(self.options.template)
            return match_faces(read_mesh(template), region_map, str(template))
        if arrays.faces is None:
            raise SourceError(
                f"{self.path}: holds vertices but no `faces`; give the mesh of the FLAME template with "
                "`--set ingest.template=FLAME_TEMPLATE.ply`, or store its triangles [9976, 3] in the npz as `faces`"
            )
        polygons = np.full((len(arrays.faces), 4), -1, dtype=np.int32)
        polygons[:, :3] = arrays.faces
        return match_faces(
            RawMesh(np.asarray(arrays.vertices[0], dtype=np.float64), polygons), region_map, f"{self.path}: faces"
        )

    def _heads(self, arrays: VertexArrays) -> list[Head]:
        count = len(arrays.vertices)
        subjects = arrays.subjects or [subject_name(i + 1) for i in range(count)]
        expressions = arrays.expressions or ["neutral"] * count
        named = [split_number(name) for name in expressions]
        found = [
            Found(s, e, number, str(row)) for row, (s, (number, e)) in enumerate(zip(subjects, named, strict=True))
        ]
        heads = choose_heads(found, self.options, str(self.path))
        # The row of the array takes the place of the file name that the folder kinds use.
        return [Head(h.subject, h.expression, h.number, {"row": int(h.spec["file"])}, self.path.name) for h in heads]


def _complaint(vertices: NDArray[Any], region_map: RegionMap, scale: float, where: str) -> str | None:
    if not np.isfinite(vertices).all():
        return f"{where}: vertex {int(np.flatnonzero(~np.isfinite(vertices).all(axis=1))[0])} is not finite; leave out this head"
    try:
        check_head(np.asarray(vertices, dtype=np.float64) * scale, region_map.landmarks68, scale, where)
    except MeshError as error:
        return str(error)
    return None
