"""Heads of FaceScape: a folder of `<id>/<n>_<expression>.obj`, registered to one of its two topologies.

The published TU models also have `<id>/models_reg/<n>_<expression>.obj`. The number of vertices identifies the topology.
Yang et al., "FaceScape: a Large-scale High Quality 3D Face Dataset", CVPR 2020. Unit: mm.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from facegraft.heads.errors import SourceError
from facegraft.heads.folders import Found, choose_heads, find_template, list_folder, mesh_files, mesh_loader
from facegraft.heads.names import split_number
from facegraft.heads.options import FolderOptions
from facegraft.heads.source import HeadSource, Loader, SourcePlan
from facegraft.heads.split import split_imface
from facegraft.meshfiles.errors import MeshError
from facegraft.meshfiles.rawmesh import RawMesh
from facegraft.regions.regionmap import RegionMap, load_region_map
from facegraft.resources import resource_folder
from facegraft.store.remote import Location, relative_name

log = logging.getLogger("facegraft")

TOPOLOGIES = {26278: ("facescape_v16", "v16"), 26317: ("facescape_v10", "v10")}
"""By vertex count: the name of the region map, and the key of the landmark set in FaceScape's `landmark_indices.npz`."""


class FacescapeSource(HeadSource):
    """A folder of FaceScape subjects."""

    Options = FolderOptions

    def __init__(self, path: Location | None, options: FolderOptions, seed: int) -> None:
        assert path is not None
        self.path, self.options = path, options

    def plan(self) -> SourcePlan:
        """Find the meshes and the topology; raises SourceError."""
        heads = choose_heads(self._find(), self.options, str(self.path))
        names = [head.source for head in heads if head.source is not None]
        template = find_template(self.path, names, self._region_map, self.options)
        return SourcePlan(template.region_map, template.faces, heads, {"polygons": template.polygons})

    def loader(self, shared: Mapping[str, NDArray[Any]], region_map: RegionMap) -> Loader:
        """See `folders.mesh_loader`."""
        return mesh_loader(self.path, region_map, shared["polygons"], self.options.mm_per_unit)

    def split(self, name: str, subjects: Sequence[str]) -> dict[str, str]:
        """`imface`: see `split_imface`."""
        return split_imface(subjects) if name == "imface" else super().split(name, subjects)

    def _find(self) -> list[Found]:
        found, empty, strange = list[Found](), list[str](), list[str]()
        for folder in (entry for entry in list_folder(self.path) if entry.is_dir()):
            inner = [folder, folder / "models_reg"] if (folder / "models_reg").is_dir() else [folder]
            files = [file for part in inner for file in mesh_files(part)]
            for file in files:
                number, expression = split_number(file.stem)
                name = relative_name(file, self.path)
                if number is None:
                    strange.append(name)
                else:
                    found.append(Found(folder.name, expression, number, name))
            if not files:
                empty.append(folder.name)
        if not found:
            raise SourceError(
                f"{self.path}: no FaceScape meshes found ({len(empty)} folders without any); kind facescape looks for "
                "<id>/<n>_<expression>.obj and <id>/models_reg/<n>_<expression>.obj, such as 1/1_neutral.obj"
            )
        for names, what in ((empty, "folders hold no mesh"), (strange, "meshes are not named <n>_<expression>")):
            if names:
                log.warning(
                    "%s: left out: %d %s (%s%s)", self.path, len(names), what, names[0], ", …" if len(names) > 1 else ""
                )
        return found

    def _region_map(self, mesh: RawMesh, where: str) -> RegionMap:
        if self.options.region_map is not None:
            return load_region_map(self.options.region_map)
        count = len(mesh.vertices)
        if count not in TOPOLOGIES:
            known = " or ".join(f"{n} ({name})" for n, (name, _) in TOPOLOGIES.items())
            raise MeshError(f"{where}: {count} vertices; FaceScape's registered meshes have {known}")
        name, key = TOPOLOGIES[count]
        if not (resource_folder("region_maps") / f"{name}.json").is_file():
            raise SourceError(
                f"{where}: topology {name} ({count} vertices) has no region map here; build it once with `facegraft regions "
                f"build {where} --landmarks landmark_indices.npz --key {key} --name {name} --mm-per-unit 1 -o {name}.json` "
                f"(landmark_indices.npz comes with FaceScape's toolkit) and ingest with `--region-map {name}.json`"
            )
        return load_region_map(name)
