# ruff: noqa: E402
"""Speed of the pipeline's steps: one process, one thread.

    python benchmarks/pipeline_speed.py [--data DIR] [--repeat 5]

Prints composites a second (ICT skin, four disks), the time of one `paper`-size item from composite to written shard with
its steps, start-up times, and mesh-to-sdf on the same query points (if installed: pip install facegraft[paper]).
Needs the ICT model (see docs/benchmarks.md).
"""

from __future__ import annotations

import os
import sys

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "IGL_NUM_THREADS")
if any(os.environ.get(name) != "1" for name in THREADS):  # the libraries read these when they are loaded
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **dict.fromkeys(THREADS, "1")})

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from facegraft.geometry.frame import head_origin, to_mm_matrix, to_unit
from facegraft.geometry.graft import Grafter
from facegraft.regions.closer import make_closer
from facegraft.regions.regionmap import load_region_map
from facegraft.stages.graft import GraftParameters, make_grafter
from facegraft.stages.morph import choose_stage_vertices
from facegraft.stages.sample import SampleParameters, sample_item
from facegraft.store import DatasetSchema, shard_name
from facegraft.store.schema import samples_fields
from facegraft.store.writer import ShardItem, write_shard
from facegraft.surfaces.distance import signed_distance
from facegraft.surfaces.errors import DistanceError
from facegraft.vocabulary import DEFAULT_REGION_SET

MM_PER_UNIT = 165.0


def median_time(repeat: int, action: Callable[[], Any]) -> float:
    """Median wall-clock seconds of an action."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def row(what: str, value: str, bound: str = "") -> None:
    print(f"  {what:<62} {value:>14}   {bound}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("FACEGRAFT_DATA", "../shared/data")))
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    model = np.load(options.data / "ict" / "ict_facekit_light.npz")
    region_map = load_region_map("ict")
    template, faces = model["neutral"].astype(float) * 10, model["faces"].astype(np.int64)
    rng = np.random.default_rng(0)
    weights = np.clip(rng.normal(size=(12, len(model["id_delta"]))), -2.5, 2.5)
    heads = template + np.tensordot(weights, model["id_delta"].astype(float) * 10, 1)

    print("one process, one thread")
    skin_count = int(region_map.vertices_of("surface").max()) + 1
    skin = np.ones(skin_count, dtype=bool)
    disks = region_map.region_set(DEFAULT_REGION_SET).disks
    parts = {name: (disk.loop, disk.interior[disk.interior < skin_count]) for name, disk in disks.items()}
    skin_faces = faces[(faces < skin_count).all(axis=1)]
    bare = Grafter(template[:skin_count], skin_faces, skin, parts)
    skins = np.ascontiguousarray(heads[:, :skin_count])

    def hundred() -> None:
        for i in range(100):
            bare.graft(skins[i % 12], skins[(i + 5) % 12])

    hundred()
    row(
        "composites a second, ICT skin (11,248 vertices), four disks",
        f"{100 / median_time(options.repeat, hundred):.0f}",
        "≥ 500",
    )

    region_labels = region_map.vertex_labels(DEFAULT_REGION_SET)
    grafter = make_grafter(template, faces, region_map, GraftParameters())
    closer = make_closer(template, faces, region_map, region_labels)
    cut = closer.neck_faces.astype(np.uint8)
    parameters = SampleParameters.parse({"preset": "paper"})
    followed = choose_stage_vertices(region_map, 4096)
    composite = grafter.graft(heads[0], heads[1]).vertices
    topology = {"name": "ict", "vertex_count": region_map.vertex_count, "faces_sha256": region_map.faces_sha256}
    schema = DatasetSchema(
        "samples",
        topology,
        MM_PER_UNIT,
        "unit ball",
        samples_fields(region_map.region_set(DEFAULT_REGION_SET).parts),
        {},
    )

    def surface() -> dict[str, Any]:
        origin = head_origin(composite[region_map.landmarks68])
        closed = closer.close(to_unit(composite, origin, MM_PER_UNIT))
        stages = to_unit(np.stack([composite] * 6), origin, MM_PER_UNIT).astype(np.float32)
        return {
            "vertices": closed.vertices.astype(np.float32),
            "faces": closed.faces,
            "vertex_parts": closed.vertex_labels,
            "face_cut": cut,
            "landmarks": stages[:, region_map.landmarks68],
            "stage_points": stages[:, followed],
            "to_mm": to_mm_matrix(origin, MM_PER_UNIT),
        }

    def sampled() -> dict[str, Any]:
        return sample_item(surface(), parameters, MM_PER_UNIT, True, np.random.default_rng(1))

    ready = sampled()
    with tempfile.TemporaryDirectory() as folder:

        def write(fields: dict[str, Any]) -> None:
            write_shard(folder, shard_name(0, 1), [ShardItem("s0001--s0002", fields, {})], [], schema, "0" * 64)

        row("composite → closed surface in the unit ball, ms", f"{1e3 * median_time(options.repeat, surface):.1f}")
        row(
            "… → 235,000 surface + 15,000 free points with SDF, ms", f"{1e3 * median_time(options.repeat, sampled):.0f}"
        )
        row(
            "samples → written, checksummed, fsynced shard, ms",
            f"{1e3 * median_time(options.repeat, lambda: write(ready)):.0f}",
        )
        whole = median_time(options.repeat, lambda: write(sampled()))
        row("`paper` item, composite → written shard, s", f"{whole:.3f}", "≤ 0.6")

    def run(*command: str) -> None:
        subprocess.run([sys.executable, *command], check=True, capture_output=True)

    empty = median_time(options.repeat, lambda: run("-c", "pass"))
    row("python -c pass, s", f"{empty:.3f}")
    row(
        "import facegraft (interpreter start included), s",
        f"{median_time(options.repeat, lambda: run('-c', 'import facegraft')):.3f}",
        "≤ 0.3",
    )
    row("facegraft --help, s", f"{median_time(options.repeat, lambda: run('-m', 'facegraft', '--help')):.3f}", "≤ 1")

    against_mesh_to_sdf(surface(), ready, options.repeat)


def against_mesh_to_sdf(surface: dict[str, Any], ready: dict[str, Any], repeat: int) -> None:
    """Time and wrong signs of both backends at the item's 15,000 free points and 15,000 points near the surface."""
    vertices, faces = surface["vertices"].astype(np.float64), surface["faces"].astype(np.int64)
    rng = np.random.default_rng(2)
    near = ready["surface_points"][:15_000].astype(np.float64) + rng.normal(scale=2.0 / MM_PER_UNIT, size=(15_000, 3))
    points = np.concatenate([ready["free_points"].astype(np.float64), near])
    print(f"\nsigned distance of {len(points):,} points (half free, half 2 mm around the surface)")
    ours = signed_distance(vertices, faces, points)
    row(
        "facegraft (exact distance, winding number), s",
        f"{median_time(repeat, lambda: signed_distance(vertices, faces, points)):.3f}",
    )
    try:
        theirs = signed_distance(vertices, faces, points, backend="mesh-to-sdf")
    except DistanceError as error:
        print(f"  mesh-to-sdf: not measured ({error})")
        return
    row(
        "mesh-to-sdf (1,000,000 samples, vote of normals), s",
        f"{median_time(1, lambda: signed_distance(vertices, faces, points, backend='mesh-to-sdf')):.3f}",
    )
    wrong = (theirs.sdf < 0) != (ours.sdf < 0)
    row("mesh-to-sdf: wrong signs, free points", f"{100 * wrong[:15_000].mean():.2f} %")
    row("mesh-to-sdf: wrong signs, near points", f"{100 * wrong[15_000:].mean():.2f} %")
    row(
        "mesh-to-sdf: median distance error, mm",
        f"{MM_PER_UNIT * np.median(np.abs(np.abs(theirs.sdf) - np.abs(ours.sdf))):.4f}",
    )


if __name__ == "__main__":
    main()
