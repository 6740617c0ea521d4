"""Heads fitted with FLAME (such as those of Headspace): a folder of meshes, MICA's folders, or one npz of registered vertices.

FLAME's 5,023 vertices are in metres. A folder follows the naming of kind `meshes`; MICA publishes its fits as
`registrations/<id>/<time>.obj` and `FLAME_parameters/<id>/<time>.npz` (Zielonka et al., ECCV 2022). With `ingest.flame_model`, the user's
own file of the model, heads are computed from those parameters: neutral, without pose. An npz holds an array [N, 5023, 3], and
optionally `subjects` [N] and `expressions` [N] (names). Its triangles come from its own `faces` or from the mesh that the
parameter `template` names, since the licence does not allow shipping the model.
Li et al., "Learning a model of facial shape and expression from 4D scans", SIGGRAPH Asia 2017.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Floats
from facegraft.heads.errors import SourceError
from facegraft.heads.flamemodel import read_betas, read_flame_model
from facegraft.heads.folders import (
    Found,
    choose_heads,
    drawn,
    find_subject_meshes,
    inner_name,
    list_folder,
    match_faces,
)
from facegraft.heads.meshes import MeshesSource
from facegraft.heads.names import split_number
from facegraft.heads.options import FlameOptions
from facegraft.heads.sanity import check_head
from facegraft.heads.source import Head, Loader, SourcePlan, subject_name
from facegraft.heads.vertex_arrays import VertexArrays, read_vertex_arrays
from facegraft.meshfiles.errors import MeshError
from facegraft.meshfiles.meshfile import read_mesh
from facegraft.meshfiles.precision import check_precision
from facegraft.meshfiles.rawmesh import RawMesh
from facegraft.regions.regionmap import RegionMap
from facegraft.store.fingerprint import hash_files
from facegraft.store.remote import Location, place, relative_name
from facegraft.vocabulary import NEUTRAL

log = logging.getLogger("facegraft")


REGISTRATIONS, PARAMETERS = "registrations", "FLAME_parameters"
"""MICA's folders of meshes and of coefficients."""
BY_PRODUCT = "model_fit"
"""Files whose names begin so were left by a fit."""


class FlameSource(MeshesSource):
    """A folder of FLAME meshes or parameters, or an npz file."""

    Options = FlameOptions

    kind = "flame"
    own_map = "flame"
    own_alignment = "rigid"  # MICA's registrations lie where the scanner saw them
    options: FlameOptions

    def find(self) -> list[Found]:
        """The meshes of the folder, or of MICA's `registrations` in it; raises SourceError where there are none."""
        within = self.path / REGISTRATIONS
        if not within.is_dir():
            self._explain_missing_meshes()
            return _without_by_products(super().find(), self.path)
        found = find_subject_meshes(within, self.kind)
        # Names are times, of which no part is a number or an expression.
        return _without_by_products(
            [replace(f, expression=PurePosixPath(f.source).stem, number=None, source=f"{REGISTRATIONS}/{f.source}") for f in found], within
        )

    def _explain_missing_meshes(self) -> None:
        """Raise SourceError where the folder is MICA's, but not the one with the registrations."""
        folders = [entry for entry in list_folder(self.path) if entry.is_dir()]
        if inner := [entry.name for entry in folders if (entry / REGISTRATIONS).is_dir()]:
            raise SourceError(f"{self.path}: holds datasets of MICA ({', '.join(inner)}); name one, such as {self.path / inner[0]}")
        if any(entry.name == PARAMETERS for entry in folders):
            raise SourceError(
                f"{self.path}: holds {PARAMETERS} but no {REGISTRATIONS}; unpack the registrations there too, or give your copy of the "
                "FLAME model with `--set ingest.flame_model=generic_model.pkl` to compute the heads"
            )

    def plan(self) -> SourcePlan:
        """Find the heads and check the topology; raises SourceError, or MeshError for a damaged npz, template or model."""
        if self.options.flame_model is not None:
            return self._plan_parameters(place(self.options.flame_model))
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
            for c in (_complaint(arrays.vertices[h.spec["row"]], region_map, scale, str(self.path), self.posed) for h in heads[:20])
            if c
        ]
        if len(complaints) == min(len(heads), 20):
            raise SourceError(complaints[0])
        return SourcePlan(region_map, faces, heads, identity=drawn(heads, self.options))

    def _plan_parameters(self, model_file: Location) -> SourcePlan:
        """One neutral head of each subject, from the first of its files in MICA's folder of parameters."""
        model, region_map = read_flame_model(model_file), self.region_map()
        faces = match_faces(
            RawMesh(model.template, np.column_stack([model.faces, np.full(len(model.faces), -1, np.int32)])), region_map, str(model_file)
        )
        root = self.path / PARAMETERS if (self.path / PARAMETERS).is_dir() else self.path
        found = []
        for folder in (entry for entry in list_folder(root) if entry.is_dir()):
            files = [entry for entry in list_folder(folder) if entry.suffix.lower() == ".npz"]
            found += [Found(folder.name, NEUTRAL, None, relative_name(file, self.path)) for file in files[:1]]
        if not found:
            raise SourceError(
                f"{root}: no parameters found; with flame_model, kind flame looks for {PARAMETERS}/<subject>/<name>.npz with `betas`"
            )
        heads = choose_heads(found, self.options, str(root), self.seed)
        used = hash_files(model_file.parent, [model_file.name])[model_file.name].sha256
        return SourcePlan(region_map, faces, heads, identity={"flame_model": used, **drawn(heads, self.options)})

    def loader(self, shared: Mapping[str, NDArray[Any]], region_map: RegionMap) -> Loader:
        """For a folder of meshes see `folders.mesh_loader`; for parameters and an npz, the loader computes or returns the head that the spec names."""
        scale = self.options.mm_per_unit or region_map.mm_per_unit
        if self.options.flame_model is not None:
            model_file = place(self.options.flame_model)
            model = lru_cache(maxsize=1)(lambda: read_flame_model(model_file))

            def computed(spec: Mapping[str, Any]) -> Floats:
                vertices = scale * model().neutral(read_betas(self.path / inner_name(spec)))
                check_head(vertices, region_map.landmarks68, scale, spec["file"], self.posed)
                return vertices

            return computed
        if self.path.is_dir():
            return super().loader(shared, region_map)

        @lru_cache(maxsize=1)
        def arrays() -> VertexArrays:
            return read_vertex_arrays(self.path, region_map.vertex_count)

        def load(spec: Mapping[str, Any]) -> Floats:
            rows = arrays().vertices
            vertices = np.asarray(rows[spec["row"]], dtype=np.float64)
            where = f"{self.path.name}, row {spec['row']}"
            if bad := _complaint(vertices, region_map, scale, where, self.posed):
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
        heads = choose_heads(found, self.options, str(self.path), self.seed)
        # The row of the array takes the place of the file name that the folder kinds use.
        return [Head(h.subject, h.expression, h.number, {"row": int(h.spec["file"])}, self.path.name) for h in heads]


def _without_by_products(found: list[Found], where: Location) -> list[Found]:
    kept = [f for f in found if not PurePosixPath(f.source).name.startswith(BY_PRODUCT)]
    if len(kept) < len(found):
        log.warning("%s: left out: %d meshes named %s*, which fits leave behind", where, len(found) - len(kept), BY_PRODUCT)
    if not kept:
        raise SourceError(f"{where}: all meshes are named {BY_PRODUCT}*, which fits leave behind; name the folder of the registered heads")
    return kept


def _complaint(vertices: NDArray[Any], region_map: RegionMap, scale: float, where: str, posed: bool) -> str | None:
    if not np.isfinite(vertices).all():
        return f"{where}: vertex {int(np.flatnonzero(~np.isfinite(vertices).all(axis=1))[0])} is not finite; leave out this head"
    try:
        check_head(np.asarray(vertices, dtype=np.float64) * scale, region_map.landmarks68, scale, where, posed)
        check_precision(vertices, scale, where)
    except MeshError as error:
        return str(error)
    return None
