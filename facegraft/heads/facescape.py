"""Heads of FaceScape: a folder of `<id>/<n>_<expression>.obj`, registered to one of its two topologies.

The published TU models also have `<id>/models_reg/<n>_<expression>.obj`, in archives of a hundred subjects; the folder may hold one
unpacked archive or several (`facescape_trainset_001_100/<id>/…`). The number of vertices identifies the topology.
Yang et al., "FaceScape: a Large-scale High Quality 3D Face Dataset", CVPR 2020. Unit: mm.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from numpy.typing import NDArray

from facegraft.heads.errors import SourceError
from facegraft.heads.folders import (
    Found,
    choose_heads,
    drawn,
    find_template,
    list_folder,
    mesh_files,
    mesh_loader,
    usable,
)
from facegraft.heads.names import natural_key, split_number
from facegraft.heads.newtopology import build_for
from facegraft.heads.options import FolderOptions
from facegraft.heads.source import HeadSource, Loader, SourcePlan
from facegraft.heads.split import split_imface
from facegraft.meshfiles.errors import MeshError
from facegraft.meshfiles.rawmesh import RawMesh
from facegraft.regions.regionmap import RegionMap, load_region_map
from facegraft.resources import resource_folder
from facegraft.store.remote import Location, relative_name

log = logging.getLogger("facegraft")

REGISTERED = "models_reg"
"""The folder of a subject's registered meshes, in the published archives."""
ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".gz", ".part", ".crdownload")
"""Suffixes of archives, also of unfinished downloads."""

LANDMARKS = "landmark_indices.npz"
"""FaceScape's file of the landmarks of both topologies."""
FACESCAPE_MM = 1.0
"""Millimetres per unit of FaceScape's meshes."""

TOPOLOGIES = {26278: ("facescape_v16", "v16"), 26317: ("facescape_v10", "v10")}
"""By vertex count: the name of the region map, and the key of the landmark set in FaceScape's `landmark_indices.npz`."""


class FacescapeSource(HeadSource):
    """A folder of FaceScape subjects."""

    Options = FolderOptions

    def __init__(self, path: Location | None, options: FolderOptions, seed: int) -> None:
        assert path is not None
        self.path, self.options, self.seed = path, options, seed
        self.alignment = options.align or "none"

    def plan(self) -> SourcePlan:
        """Find the meshes and the topology; raises SourceError."""
        heads = choose_heads(self._find(), self.options, str(self.path), self.seed)
        template = find_template(self.path, usable(heads), self._region_map, self.options, self.posed)
        return SourcePlan(
            template.region_map, template.faces, heads, {"polygons": template.polygons}, beside=(LANDMARKS,), identity=drawn(heads, self.options)
        )

    def loader(self, shared: Mapping[str, NDArray[Any]], region_map: RegionMap) -> Loader:
        """See `folders.mesh_loader`."""
        return mesh_loader(self.path, region_map, shared["polygons"], self.options.mm_per_unit, self.posed)

    def split(self, name: str, subjects: Sequence[str]) -> dict[str, str]:
        """`imface`: see `split_imface`."""
        return split_imface(subjects) if name == "imface" else super().split(name, subjects)

    def _find(self) -> list[Found]:
        found, empty, strange = list[Found](), list[str](), list[str]()
        if (self.path / REGISTERED).is_dir():
            raise SourceError(f"{self.path}: is the folder of one subject; name the folder that holds those of all subjects")
        for folder, files in self._subject_folders():
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
                "<id>/<n>_<expression>.obj and <id>/models_reg/<n>_<expression>.obj, such as 1/1_neutral.obj, there or in unpacked archives"
            )
        for names, what in ((empty, "folders hold no mesh"), (strange, "meshes are not named <n>_<expression>")):
            if names:
                log.warning(
                    "%s: left out: %d %s (%s%s)", self.path, len(names), what, names[0], ", …" if len(names) > 1 else ""
                )
        self._warn_of_what_is_packed(found)
        return found

    def _subject_folders(self) -> list[tuple[Location, list[Location]]]:
        """The folders of subjects with their meshes: those of this folder, and those of unpacked archives in it."""
        folders = []
        for folder in _folders_in(self.path):
            files = _meshes_of(folder)
            inner = [(entry, _meshes_of(entry)) for entry in _folders_in(folder) if entry.name != REGISTERED]
            if any(meshes for _, meshes in inner):  # an archive
                if files:
                    log.warning("%s: left out: %d meshes beside the folders of subjects (%s)", folder, len(files), files[0].name)
                folders += inner
            else:
                folders.append((folder, files))
        return sorted(folders, key=lambda pair: natural_key(pair[0].name))

    def _warn_of_what_is_packed(self, found: Sequence[Found]) -> None:
        """Say which archives beside the meshes are not unpacked, and which subjects have fewer meshes than the others."""
        packed = [entry.name for entry in list_folder(self.path) if entry.suffix.lower() in ARCHIVES]
        unpacked = {folder.name for folder in _folders_in(self.path)}
        if left := [name for name in packed if PurePosixPath(name).stem not in unpacked]:
            log.warning("%s: %d archives may not be unpacked, so that their subjects are missing: %s", self.path, len(left), ", ".join(left))
        counts = Counter(f.subject for f in found)
        usual = Counter(counts.values()).most_common(1)[0][0]
        if fewer := sorted((subject for subject, count in counts.items() if count < usual), key=natural_key):
            log.warning(
                "%s: %d of %d subjects have fewer meshes than the others' %d: %s%s; is an archive half unpacked?",
                self.path, len(fewer), len(counts), usual, ", ".join(f"{s} ({counts[s]})" for s in fewer[:5]), ", …" if len(fewer) > 5 else "",
            )  # fmt: skip

    def _region_map(self, mesh: RawMesh, where: str) -> RegionMap:
        if self.options.region_map is not None:
            return load_region_map(self.options.region_map)
        count = len(mesh.vertices)
        if count not in TOPOLOGIES:
            known = " or ".join(f"{n} ({name})" for n, (name, _) in TOPOLOGIES.items())
            raise MeshError(f"{where}: {count} vertices; FaceScape's registered meshes have {known}")
        name, key = TOPOLOGIES[count]
        if self.options.landmarks is not None:
            return build_for(mesh, where, self.options.landmarks, self.options.landmarks_key or key, name, FACESCAPE_MM)
        if (resource_folder("region_maps") / f"{name}.json").is_file():
            return load_region_map(name)
        for folder in (self.path, self.path.parent):
            if isinstance(folder, Path) and (folder / LANDMARKS).is_file():
                return build_for(mesh, where, str(folder / LANDMARKS), key, name, FACESCAPE_MM)
        raise SourceError(
            f"{where}: topology {name} ({count} vertices) has no region map here; give `--landmarks {LANDMARKS}`, the file that comes "
            f"with FaceScape's toolkit, or put it into {self.path}, and a map is built"
        )


def _folders_in(folder: Location) -> list[Location]:
    return [entry for entry in list_folder(folder) if entry.is_dir()]


def _meshes_of(folder: Location) -> list[Location]:
    """The meshes of a subject's folder, and of `models_reg` in it."""
    registered = folder / REGISTERED
    return mesh_files(folder) + (mesh_files(registered) if registered.is_dir() else [])
