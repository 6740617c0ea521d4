"""Files of region sets: parts with outlines as ratios of landmarks (YAML), or with masks of vertices (JSON, npz, and files that a YAML names).

`regions.build` traces them on a topology; the resulting loops and vertices are stored in the region map.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Ints
from facegraft.errors import FacegraftError, printable
from facegraft.parts import Part, Parts, PartsError, check_part_name, check_set_name
from facegraft.regions.masks import MASK_FILES, Masks, chosen, read_masks
from facegraft.resources import resource_folder
from facegraft.settings import read_yaml
from facegraft.vocabulary import FACE_LANDMARKS, LANDMARK_COUNT, OPENING_LANDMARKS

MAX_BYTES = 1 << 26
"""Largest accepted file; masks of a fine mesh take a few hundred kilobytes."""

_NO_VERTEX = np.uint64((1 << 63) - 1)
_LANDMARK_NAME = re.compile(r"[xy][0-9]{1,2}")

_PART_KEYS = ("name", "landmarks", "holds", "disks")
_DISK_KEYS = (
    "name", "carries", "residual_mm", "mirror_of", "seed", "let", "half", "outline", "medial", "features", "margin",
)  # fmt: skip


class RegionSetError(FacegraftError):
    """A region set that cannot be read."""

    exit_code = 2


@dataclass(frozen=True)
class OutlineSpec:
    """An outline in the chart: control points, `let` for names, the medial line, a seed inside, features to avoid.

    The seed is a landmark, or a point where no landmark lies in the disk.

    Points are pairs of numbers or expressions (`regions.expressions`). symmetric: the points are the left half, top to bottom.
    """

    points: tuple[tuple[str | float, str | float], ...]
    symmetric: bool
    medial: tuple[tuple[str | float, str | float], ...]
    seed: int | tuple[str | float, str | float]
    let: Mapping[str, str | float] = field(default_factory=dict)
    features: tuple[tuple[int, ...], ...] = ()
    margin: str | float = 0.0


@dataclass(frozen=True)
class DiskSpec:
    """One disk: an outline, the mirror image of another disk, or a mask of vertices.

    carries: the eyes or the mouth whose inner groups follow the disk. mask_length: of a mask that was given as one boolean a vertex,
    for how many vertices.
    """

    name: str
    outline: OutlineSpec | None = None
    mirror_of: str | None = None
    mask: Ints | None = None
    carries: tuple[str, ...] = ()
    residual_mm: tuple[float, float] | None = None
    mask_length: int | None = None


@dataclass(frozen=True)
class PartSpec:
    """One part: its five `landmarks`, and those that its disks must contain (`holds`). For masks the builder finds both if None."""

    name: str
    disks: tuple[DiskSpec, ...]
    landmarks: tuple[int, ...] | None = None
    holds: tuple[int, ...] = ()


@dataclass(frozen=True)
class RegionSetSpec:
    """A region set: its parts in cascade order. `optional`: the set is left out for a topology on which it cannot be traced."""

    name: str
    parts: tuple[PartSpec, ...]
    optional: bool = False


def shipped_sets() -> list[RegionSetSpec]:
    """The sets that facegraft ships, by name."""
    return [read_region_set(path) for path in sorted((resource_folder("region_maps") / "sets").glob("*.yaml"))]


def read_region_sets(paths: Sequence[str | Path]) -> list[RegionSetSpec]:
    """Several sets, in order. Raises RegionSetError for a file that is not a region set, and for two sets of one name."""
    found: dict[str, RegionSetSpec] = {}
    for path in paths:
        spec = read_region_set(path)
        if spec.name in found:
            raise RegionSetError(f"{path}: another of the files gives a region set {spec.name!r} too; rename one")
        found[spec.name] = spec
    return list(found.values())


def read_region_set(path: str | Path) -> RegionSetSpec:
    """A set from a YAML file of outlines, or a JSON or npz file of masks (part → vertex indices, or one boolean per vertex).

    A set of masks has the name of its file. Raises RegionSetError naming the file and the problem.
    """
    path = Path(path)
    readers = {".yaml": _from_yaml, ".yml": _from_yaml, **dict.fromkeys(MASK_FILES, _from_mask_file)}
    if path.suffix.lower() not in readers:
        raise RegionSetError(
            f"{path}: a region set is a .yaml file of outlines, or a .json or .npz file of vertex masks; a .yaml file may take masks from other "
            "files; see docs/regions.md"
        )
    if path.exists() and not path.is_file():
        raise RegionSetError(f"{path}: is not a regular file")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RegionSetError(f"{path}: more than {MAX_BYTES >> 20} MiB; is this another file?")
        return readers[path.suffix.lower()](path)
    except OSError as error:
        raise RegionSetError(f"{path}: cannot be read ({error.strerror})") from error
    except (PartsError, ValueError) as error:
        raise RegionSetError(f"{path}: {error}") from error


def _from_yaml(path: Path) -> RegionSetSpec:
    document = read_yaml(path.read_bytes().decode())
    if not isinstance(document, dict) or not isinstance(document.get("parts"), list) or not document["parts"]:
        raise ValueError("a region set maps `name` to its name and `parts` to a list of parts")
    _known(document, ("name", "parts", "optional", "masks", "mesh"), "the set")
    masks = _masks_beside(path, document)
    parts = tuple(_part(entry, path, masks) for entry in document["parts"])
    disks = [disk.name for part in parts for disk in part.disks]
    for name in disks:
        if disks.count(name) > 1:
            raise ValueError(f"disk {name!r} comes twice")
    for disk in (disk for part in parts for disk in part.disks):
        if disk.mirror_of is not None and disk.mirror_of not in disks[: disks.index(disk.name)]:
            raise ValueError(f"disk {disk.name}: mirror_of names {disk.mirror_of!r}, which is not a disk before it")
    name = document.get("name", path.stem)
    # The landmarks of masks are found when the set is traced; here any will do.
    Parts(check_set_name(name), tuple(Part(p.name, FACE_LANDMARKS if p.landmarks is None else p.landmarks) for p in parts))
    optional = document.get("optional", False)
    if not isinstance(optional, bool):
        raise ValueError(f"optional is true or false, not {printable(repr(optional))}")
    return RegionSetSpec(name, parts, optional)


def _masks_beside(path: Path, document: Mapping[str, Any]) -> Masks | None:
    """The masks of the file that a set's `masks` names, relative to the set's own."""
    for key in ("masks", "mesh"):
        if key in document and not (isinstance(document[key], str) and (path.parent / document[key]).is_file()):
            raise ValueError(f"{key} names the file {printable(document[key])!r}, which is not there")
    if "masks" not in document:
        return None
    return read_masks(path.parent / document["masks"], path.parent / document["mesh"] if "mesh" in document else None)


def _masked_part(entry: Mapping[str, Any], masks: Masks | None) -> PartSpec:
    """`{name: eyes, mask: eye_region}`, or a list of masks, of which the part is the union."""
    name = check_part_name(entry.get("name"))
    _known(entry, ("name", "mask", "landmarks", "holds"), f"part {name}")
    names = entry["mask"] if isinstance(entry["mask"], list) else [entry["mask"]]
    if masks is None or not all(isinstance(own, str) for own in names):
        raise ValueError(f"part {name}: `mask` is a name, or names, of masks in the file that `masks` names")
    landmarks = None if entry.get("landmarks") is None else _landmarks(entry["landmarks"], f"part {name}: landmarks")
    holds = () if entry.get("holds") is None else _landmarks(entry["holds"], f"part {name}: holds")
    return replace(_mask_part(name, chosen(masks, names)), landmarks=landmarks, holds=holds)


def _part(entry: Any, path: Path, masks: Masks | None = None) -> PartSpec:
    if isinstance(entry, dict) and "from" in entry:
        return _borrowed(entry, path)
    if isinstance(entry, dict) and "mask" in entry:
        return _masked_part(entry, masks)
    if not isinstance(entry, dict) or not isinstance(entry.get("disks"), list) or not entry["disks"]:
        raise ValueError("each part needs `name`, `landmarks` and `disks`")
    name = check_part_name(entry.get("name"))
    _known(entry, _PART_KEYS, f"part {name}")
    landmarks = _landmarks(entry.get("landmarks"), f"part {name}: landmarks")
    holds = landmarks if entry.get("holds") is None else _landmarks(entry["holds"], f"part {name}: holds")
    return PartSpec(name, tuple(_disk(disk) for disk in entry["disks"]), landmarks, holds)


def _borrowed(entry: Mapping[str, Any], path: Path) -> PartSpec:
    """A part of another set, `{name: nose, from: eyes}`; that set is next to this file, or ships with facegraft."""
    _known(entry, ("name", "from"), "a part of another set")
    source, name = check_set_name(entry["from"]), check_part_name(entry.get("name"))
    beside = path.with_name(f"{source}.yaml")
    other = beside if beside.is_file() else resource_folder("region_maps") / "sets" / f"{source}.yaml"
    if not other.is_file() or other.resolve() == path.resolve():
        raise ValueError(f"part {name}: there is no other region set {source!r}, neither beside this file nor shipped")
    document = read_yaml(other.read_bytes().decode())
    for part in document.get("parts", []) if isinstance(document, dict) else []:
        if isinstance(part, dict) and part.get("name") == name and "from" not in part:
            return _part(part, other, _masks_beside(other, document))
    raise ValueError(f"part {name}: region set {source} has no such part of its own")


def _disk(entry: Any) -> DiskSpec:
    if not isinstance(entry, dict):
        raise ValueError("a disk maps names to values")
    name = check_part_name(entry.get("name"))
    where = f"disk {name}"
    _known(entry, _DISK_KEYS, where)
    carries = entry.get("carries", [])
    if not isinstance(carries, list) or not all(place in tuple(OPENING_LANDMARKS) for place in carries):
        raise ValueError(f"{where}: carries lists some of {', '.join(OPENING_LANDMARKS)}")
    residual = entry.get("residual_mm")
    if residual is not None:
        if (
            not isinstance(residual, list)
            or len(residual) != 2
            or not all(type(v) in (int, float) and v > 0 for v in residual)
        ):
            raise ValueError(f"{where}: residual_mm is two lengths in mm, near the similarity and plain affine")
        residual = (float(residual[0]), float(residual[1]))
    mirror_of = entry.get("mirror_of")
    if mirror_of is not None:
        drawn = [key for key in ("seed", "let", "half", "outline", "medial", "features", "margin") if key in entry]
        if drawn:
            raise ValueError(f"{where}: has both mirror_of and {drawn[0]}; give one")
        return DiskSpec(name, mirror_of=str(mirror_of), carries=tuple(carries), residual_mm=residual)
    if ("half" in entry) == ("outline" in entry):
        raise ValueError(f"{where}: give either `half` (a symmetric outline) or `outline` (a closed one), or mirror_of")
    symmetric = "half" in entry
    let = entry.get("let", {})
    if not isinstance(let, dict) or not all(isinstance(key, str) and key.isidentifier() for key in let):
        raise ValueError(f"{where}: let maps names to expressions")
    for key in let:
        if _LANDMARK_NAME.fullmatch(key):
            raise ValueError(f"{where}: let names {key!r}, which is a coordinate of a landmark; choose another name")
    features = entry.get("features", [])
    if not isinstance(features, list):
        raise ValueError(f"{where}: features is a list of lists of landmarks")
    for marks in features:
        if len(_landmarks(marks, f"{where}: features")) < 2:
            raise ValueError(f"{where}: features: a polygon needs two landmarks or more, not {printable(marks)}")
    seed = entry.get("seed")
    inside = (
        _points([seed], f"{where}: seed", 1)[0] if isinstance(seed, list) else _landmarks([seed], f"{where}: seed")[0]
    )
    outline = OutlineSpec(
        points=_points(entry["half" if symmetric else "outline"], f"{where}: outline", 3),
        symmetric=symmetric,
        medial=_points(entry.get("medial"), f"{where}: medial", 2),
        seed=inside,
        let=let,
        features=tuple(_landmarks(marks, f"{where}: features") for marks in features),
        margin=entry.get("margin", 0.0),
    )
    return DiskSpec(name, outline, None, None, tuple(carries), residual)


def _points(rows: Any, what: str, least: int) -> tuple[tuple[str | float, str | float], ...]:
    good = isinstance(rows, list) and len(rows) >= least
    if not good or not all(
        isinstance(row, list) and len(row) == 2 and all(type(v) in (int, float, str) for v in row) for row in rows
    ):
        raise ValueError(f"{what} must be at least {least} points [x, y], numbers or expressions")
    return tuple((row[0], row[1]) for row in rows)


def _landmarks(marks: Any, what: str) -> tuple[int, ...]:
    if not isinstance(marks, list) or not all(type(m) is int and 0 <= m < LANDMARK_COUNT for m in marks):
        raise ValueError(
            f"{what}: must be iBUG landmarks, numbers from 0 to {LANDMARK_COUNT - 1}, not {printable(marks)}"
        )
    return tuple(marks)


def _known(entry: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in entry:
        if key not in keys:
            raise ValueError(f"{where}: unknown entry {printable(key)!r}; there are {', '.join(keys)}")


def _from_mask_file(path: Path) -> RegionSetSpec:
    return _from_masks(path, read_masks(path))


def _as_int64(indices: NDArray[Any]) -> Ints:
    """The same numbers; unsigned ones that are too large become the largest there is, which is no vertex of any mesh."""
    return np.minimum(indices, _NO_VERTEX).astype(np.int64) if indices.dtype == np.uint64 else indices.astype(np.int64)


def _from_masks(path: Path, masks: Mapping[str, NDArray[Any]]) -> RegionSetSpec:
    if not masks:
        raise ValueError("holds no masks")
    parts = tuple(_mask_part(check_part_name(name), np.asarray(values)) for name, values in masks.items())
    return RegionSetSpec(check_set_name(path.stem.lower().replace("-", "_")), parts)


def _mask_part(name: str, array: NDArray[Any]) -> PartSpec:
    """A part of one mask: vertex indices [n], or one boolean per vertex [V]."""
    if array.ndim == 1 and not (array.any() if array.dtype.kind == "b" else len(array)):
        raise ValueError(f"mask {name}: must be vertex indices [n] or booleans [V], and names no vertex; leave the part out")
    if array.ndim != 1 or array.dtype.kind not in "biu":
        raise ValueError(
            f"mask {name}: must be vertex indices [n] or booleans [V], not {array.dtype} {list(array.shape)}"
        )
    one_each = array.dtype.kind == "b"
    index = np.flatnonzero(array) if one_each else np.unique(_as_int64(array))
    return PartSpec(name, (DiskSpec(name, mask=index, mask_length=len(array) if one_each else None),))
