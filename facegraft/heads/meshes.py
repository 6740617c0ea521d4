"""Registered heads of any topology for which there is a region map.

Naming: `<subject>.obj|ply` is that subject's neutral head, `<subject>/<expression>.obj|ply` or
`<subject>/<n>_<expression>.obj|ply` one of its expressions. A subject takes part in grafting only if it has a neutral mesh
(see `folders.name_neutrals`). All meshes have the same vertices and faces in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from numpy.typing import NDArray

from facegraft.heads.errors import SourceError
from facegraft.heads.folders import Found, choose_heads, drawn, find_subject_meshes, find_template, mesh_loader
from facegraft.heads.options import FolderOptions
from facegraft.heads.source import HeadSource, Loader, SourcePlan
from facegraft.regions.regionmap import RegionMap, load_region_map
from facegraft.store.remote import Location


class MeshesSource(HeadSource):
    """A folder of meshes and a region map."""

    Options: ClassVar[type[FolderOptions]] = FolderOptions

    kind = "meshes"

    def __init__(self, path: Location | None, options: FolderOptions, seed: int) -> None:
        assert path is not None
        self.path, self.options, self.seed = path, options, seed

    def region_map(self) -> RegionMap:
        """The region map that the user named; raises SourceError, which says how to make one."""
        if self.options.region_map is None:
            raise SourceError(
                "kind meshes needs a region map: give --region-map FILE.json or the name of a shipped topology; "
                "`facegraft regions build` makes one from a mesh and its 68 landmarks"
            )
        return load_region_map(self.options.region_map)

    def find(self) -> list[Found]:
        """The meshes of the folder; raises SourceError where there are none."""
        return find_subject_meshes(self.path, self.kind)

    def plan(self) -> SourcePlan:
        """Find the meshes and check the topology; raises SourceError."""
        region_map = self.region_map()
        heads = choose_heads(self.find(), self.options, str(self.path), self.seed)
        names = [head.source for head in heads if head.source is not None]
        template = find_template(self.path, names, lambda mesh, where: region_map, self.options)
        return SourcePlan(
            region_map, template.faces, heads, {"polygons": template.polygons}, identity=drawn(heads, self.options)
        )

    def loader(self, shared: Mapping[str, NDArray[Any]], region_map: RegionMap) -> Loader:
        """See `folders.mesh_loader`."""
        return mesh_loader(self.path, region_map, shared["polygons"], self.options.mm_per_unit)
