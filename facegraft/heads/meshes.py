"""Registered heads of any topology for which there is a region map.

Naming: `<subject>.obj|ply` is that subject's neutral head, `<subject>/<expression>.obj|ply` or
`<subject>/<n>_<expression>.obj|ply` one of its expressions. A subject takes part in grafting only if it has a neutral mesh
(see `folders.name_neutrals`). All meshes have the same vertices and faces in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from numpy.typing import NDArray

from facegraft.heads.alignment import Alignment
from facegraft.heads.errors import SourceError
from facegraft.heads.folders import Found, choose_heads, drawn, find_subject_meshes, find_template, mesh_loader, usable
from facegraft.heads.newtopology import build_for
from facegraft.heads.options import FolderOptions
from facegraft.heads.source import HeadSource, Loader, SourcePlan
from facegraft.meshfiles.rawmesh import RawMesh
from facegraft.regions.regionmap import RegionMap, load_region_map
from facegraft.store.remote import Location


class MeshesSource(HeadSource):
    """A folder of meshes and a region map."""

    Options: ClassVar[type[FolderOptions]] = FolderOptions

    kind: ClassVar[str] = "meshes"
    own_map: ClassVar[str | None] = None
    """The shipped region map of the kind's topology."""
    own_alignment: ClassVar[Alignment] = "none"

    def __init__(self, path: Location | None, options: FolderOptions, seed: int) -> None:
        assert path is not None
        self.path, self.options, self.seed = path, options, seed
        self.alignment = options.align or self.own_alignment

    def region_map_of(self, mesh: RawMesh, where: str) -> RegionMap:
        """The region map that the user named, or one built of this mesh with the landmarks that the user named."""
        if self.options.landmarks is not None:
            return build_for(mesh, where, self.options.landmarks, self.options.landmarks_key, mm_per_unit=self.options.mm_per_unit)
        return self.region_map()

    def region_map(self) -> RegionMap:
        """The region map that the user named, or the kind's own; raises SourceError, which says how to make one."""
        name = self.options.region_map or self.own_map
        if name is None:
            raise SourceError(
                f"kind {self.kind} needs a region map: give --region-map FILE.json or the name of a shipped topology, or --landmarks FILE "
                "with 68 vertex indices to build one"
            )
        return load_region_map(name)

    def find(self) -> list[Found]:
        """The meshes of the folder; raises SourceError where there are none."""
        return find_subject_meshes(self.path, self.kind)

    def plan(self) -> SourcePlan:
        """Find the meshes and check the topology; raises SourceError."""
        if self.options.landmarks is None:
            self.region_map()  # before the folder is read
        heads = choose_heads(self.find(), self.options, str(self.path), self.seed)
        template = find_template(self.path, usable(heads), self.region_map_of, self.options, self.posed)
        return SourcePlan(
            template.region_map, template.faces, heads, {"polygons": template.polygons}, identity=drawn(heads, self.options)
        )

    def loader(self, shared: Mapping[str, NDArray[Any]], region_map: RegionMap) -> Loader:
        """See `folders.mesh_loader`."""
        return mesh_loader(self.path, region_map, shared["polygons"], self.options.mm_per_unit, self.posed)
