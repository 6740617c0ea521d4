"""Region maps: what the vertices of one mesh topology mean.

A region map is data, one JSON file a topology: parts with their boundary loops, 68 landmarks, mirror symmetry,
geometry groups, openings and the neck crop. It never holds a vertex position.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facegraft.errors import FacegraftError
from facegraft.geometry.topology import faces_sha256
from facegraft.resources import resource_path
from facegraft.store.remote import place

Ints = NDArray[np.int64]

FORMAT = "facegraft-region-map"
VERSION = 1

PART_LABELS = {"remainder": 0, "nose": 1, "eyes": 2, "mouth": 3}
"""Part label of a point, in every dataset."""

LABEL_OF_PART = {"nose": 1, "eye_left": 2, "eye_right": 2, "goggles": 2, "mouth": 3}
"""Label of each part (disk) of a region set: both lid disks and the goggles are `eyes`."""

MAX_VERTICES = 1 << 24
"""More than any head has; arrays of this length are made from the map's word alone."""

ROLES = ("surface", "socket", "inner")
"""What a geometry group is: outer skin; skin behind the lids and lips; pieces dropped when a head is cleaned."""


class RegionMapError(FacegraftError):
    """A region map that cannot be used, or a mesh that does not belong to it."""


@dataclass(frozen=True)
class Part:
    """One grafted disk: its ordered boundary loop [n] and the vertices strictly inside it [m]."""

    loop: Ints
    interior: Ints


@dataclass(frozen=True)
class Group:
    """A set of vertices, as half-open index ranges [[start, stop], …], with its role.

    `follows` names the part whose similarity carries the group in a graft (an eyeball follows its eye).
    """

    ranges: tuple[tuple[int, int], ...]
    role: str
    follows: str | None = None

    @property
    def vertices(self) -> Ints:
        return (
            np.concatenate([np.arange(a, b, dtype=np.int64) for a, b in self.ranges])
            if self.ranges
            else np.empty(0, np.int64)
        )


@dataclass(frozen=True)
class RegionMap:
    """A topology's meaning; see the module docstring. Index arrays are int64, ordered loops run along their faces."""

    name: str
    vertex_count: int
    face_count: int
    faces_sha256: str
    mm_per_unit: float
    landmarks68: Ints
    regions: Mapping[str, Mapping[str, Part]]
    groups: Mapping[str, Group]
    openings: Mapping[str, Ints] = field(default_factory=dict)
    neck_crop_loop: Ints | None = None
    neck_crop_drop: Ints | None = None
    symmetry: Ints | None = None
    polygons_sha256: str | None = None
    provenance: str = ""

    @classmethod
    def from_json(cls, source: str | Path | Mapping[str, Any]) -> RegionMap:
        """Read a region map from a file or a parsed object; raises RegionMapError naming the file and the field."""
        if isinstance(source, Mapping):
            return _parse(source, "region map")
        path = place(source)
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe or a device has no end
            raise RegionMapError(f"{path}: is no plain file; give a region map as a JSON file")
        try:
            text = path.read_bytes()
        except OSError as error:
            raise RegionMapError(f"{path}: cannot read the region map ({error.strerror})") from error
        try:
            data = json.loads(text, object_pairs_hook=_each_once)
        except (ValueError, RecursionError) as error:
            raise RegionMapError(f"{path}: not a JSON file ({str(error)[:200]})") from error
        return _parse(data, str(path))

    def to_json(self) -> dict[str, Any]:
        """The object that `from_json` reads."""

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
                name: {"ranges": [list(r) for r in group.ranges], "role": group.role, "follows": group.follows}
                for name, group in self.groups.items()
            },
            "regions": {
                set_name: {part: {"loop": ints(p.loop), "interior": ints(p.interior)} for part, p in parts.items()}
                for set_name, parts in self.regions.items()
            },
            "openings": {name: ints(loop) for name, loop in self.openings.items()},
            "neck_crop": neck,
            "provenance": self.provenance,
        }

    def save(self, path: str | Path) -> None:
        """Write the map as JSON, one top-level field a line."""
        fields = self.to_json()
        lines = [f" {json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in fields.items()]
        Path(path).write_text("{\n" + ",\n".join(lines) + "\n}\n")

    def check_mesh(self, vertex_count: int, faces: ArrayLike, where: str) -> None:
        """Refuse a mesh of another topology by name: `where` says which file or item it is."""
        faces = np.asarray(faces)
        if vertex_count != self.vertex_count:
            raise RegionMapError(
                f"{where}: {vertex_count} vertices, but topology {self.name} has {self.vertex_count}; "
                "is it another topology, or were vertices merged or split on export?"
            )
        if faces_sha256(faces) != self.faces_sha256:
            raise RegionMapError(
                f"{where}: its faces are not those of topology {self.name} (same vertex count, other or reordered faces); "
                "export the mesh with its original faces and vertex order"
            )

    def vertices_of(self, *roles: str) -> Ints:
        """Vertices of all groups with one of the roles, ascending."""
        chosen = [group.vertices for group in self.groups.values() if group.role in roles]
        return np.unique(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)

    def parts(self, set_name: str) -> Mapping[str, Part]:
        """The parts of a region set; raises RegionMapError naming the sets there are."""
        if set_name not in self.regions:
            raise RegionMapError(
                f"topology {self.name} has no region set {set_name!r}; it has {', '.join(sorted(self.regions))}"
            )
        return self.regions[set_name]

    def vertex_labels(self, set_name: str) -> NDArray[np.uint8]:
        """Part label [V] of every vertex; a part's loop belongs to the remainder (it stays the host's)."""
        labels = np.zeros(self.vertex_count, dtype=np.uint8)
        for name, part in self.parts(set_name).items():
            labels[part.interior] = LABEL_OF_PART[name]
        return labels


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
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
        # Names end up in messages and documents, where control characters and lone surrogates have no place.
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
        raise bad(f"region map version {str(data.get('version'))[:40]!r}; this facegraft reads version {VERSION}")
    try:
        vertex_count = count(data["vertex_count"], "vertex_count")

        def indices(values: Any, what: str) -> Ints:
            if not isinstance(values, list) or not all(type(v) is int and 0 <= v < vertex_count for v in values):
                raise bad(f"{what} must be a list of vertex indices below {vertex_count}")
            return np.array(values, dtype=np.int64)

        landmarks = indices(data["landmarks68"], "landmarks68")
        if len(landmarks) != 68:
            raise bad(f"landmarks68 has {len(landmarks)} entries, not 68")
        regions: dict[str, dict[str, Part]] = {}
        for set_name, parts in table(data["regions"], "regions").items():
            regions[set_name] = {}
            for part, value in table(parts, f"regions.{set_name}").items():
                if part not in LABEL_OF_PART:
                    raise bad(f"regions.{set_name}.{part}: unknown part; parts are {', '.join(LABEL_OF_PART)}")
                label = f"regions.{set_name}.{part}"
                regions[set_name][part] = Part(
                    indices(value["loop"], f"{label}.loop"), indices(value["interior"], f"{label}.interior")
                )
        groups: dict[str, Group] = {}
        for name, value in table(data["groups"], "groups").items():
            if value["role"] not in ROLES:
                raise bad(f"groups.{name}.role is {str(value['role'])[:40]!r}; roles are {', '.join(ROLES)}")
            ranges = tuple((a, b) for a, b in value["ranges"])
            if not all(type(a) is int and type(b) is int and 0 <= a <= b <= vertex_count for a, b in ranges):
                raise bad(f"groups.{name}.ranges leave 0..{vertex_count}")
            follows = value.get("follows")
            if follows is not None and follows not in LABEL_OF_PART:
                raise bad(f"groups.{name}.follows is {str(follows)[:40]!r}; parts are {', '.join(LABEL_OF_PART)}")
            groups[name] = Group(ranges, value["role"], follows)
        if sum(b - a for group in groups.values() for a, b in group.ranges) > vertex_count:
            raise bad("groups overlap: a vertex belongs to one group")
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


def load_region_map(name_or_path: str | Path) -> RegionMap:
    """A region map by its topology's name (one that facegraft ships) or by the path of its JSON file."""
    path = place(name_or_path)
    if path.suffix != ".json":
        path = resource_path(f"region_maps/{name_or_path}.json")
    return RegionMap.from_json(path)
