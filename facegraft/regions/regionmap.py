"""Region maps: the meaning of the vertices of one mesh topology.

A region map is data, one JSON file per topology: region sets with their parts and the parts' boundary loops, 68 landmarks,
mirror symmetry, geometry groups, openings and the neck crop. It contains no vertex positions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facegraft.arrays import Ints
from facegraft.errors import FacegraftError, nearest
from facegraft.parts import Part, Parts, PartsError, check_part_name
from facegraft.resources import resource_path
from facegraft.store.remote import AnyPath, place
from facegraft.surfaces.topology import faces_sha256, faces_within
from facegraft.vocabulary import LANDMARK_COUNT, OPENING_LANDMARKS

FORMAT = "facegraft-region-map"
VERSION = 2

MAX_VERTICES = 1 << 24
"""Largest accepted vertex count, more than any head has: arrays of the size that a map claims are allocated unchecked."""

ROLES = ("surface", "socket", "inner")
"""Role of a geometry group: outer skin; skin behind the lids and lips; pieces dropped when a head is cleaned."""


class RegionMapError(FacegraftError):
    """A region map that cannot be used, or a mesh that does not belong to it."""


@dataclass(frozen=True)
class Disk:
    """One grafted disk: its ordered boundary loop [n] and the vertices strictly inside it [m].

    `followers` are the geometry groups that move with the disk's similarity in a graft (an eyeball follows its eye).
    `residual_mm`: good median residuals of grafts between adults, for the fit near the similarity and for the plain affine
    fit, where known.
    """

    loop: Ints
    interior: Ints
    followers: tuple[str, ...] = ()
    residual_mm: tuple[float, float] | None = None


@dataclass(frozen=True)
class Region:
    """One part of a region set: its five landmarks (iBUG 68), those that must lie inside it, and its disks by name."""

    landmarks: tuple[int, ...]
    holds: tuple[int, ...]
    disks: Mapping[str, Disk]


@dataclass(frozen=True)
class RegionSet:
    """The parts of one way to divide a face, by name and in cascade order: the order of their labels, and of the model's nets."""

    name: str
    regions: Mapping[str, Region]

    @property
    def parts(self) -> Parts:
        """The names and landmarks that are stored with the data."""
        return Parts(self.name, tuple(Part(name, region.landmarks) for name, region in self.regions.items()))

    @property
    def disks(self) -> dict[str, Disk]:
        """All disks by name, in alphabetical order."""
        found = {name: disk for region in self.regions.values() for name, disk in region.disks.items()}
        return dict(sorted(found.items()))

    @property
    def part_of(self) -> dict[str, str]:
        """The part of each disk."""
        return {disk: part for part, region in self.regions.items() for disk in region.disks}

    def overlaps(self) -> dict[tuple[str, str], int]:
        """Pairs of disks of which one has vertices inside the other, and how many: one graft would overwrite the other.

        Disks that only touch, loop at loop, are not among them: a graft leaves its loop as it is.
        """
        found: dict[tuple[str, str], int] = {}
        for (a, one), (b, other) in combinations(self.disks.items(), 2):
            shared = np.intersect1d(np.concatenate([one.loop, one.interior]), np.concatenate([other.loop, other.interior]))
            count = len(np.setdiff1d(shared, np.intersect1d(one.loop, other.loop)))
            if count:
                found[a, b] = count
        return found


@dataclass(frozen=True)
class Group:
    """A set of vertices, as half-open index ranges [[start, stop], …], with its role.

    `behind` names the eye or the mouth (`vocabulary.OPENING_LANDMARKS`) that the group lies behind.
    """

    ranges: tuple[tuple[int, int], ...]
    role: str
    behind: str | None = None

    @property
    def vertices(self) -> Ints:
        return (
            np.concatenate([np.arange(a, b, dtype=np.int64) for a, b in self.ranges])
            if self.ranges
            else np.empty(0, np.int64)
        )


@dataclass(frozen=True)
class RegionMap:
    """The region map of one topology; see the module docstring. Index arrays are int64; ordered loops run along their faces."""

    name: str
    vertex_count: int
    face_count: int
    faces_sha256: str
    mm_per_unit: float
    landmarks68: Ints
    regions: Mapping[str, RegionSet]
    groups: Mapping[str, Group]
    openings: Mapping[str, Ints] = field(default_factory=dict)
    neck_crop_loop: Ints | None = None
    neck_crop_drop: Ints | None = None
    symmetry: Ints | None = None
    polygons_sha256: str | None = None
    provenance: str = ""

    @classmethod
    def from_json(cls, source: AnyPath | Mapping[str, Any]) -> RegionMap:
        """Read a region map from a file or a parsed object; raises RegionMapError naming the file and the field."""
        if isinstance(source, Mapping):
            return _parse(source, "region map")
        path = place(source)
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe or a device may never end
            raise RegionMapError(f"{path}: is not a regular file; give a region map as a JSON file")
        try:
            text = path.read_bytes()
        except OSError as error:
            raise RegionMapError(f"{path}: cannot read the region map ({error.strerror})") from error
        try:
            data = json.loads(text, object_pairs_hook=each_once)
        except (ValueError, RecursionError) as error:
            raise RegionMapError(f"{path}: not a JSON file ({str(error)[:200]})") from error
        return _parse(data, str(path))

    def to_json(self) -> dict[str, Any]:
        """The map as a JSON object, which `from_json` reads."""

        def ints(values: Ints | None) -> list[int] | None:
            return None if values is None else [int(v) for v in values]

        neck = None
        if self.neck_crop_loop is not None:
            neck = {"loop": ints(self.neck_crop_loop), "drop": ints(self.neck_crop_drop)}
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "vertex_count": self.vertex_count,
            "face_count": self.face_count,
            "faces_sha256": self.faces_sha256,
            "polygons_sha256": self.polygons_sha256,
            "mm_per_unit": self.mm_per_unit,
            "landmarks68": ints(self.landmarks68),
            "symmetry": ints(self.symmetry),
            "groups": {
                name: {"ranges": [list(r) for r in group.ranges], "role": group.role, "behind": group.behind}
                for name, group in self.groups.items()
            },
            # Lists, since the order of parts matters and JSON objects are unordered.
            "regions": {
                set_name: [
                    {
                        "part": part,
                        "landmarks": list(region.landmarks),
                        "holds": list(region.holds),
                        "disks": [
                            {
                                "disk": disk,
                                "loop": ints(d.loop),
                                "interior": ints(d.interior),
                                "followers": list(d.followers),
                                "residual_mm": None if d.residual_mm is None else list(d.residual_mm),
                            }
                            for disk, d in region.disks.items()
                        ],
                    }
                    for part, region in found.regions.items()
                ]
                for set_name, found in self.regions.items()
            },
            "openings": {name: ints(loop) for name, loop in self.openings.items()},
            "neck_crop": neck,
            "provenance": self.provenance,
        }

    def save(self, path: str | Path) -> None:
        """Write the map as JSON, one top-level field a line. Raises RegionMapError for a map that `from_json` would refuse."""
        fields = self.to_json()
        _parse(fields, str(path))
        lines = [f" {json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in fields.items()]
        Path(path).write_text("{\n" + ",\n".join(lines) + "\n}\n")

    def check_mesh(self, vertex_count: int, faces: ArrayLike, where: str) -> None:
        """Raise RegionMapError for a mesh of another topology; `where` names its file or item in the message."""
        faces = np.asarray(faces)
        if vertex_count != self.vertex_count:
            raise RegionMapError(
                f"{where}: {vertex_count} vertices, but topology {self.name} has {self.vertex_count}; "
                "is it another topology, or were vertices merged or split on export?"
            )
        if faces_sha256(faces) != self.faces_sha256:
            raise RegionMapError(
                f"{where}: its faces are not those of topology {self.name} (same vertex count, but different or reordered faces); "
                "export the mesh with its original faces and vertex order"
            )

    def vertices_of(self, *roles: str) -> Ints:
        """Vertices of all groups with one of the roles, ascending."""
        chosen = [group.vertices for group in self.groups.values() if group.role in roles]
        return np.unique(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)

    def region_set(self, name: str) -> RegionSet:
        """A region set by name; raises RegionMapError naming the available sets."""
        if name not in self.regions:
            raise RegionMapError(f"topology {self.name} has no region set {name!r}{nearest(name, self.regions)}")
        return self.regions[name]

    def vertex_labels(self, set_name: str) -> NDArray[np.uint8]:
        """Part label [V] of every vertex; a disk's loop belongs to the remainder (a graft keeps the host's loop)."""
        labels = np.zeros(self.vertex_count, dtype=np.uint8)
        found = self.region_set(set_name)
        for part, region in found.regions.items():
            for disk in region.disks.values():
                labels[disk.interior] = found.parts.label(part)
        return labels

    def kept_skin(self) -> Ints:
        """Vertices of the outer skin above the neck cut, ascending."""
        skin = self.vertices_of("surface")
        return skin if self.neck_crop_drop is None else np.setdiff1d(skin, self.neck_crop_drop)

    def mask_of(self, *roles: str) -> NDArray[np.bool_]:
        """Vertices [V] of all groups with one of the roles."""
        mask = np.zeros(self.vertex_count, dtype=bool)
        mask[self.vertices_of(*roles)] = True
        return mask

    def skin_faces(self, faces: ArrayLike) -> Ints:
        """The faces [F', 3] of the outer skin, of the topology's faces [F, 3]."""
        f = np.asarray(faces, dtype=np.int64)
        return f[faces_within(f, self.mask_of("surface"))]


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object from its fields. Raises ValueError for two fields of one name: json would silently drop the first."""
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise ValueError(f"field {name[:60]!r} comes twice")
        fields[name] = value
    return fields


def _parse(data: Any, where: str) -> RegionMap:
    def bad(what: str) -> RegionMapError:
        return RegionMapError(f"{where}: {what}")

    def text(value: Any, what: str) -> str:
        # Names appear in messages and documents: no control characters or lone surrogates.
        if not isinstance(value, str) or len(value) > 2000 or not value.isprintable():
            raise bad(f"{what} must be a line of text")
        return value

    def count(value: Any, what: str) -> int:
        if type(value) is not int or not 0 < value <= MAX_VERTICES:
            raise bad(f"{what} must be a whole number from 1 to {MAX_VERTICES}")
        return value

    def table(value: Any, what: str) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise bad(f"{what} must map names to values")
        return {text(name, f"a name in {what}"): entry for name, entry in value.items()}

    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        raise bad(f"not a region map (its `format` is not {FORMAT!r})")
    if data.get("version") != VERSION:
        raise bad(
            f"region map version {str(data.get('version'))[:40]!r}, this facegraft reads version {VERSION}; make it again with "
            "`facegraft regions build`"
        )
    try:
        vertex_count = count(data["vertex_count"], "vertex_count")

        def indices(values: Any, what: str) -> Ints:
            if not isinstance(values, list) or not all(type(v) is int and 0 <= v < vertex_count for v in values):
                raise bad(f"{what} must be a list of vertex indices below {vertex_count}")
            return np.array(values, dtype=np.int64)

        landmarks = indices(data["landmarks68"], "landmarks68")
        if len(landmarks) != 68:
            raise bad(f"landmarks68 has {len(landmarks)} entries, not 68")
        groups: dict[str, Group] = {}
        for name, value in table(data["groups"], "groups").items():
            if value["role"] not in ROLES:
                raise bad(f"groups.{name}.role is {str(value['role'])[:40]!r}; roles are {', '.join(ROLES)}")
            ranges = tuple((a, b) for a, b in value["ranges"])
            if not all(type(a) is int and type(b) is int and 0 <= a <= b <= vertex_count for a, b in ranges):
                raise bad(f"groups.{name}.ranges leave 0..{vertex_count}")
            behind = value.get("behind")
            if behind is not None and behind not in OPENING_LANDMARKS:
                raise bad(
                    f"groups.{name}.behind is {str(behind)[:40]!r}; it must be one of {', '.join(OPENING_LANDMARKS)}"
                )
            groups[name] = Group(ranges, value["role"], behind)
        if sum(b - a for group in groups.values() for a, b in group.ranges) > vertex_count:
            raise bad("groups overlap: a vertex belongs to one group")
        regions = {
            set_name: _parse_set(set_name, parts, groups, indices, bad)
            for set_name, parts in table(data["regions"], "regions").items()
        }
        symmetry = None if data.get("symmetry") is None else indices(data["symmetry"], "symmetry")
        if symmetry is not None and len(symmetry) != vertex_count:
            raise bad(f"symmetry has {len(symmetry)} entries, not {vertex_count}")
        neck = data.get("neck_crop")
        mm_per_unit, polygons = data["mm_per_unit"], data.get("polygons_sha256")
        if isinstance(mm_per_unit, bool) or not isinstance(mm_per_unit, int | float) or not 0 < mm_per_unit < math.inf:
            raise bad("mm_per_unit must be a positive number")
        return RegionMap(
            name=text(data["name"], "name"),
            vertex_count=vertex_count,
            face_count=count(data["face_count"], "face_count"),
            faces_sha256=text(data["faces_sha256"], "faces_sha256"),
            polygons_sha256=None if polygons is None else text(polygons, "polygons_sha256"),
            mm_per_unit=float(mm_per_unit),
            landmarks68=landmarks,
            regions=regions,
            groups=groups,
            openings={
                name: indices(loop, f"openings.{name}")
                for name, loop in table(data.get("openings", {}), "openings").items()
            },
            neck_crop_loop=None if neck is None else indices(neck["loop"], "neck_crop.loop"),
            neck_crop_drop=None if neck is None else indices(neck["drop"], "neck_crop.drop"),
            symmetry=symmetry,
            provenance=text(data.get("provenance", ""), "provenance"),
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise bad(f"missing or malformed field: {str(error)[:200]}") from error


def _parse_set(
    name: str,
    listed: Any,
    groups: Mapping[str, Group],
    indices: Callable[[Any, str], Ints],
    bad: Callable[[str], RegionMapError],
) -> RegionSet:
    where = f"regions.{name}"
    if not isinstance(listed, list):
        raise bad(f"{where} must be a list of parts")
    regions: dict[str, Region] = {}
    disks: set[str] = set()
    carried: set[str] = set()
    for value in listed:
        part = value["part"]
        if part in regions:
            raise bad(f"{where} names part {part!r} twice")
        own: dict[str, Disk] = {}
        for entry in value["disks"]:
            disk = _name(entry["disk"], f"{where}: disk", bad)
            if disk in disks:
                raise bad(f"{where} names disk {disk!r} twice")
            disks.add(disk)
            followers = tuple(entry.get("followers", ()))
            for group in followers:
                if group not in groups or groups[group].role != "inner" or group in carried:
                    raise bad(
                        f"{where}.{disk}.followers: {str(group)[:40]!r} is not an inner group, or another disk carries it"
                    )
                carried.add(group)
            residual = entry.get("residual_mm")
            if residual is not None:
                near, plain = (float(limit) for limit in residual)
                residual = (near, plain)
            own[disk] = Disk(
                indices(entry["loop"], f"{where}.{disk}.loop"),
                indices(entry["interior"], f"{where}.{disk}.interior"),
                followers,
                residual,
            )
        if not own:
            raise bad(f"{where}: part {part!r} has no disk")
        holds = tuple(value.get("holds", ()))
        if not all(type(mark) is int and 0 <= mark < LANDMARK_COUNT for mark in holds):
            raise bad(f"{where}: part {part!r} holds landmarks that do not exist")
        regions[_name(part, f"{where}: part", bad)] = Region(tuple(value["landmarks"]), holds, own)
    found = RegionSet(name, regions)
    try:
        _ = found.parts
    except PartsError as error:
        raise bad(str(error)) from error
    return found


def _name(value: Any, what: str, bad: Callable[[str], RegionMapError]) -> str:
    """Check names, which become columns of the index."""
    try:
        return check_part_name(value)
    except PartsError as error:
        raise bad(f"{what}: {error}") from error


_KEPT = ("region_map.json", "heads/region_map.json")
"""Where a dataset, and where a run, keeps its region map."""


def map_files(name_or_path: str) -> list[str]:
    """The files, besides those that facegraft ships, that `load_region_map` may read."""
    return [name_or_path, *(f"{name_or_path}/{kept}" for kept in _KEPT)]


def load_region_map(name_or_path: AnyPath) -> RegionMap:
    """A region map by its topology's name (one that facegraft ships), by the path of its JSON file, or by that of a dataset that has one."""
    path = place(name_or_path)
    for kept in _KEPT:
        if (path / kept).is_file():
            path = path / kept
            break
    if path.suffix != ".json":
        path = resource_path(f"region_maps/{name_or_path}.json")
    return RegionMap.from_json(path)
