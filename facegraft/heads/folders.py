"""Folders of registered meshes: find the meshes, choose among them, and read one as a head of a known topology."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Floats, Ints32
from facegraft.errors import FacegraftError, name_fault, nearest, printable, shown_name
from facegraft.heads.errors import SourceError
from facegraft.heads.expressions import BY_NAME
from facegraft.heads.names import clean_name, clean_names, natural_key, split_number
from facegraft.heads.options import FolderOptions
from facegraft.heads.sanity import check_head
from facegraft.heads.source import Head, Loader
from facegraft.meshfiles.errors import MeshError
from facegraft.meshfiles.meshfile import read_mesh
from facegraft.meshfiles.precision import check_precision
from facegraft.meshfiles.rawmesh import RawMesh
from facegraft.regions.regionmap import RegionMap
from facegraft.seeds import digest
from facegraft.store.remote import Location, place
from facegraft.surfaces.topology import faces_sha256
from facegraft.surfaces.triangulate import split_quads, triangulate
from facegraft.vocabulary import NEUTRAL

log = logging.getLogger("facegraft")

MESH_SUFFIXES = (".obj", ".ply")
_PROBES = 20
_LISTED = 8
UNUSABLE = "unusable"
"""Entry of a head's spec that says why it cannot be read."""
FIRST = "first"
"""The value of `ingest.neutral` for each subject's first mesh."""
_UNNUMBERED = 10**9


@dataclass(frozen=True)
class Found:
    """A mesh file: subject and expression as in the names on disk, and the path relative to the source's folder."""

    subject: str
    expression: str
    number: int | None
    source: str


def list_folder(path: Location) -> list[Location]:
    """Entries of a folder in natural order, without hidden ones; raises SourceError where the folder cannot be listed."""
    try:
        return sorted(
            (entry for entry in path.iterdir() if not entry.name.startswith(".")),
            key=lambda entry: natural_key(entry.name),
        )
    except OSError as error:
        raise SourceError(f"{path}: cannot be listed ({error.strerror}); name a folder that you may read") from error


def mesh_files(path: Location) -> list[Location]:
    """Entries of a folder with the suffix of a mesh. Ingest finds out item by item whether they can be read."""
    return [entry for entry in list_folder(path) if entry.suffix.lower() in MESH_SUFFIXES and not entry.is_dir()]


def find_subject_meshes(root: Location, kind: str) -> list[Found]:
    """`<subject>.obj|ply` (expression neutral) and `<subject>/<expression>.obj|ply`, the expression possibly as `<n>_<expression>`."""
    found = [Found(file.stem, "neutral", None, file.name) for file in mesh_files(root)]
    folders = [entry for entry in list_folder(root) if entry.is_dir()]
    for folder in folders:
        for file in mesh_files(folder):
            number, expression = split_number(file.stem)
            found.append(Found(folder.name, expression, number, f"{folder.name}/{file.name}"))
    if not found:
        raise SourceError(
            f"{root}: no meshes found ({len(folders)} folders looked into); kind {kind} looks for "
            "<subject>.obj, <subject>.ply, <subject>/<expression>.obj and <subject>/<expression>.ply"
        )
    return found


def choose_heads(found: Sequence[Found], options: FolderOptions, where: str, seed: int) -> list[Head]:
    """The heads that the user asked for: the first `subjects` in natural order or `draw` at random, the first `expressions` or the named
    ones; the neutral ones are called `neutral` (see `name_neutrals`).

    Expressions are in the order of their numbers, neutral first, then by name. Raises SourceError if there are fewer than
    asked for, if no subject has a named expression, for two files of one head, and for names that become equal.
    """
    subjects = clean_names((f.subject for f in found), "subject", where)
    kept = _chosen_subjects(subjects, options, where, seed)
    heads: dict[tuple[str, str], Head] = {}
    for f in name_neutrals([f for f in found if f.subject in kept], options.neutral, where):
        expression = clean_name(f.expression)
        if not expression:
            raise SourceError(f"{where}: {f.source}: its expression has an empty name")
        number = f.number if f.number is not None else BY_NAME[expression].number if expression in BY_NAME else None
        fault = name_fault(f.source)
        source = f.source if fault is None else shown_name(f.source)
        spec = {"file": source} if fault is None else {"file": source, UNUSABLE: f"its name {fault}; rename the file or its folder"}
        head = Head(subjects[f.subject], expression, number, spec, source)
        other = heads.setdefault((head.subject, expression if number is None else f"{number}"), head)
        if other is not head:
            raise SourceError(
                f"{where}: {other.source} and {f.source} are both {expression!r} of subject {f.subject}; rename one"
            )
    return _choose_expressions(list(heads.values()), options.expressions, where)


def _chosen_subjects(subjects: Mapping[str, str], options: FolderOptions, where: str, seed: int) -> set[str]:
    """The names on disk of the subjects that were asked for, of all names on disk and their clean names."""
    if options.subjects is not None and options.subjects > len(subjects):
        raise SourceError(f"{where}: subjects={options.subjects}, but the folder holds {len(subjects)}")
    if options.draw is None:
        return set(list(subjects)[: options.subjects])
    if options.draw > len(subjects):
        log.warning("%s: draw=%d, but the folder holds %d subjects: all are taken", where, options.draw, len(subjects))
    return set(sorted(subjects, key=lambda name: digest(int(seed), "draw", subjects[name]))[: options.draw])


def drawn(heads: Sequence[Head], options: FolderOptions) -> dict[str, list[str]]:
    """What a plan's identity says of subjects that were drawn at random: their names, in natural order."""
    return {} if options.draw is None else {"drawn": sorted({head.subject for head in heads}, key=natural_key)}


def name_neutrals(found: Sequence[Found], name: str | None, where: str) -> list[Found]:
    """The same meshes, those of neutral heads called `neutral`.

    They are the meshes called NAME (default: `neutral`), in whatever case, or with NAME `first` each subject's first by its file's name. Without
    NAME, and where no mesh is called neutral, a subject's only mesh is its neutral one, unless it has the name of another known
    expression: registrations are often called by the time of the scan.
    Raises SourceError where no subject has a neutral mesh, with the names that there are, and where some mesh is already called neutral.
    """
    wanted = clean_name(name or NEUTRAL).casefold()
    named = {f.source for f in found if clean_name(f.expression).casefold() == wanted}
    called = [f for f in found if clean_name(f.expression).casefold() == NEUTRAL]
    if called and wanted != NEUTRAL:
        raise SourceError(
            f"{where}: ingest.neutral={printable(name or '')}, but {called[0].source} is called neutral; leave out ingest.neutral, or rename that mesh"
        )
    if name == FIRST:
        named = {own[0].source for own in _by_subject(found).values()}
    elif name is None and not named:
        named = {own[0].source for own in _by_subject(found).values() if len(own) == 1 and clean_name(own[0].expression).casefold() not in BY_NAME}
    result = []
    for f in found:
        if f.source in named:
            # Digits of a time are not the number of an expression.
            f = replace(f, expression=NEUTRAL, number=f.number if clean_name(f.expression).casefold() == wanted else None)
        result.append(f)
    if not any(f.expression == NEUTRAL for f in result):
        names = sorted({f.expression for f in found}, key=natural_key)
        listed = ", ".join(printable(n) for n in names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
        what = "neutral" if name is None else printable(name)
        raise SourceError(
            f"{where}: no mesh is called {what!r}, and grafts need each subject's neutral head; the names here are {listed}; "
            "name the neutral one with `--set ingest.neutral=NAME`, or take each subject's first mesh with `ingest.neutral=first`"
        )
    return result


def _by_subject(found: Sequence[Found]) -> dict[str, list[Found]]:
    """The meshes of each subject in natural order of their files."""
    groups: dict[str, list[Found]] = {}
    for f in sorted(found, key=lambda f: natural_key(f.source)):
        groups.setdefault(f.subject, []).append(f)
    return groups


def _choose_expressions(heads: list[Head], wanted: int | tuple[str, ...] | None, where: str) -> list[Head]:
    if wanted is None:
        return heads
    order: dict[str, int] = {}  # expression -> smallest number it has
    for head in heads:
        order[head.expression] = min(order.get(head.expression, _UNNUMBERED), head.number or _UNNUMBERED)
    names = sorted(order, key=lambda name: (name != "neutral", order[name], natural_key(name)))
    if isinstance(wanted, int):
        if wanted > len(names):
            raise SourceError(f"{where}: expressions={wanted}, but the folder holds {len(names)}: {', '.join(names)}")
        chosen = set(names[:wanted])
    else:
        chosen = {clean_name(name) for name in wanted}
        for name in wanted:
            if clean_name(name) not in names:
                raise SourceError(f"{where}: no subject has expression {name!r}{nearest(clean_name(name), names)}")
    return [head for head in heads if head.expression in chosen]


@dataclass(frozen=True)
class Template:
    """A topology, read from one of its meshes: triangles [F, 3], polygons [P, 4] as in the file, and the region map."""

    faces: Ints32
    polygons: Ints32
    region_map: RegionMap


def find_template(
    root: Location,
    names: Sequence[str],
    region_map_of: Callable[[RawMesh, str], RegionMap],
    options: FolderOptions,
    posed: bool = False,
) -> Template:
    """The topology of the template that the user named, or of the first of these meshes that is a sound head.

    A damaged mesh must not stop the others, so up to 20 are tried; if none is sound, SourceError says what is wrong
    with the first. `region_map_of(mesh, where)` identifies the topology; a SourceError of its own is passed on at once.
    posed: the heads may be in any pose.
    """
    if options.template is not None:
        names = [str(place(options.template).absolute())]
    complaint: FacegraftError | None = None
    tried = names[:_PROBES]
    if not tried:
        raise SourceError(f"{root}: no mesh here has a name that can be used: names must be UTF-8 text without control characters; rename them")
    for name in tried:
        where = str(root / name)
        try:
            mesh = read_mesh(root / name)
            region_map = region_map_of(mesh, where)
            faces = match_faces(mesh, region_map, where)
            scale = options.mm_per_unit or region_map.mm_per_unit
            check_head(mesh.vertices * scale, region_map.landmarks68, scale, where, posed)
            return Template(faces, mesh.polygons, region_map)
        except SourceError:
            raise
        except FacegraftError as error:
            complaint = complaint or error
    more = f" (and none of {len(tried) - 1} more that were tried is usable)" if len(tried) > 1 else ""
    raise SourceError(f"{complaint}{more}") from complaint


def match_faces(mesh: RawMesh, region_map: RegionMap, where: str) -> Ints32:
    """The topology's triangles [F, 3] from one of its meshes; raises MeshError or RegionMapError for another topology.

    Triangles are kept. Quads are split by the shorter diagonal on this mesh, by that on its mirror average, or all from
    corner 0 to corner 2: whichever gives the triangles that the region map was made for.
    """
    _check_complete(mesh, region_map, where)
    splits: list[Callable[[], Ints32]] = [lambda: np.ascontiguousarray(mesh.polygons[:, :3])]
    if not mesh.is_triangles:
        splits = [lambda: triangulate(mesh.polygons, mesh.vertices), lambda: split_quads(mesh.polygons)]
        if region_map.symmetry is not None and len(mesh.vertices) == region_map.vertex_count:
            splits.insert(0, lambda: triangulate(mesh.polygons, mesh.vertices, region_map.symmetry))
    for split in splits:
        faces = split()
        if faces_sha256(faces) == region_map.faces_sha256:
            _check_no_surplus(mesh, region_map, where)
            return faces
    if not mesh.is_triangles and mesh.polygons_sha256 == region_map.polygons_sha256:
        raise MeshError(
            f"{where}: this head's shape splits the quads of topology {region_map.name} differently from its region map; "
            "give the mesh from which the map was built as `--set ingest.template=MESH.obj`, or export all meshes triangulated"
        )
    region_map.check_mesh(len(mesh.vertices), faces, where)
    return faces


def mesh_loader(
    root: Location, region_map: RegionMap, polygons: NDArray[Any], mm_per_unit: float | None, posed: bool = False
) -> Loader:
    """A loader that reads the file named in a head's spec: vertices [V, 3] in mm. It raises MeshError or RegionMapError.

    `polygons` [P, 4] are the template's, as in its file: a mesh of the same topology has exactly the same ones. posed: the heads may be in any pose.
    """
    scale = mm_per_unit or region_map.mm_per_unit

    def load(spec: Mapping[str, Any]) -> Floats:
        path = root / inner_name(spec)
        name = shown_name(spec["file"])
        mesh = read_mesh(path, name)
        if len(mesh.vertices) != region_map.vertex_count or not np.array_equal(mesh.polygons, polygons):
            match_faces(mesh, region_map, name)
        vertices = mesh.vertices * scale
        check_head(vertices, region_map.landmarks68, scale, name, posed)
        check_precision(mesh.vertices, scale, name)
        return vertices

    return load


def usable(heads: Sequence[Head]) -> list[str]:
    """The files of these heads that can be read by their names."""
    return [head.spec["file"] for head in heads if UNUSABLE not in head.spec]


def inner_name(spec: Mapping[str, Any]) -> str:
    """The name of a head's file. Raises MeshError where the plan says why it cannot be used, and where it is not inside the source's folder:
    plans may come from somebody else."""
    name = str(spec["file"])
    if UNUSABLE in spec:
        raise MeshError(f"{shown_name(name)}: {printable(spec[UNUSABLE], 200)}")
    if Path(name).is_absolute() or ".." in Path(name).parts or name_fault(name):
        raise MeshError(f"{printable(name)}: lies outside the folder of meshes; run the command that made this plan again")
    return name


def _check_no_surplus(mesh: RawMesh, region_map: RegionMap, where: str) -> None:
    """Raise MeshError where a mesh with the topology's faces has other vertices than the topology: some are in no face."""
    surplus = len(mesh.vertices) - region_map.vertex_count
    if surplus:
        what = f"{surplus} at its end in no face" if surplus > 0 else f"{-surplus} that are in no face are missing"
        raise MeshError(
            f"{where}: {len(mesh.vertices)} vertices, but topology {region_map.name} has {region_map.vertex_count}: {what}; "
            "export the mesh with exactly its original vertices, in their order (without loose ones)"
        )


def _check_complete(mesh: RawMesh, region_map: RegionMap, where: str) -> None:
    triangles = len(mesh.polygons) + int((mesh.polygons[:, 3] >= 0).sum())
    if len(mesh.vertices) == region_map.vertex_count and triangles < region_map.face_count:
        raise MeshError(
            f"{where}: {triangles} triangles, but topology {region_map.name} has {region_map.face_count}; "
            "the file is probably truncated: copy or export it again"
        )
