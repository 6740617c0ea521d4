"""Table of the quality of the shipped region maps: loops, gaps, symmetry, agreement with reference regions.

    FACEGRAFT_DATA=../shared/data python benchmarks/region_quality.py [--pictures DIR]

Needs the folder of real heads for all topologies but `synthetic` (ict/, facescape/, flame/ and regions/ below it).
`iou` compares with the reference's vertices (loop and interior), `rough ref` is the reference loop's roughness by the same
measure, `turns` are corners of the loop beyond 60 degrees (reference in brackets). Landmark rows compare our own landmark
sets with the published ones, in mm.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facegraft.geometry.outline import roughness
from facegraft.heads.synthetic import template
from facegraft.meshfiles.meshfile import read_mesh
from facegraft.regions.check import check_region_map
from facegraft.regions.regionmap import load_region_map
from facegraft.regions.show import show_region_map

REFERENCE = {"ict": "ict", "facescape_v16": "facescape", "flame": "flame"}
REFERENCE_DISK = {"nose": "nose", "mouth": "mouth", "eye_left": "eye_l", "eye_right": "eye_r", "goggles": "goggles"}
LANDMARK_GROUPS = {
    "jaw": (0, 17),
    "brows": (17, 27),
    "nose": (27, 36),
    "eyes": (36, 48),
    "outer lip": (48, 60),
    "inner lip": (60, 68),
}

Mesh = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64] | None]


def load(name: str, data: Path) -> Mesh:
    """Vertices, faces and published landmarks of a topology's template."""
    if name == "synthetic":
        shape = template()
        return shape.vertices, shape.faces, None
    if name == "ict":
        model = np.load(data / "ict" / "ict_facekit_light.npz")
        return model["neutral"].astype(float), model["faces"], None
    if name == "flame":
        mesh = read_mesh(data / "flame" / "template.ply")
        faces = mesh.polygons[:, :3]
        marks = np.load(data / "flame" / "landmarks68_embedding.npz")
        return mesh.vertices, faces, faces[marks["lmk_face_idx"]][np.arange(68), marks["lmk_b_coords"].argmax(axis=1)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.obj"
        path.write_bytes(gzip.decompress((data / "facescape" / "facescape_v16_sample.obj.gz").read_bytes()))
        mesh = read_mesh(path)
    return mesh.vertices, mesh.polygons[:, :3], np.load(data / "facescape" / "landmark_indices.npz")["v16"]


def corners(points: NDArray[np.float64]) -> int:
    """Turns of a closed polygon by more than 60 degrees."""
    step = np.roll(points, -1, axis=0) - points
    step /= np.linalg.norm(step, axis=1, keepdims=True)
    return int((np.einsum("ij,ij->i", step, np.roll(step, 1, axis=0)) < 0.5).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=Path, help="also draw every map into this folder")
    options = parser.parse_args()
    data = Path(os.environ.get("FACEGRAFT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    names = ["synthetic", *(REFERENCE if (data / "regions").is_dir() else ())]
    if len(names) == 1:
        print(f"no real heads in {data}: set FACEGRAFT_DATA; only the synthetic map is measured")
    print(f"{'topology':14}{'set':9}{'disk':12}{'loop':>5}{'inside':>7}{'edge mm':>8}{'rough':>7}{'ref':>7}{'turns':>9}"
          f"{'mirror':>7}{'gap':>4}{'gap mm':>7}{'skin':>6}{'euler':>6}{'iou':>7}")  # fmt: skip
    landmark_rows, complaints = [], []
    for name in names:
        vertices, faces, published = load(name, data)
        region_map = load_region_map(name)
        findings, figures = check_region_map(region_map, vertices, faces)
        complaints += [f"{name}: {finding}" for finding in findings]
        reference = (
            json.loads((data / "regions" / f"regions_{REFERENCE[name]}.json").read_text())
            if name in REFERENCE
            else None
        )
        for set_name, disks in figures.items():
            for disk_name, row in disks.items():
                iou = rough = turns = "-"
                if reference is not None and disk_name in REFERENCE_DISK:
                    other = reference[REFERENCE_DISK[disk_name]]
                    disk = region_map.region_set(set_name).disks[disk_name]
                    ours = set(disk.loop.tolist()) | set(disk.interior.tolist())
                    theirs = set(other["periphery"]) | set(other["interior"])
                    loop = vertices[other["periphery"]]
                    iou, rough, turns = (
                        f"{len(ours & theirs) / len(ours | theirs):.3f}",
                        f"{roughness(loop):.3f}",
                        str(corners(loop)),
                    )
                print(f"{name:14}{set_name:9}{disk_name:12}{row['loop']:5}{row['interior']:7}{row['mean_edge']:8.2f}{row['roughness']:7.3f}"
                      f"{rough:>7}{row['notches']:>4} ({turns:>2}){row['mirror_difference']!s:>7}{row['gap']:4}{row['gap_mm']:7.1f}"
                      f"{row['on_skin']:6.0%}{row['euler']:6}{iou:>7}")  # fmt: skip
        if published is not None:
            gap = (
                np.linalg.norm(vertices[region_map.landmarks68] - vertices[published], axis=1) * region_map.mm_per_unit
            )
            landmark_rows += [
                f"{name:14}{group:11}{np.median(gap[a:b]):7.1f}{gap[a:b].max():7.1f}"
                for group, (a, b) in LANDMARK_GROUPS.items()
            ]
        if options.pictures:
            print(show_region_map(region_map, vertices, faces, options.pictures / f"{name}.png"))
    if landmark_rows:
        print(f"\nour landmarks against the published, mm\n{'topology':14}{'group':11}{'median':>7}{'max':>7}")
        print("\n".join(landmark_rows))
    print("\n" + ("\n".join(complaints) if complaints else "every threshold is met"))
    if complaints:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
