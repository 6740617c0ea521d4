"""Developer tool: make the region maps that facegraft ships, each from a mesh that its user has.

    python region_maps/tools/build_shipped.py --ict FaceXModel --facescape neutral.obj --flame template.ply

All region sets of region_maps/sets are traced, those that are optional elsewhere too. `synthetic` needs nothing. ICT's
landmarks are read from its own vertex_indices.json (MIT). Those of FaceScape and FLAME are our own, made by transfer_landmarks.py: with --transfer anew from ICT, else those of the shipped map are kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facegraft.regions.build import build_region_map
from facegraft.regions.groups import ICT_GROUPS
from facegraft.regions.regionmap import Group, RegionMap, load_region_map
from facegraft.regions.regionsets import RegionSetSpec, shipped_sets

FOLDER = Path(__file__).resolve().parents[1]

_METHOD = (
    "Parts: smooth outlines through ratios of landmark positions in a cylinder chart of the mirror-symmetric template, followed by "
    "the cheapest edge loops (distance, direction, turning); facegraft regions build."
)
PROVENANCE = {
    "synthetic": f"Template and landmarks of facegraft's own synthetic head family. {_METHOD}",
    "ict": "Topology, landmarks and vertex ranges: ICT Face Model Light (ICT-FaceKit), (c) 2020 USC Institute for Creative Technologies, "
    f"MIT licence; no geometry is included. {_METHOD}",
    "facescape_v16": "Index sets of our own making for the FaceScape topology with 26278 vertices; no geometry and no published index "
    "set of FaceScape is included. Landmarks: carried over from the ICT face model (MIT) by registration, "
    f"region_maps/tools/transfer_landmarks.py; they differ by a few mm from the published ones. {_METHOD}",
    "flame": "Index sets of our own making for the FLAME topology with 5023 vertices; no geometry, mask or landmark embedding of FLAME is "
    "included. Landmarks: carried over from the ICT face model (MIT) by registration, region_maps/tools/transfer_landmarks.py. "
    f"{_METHOD}",
}


def all_sets() -> list[RegionSetSpec]:
    """The shipped sets; on a shipped topology none of them may be left out."""
    return [replace(spec, optional=False) for spec in shipped_sets()]


def polygons_sha256(polygons: ArrayLike) -> str:
    """SHA-256 of published polygons [P, 4] (-1 pads a triangle) as little-endian int32."""
    return hashlib.sha256(np.ascontiguousarray(polygons, dtype="<i4").tobytes()).hexdigest()


def ict_map(vertices: ArrayLike, faces: ArrayLike, polygons: ArrayLike, landmarks: ArrayLike) -> RegionMap:
    """From the neutral in centimetres, its mirror-symmetric triangulation, its polygons and its landmarks."""
    return build_region_map(
        vertices, faces, landmarks, "ict", 10.0, ICT_GROUPS, polygons_sha256(polygons), PROVENANCE["ict"], all_sets()
    )


def synthetic_map() -> RegionMap:
    from facegraft.heads.synthetic import template

    shape = template()
    groups = {
        name: Group(tuple((int(a), int(b)) for a, b in ranges), role, behind)
        for name, (ranges, role, behind) in shape.groups.items()
    }
    return build_region_map(
        shape.vertices, shape.faces, shape.landmarks68, "synthetic", 1.0, groups, None, PROVENANCE["synthetic"], all_sets()
    )


def triangle_map(
    vertices: ArrayLike, faces: ArrayLike, landmarks: ArrayLike, name: str, mm_per_unit: float
) -> RegionMap:
    """FaceScape or FLAME: triangles in file order and our own landmarks."""
    return build_region_map(vertices, faces, landmarks, name, mm_per_unit, provenance=PROVENANCE[name], sets=all_sets())


def _from_folder(folder: Path) -> RegionMap:
    from facegraft.meshfiles.meshfile import read_mesh
    from facegraft.surfaces.triangulate import triangulate

    mesh = read_mesh(folder / "generic_neutral_mesh.obj")
    symmetry = load_region_map("ict").symmetry
    landmarks = json.loads((folder / "vertex_indices.json").read_text())["idx_to_landmark_verts"]
    return ict_map(mesh.vertices, triangulate(mesh.polygons, mesh.vertices, symmetry), mesh.polygons, landmarks)


def _transferred(
    ict: Path, vertices: NDArray[np.float64], faces: NDArray[np.int64], mm_per_unit: float
) -> NDArray[np.int64]:
    sys.path.insert(0, str(Path(__file__).parent))
    from transfer_landmarks import FaceModel, transfer_landmarks

    return np.asarray(transfer_landmarks(FaceModel.from_folder(ict), vertices, faces, mm_per_unit).landmarks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ict", type=Path, help="the published FaceXModel folder")
    parser.add_argument("--facescape", type=Path, help="a neutral FaceScape mesh of 26278 vertices")
    parser.add_argument("--flame", type=Path, help="the FLAME template")
    parser.add_argument(
        "--transfer", action="store_true", help="make the landmarks of FaceScape and FLAME anew (needs --ict)"
    )
    parser.add_argument("-o", "--output", type=Path, default=FOLDER)
    options = parser.parse_args()
    if options.transfer and options.ict is None:
        parser.error("--transfer needs --ict")
    from facegraft.meshfiles.meshfile import read_mesh

    maps = [synthetic_map()]
    if options.ict:
        maps.append(_from_folder(options.ict))
    for path, name, unit in ((options.facescape, "facescape_v16", 1.0), (options.flame, "flame", 1000.0)):
        if path is None:
            continue
        mesh = read_mesh(path)
        vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.polygons)[:, :3]
        landmarks = (
            _transferred(options.ict, vertices, faces, unit) if options.transfer else load_region_map(name).landmarks68
        )
        maps.append(triangle_map(vertices, faces, landmarks, name, unit))
    for region_map in maps:
        path = options.output / f"{region_map.name}.json"
        region_map.save(path)
        print(path)


if __name__ == "__main__":
    main()
