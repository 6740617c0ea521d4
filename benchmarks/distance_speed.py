"""Signed distances a CPU second, on one core, beside those peers that are installed (open3d, warp-lang, point-cloud-utils, libigl).

    python benchmarks/distance_speed.py [--data DIR] [--points 100000] [--rounds 3] [--surfaces DATASET]

The five surfaces of `sdf_accuracy.py`; of the points three eighths are free in the unit ball and the others at 1 and 5 mm sigma around the surface,
as stage `sample` draws them (100,000 are what an item takes). Each peer runs in its own process, on one thread, on the same arrays: the least CPU time
of some rounds, in which it builds its tree anew; numba and Warp have compiled before. Signs are compared with facegraft's, which `sdf_accuracy.py`
compares with sums of solid angles; largest difference of |distance| in units. Exits with 1 where facegraft is not twice as fast as open3d.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sdf_accuracy import dataset_surfaces, ict_surfaces

from facegraft.arrays import Floats, Ints
from facegraft.surfaces.distance import signed_distance
from facegraft.surfaces.sampling import free_points, near_points, sample_surface

Measure = Callable[[Floats, Ints, Floats], Floats]
WANTED = 2.0
"""Times as fast as open3d that it has to be."""


def facegraft() -> Measure:
    return lambda v, f, p: signed_distance(v, f, p).sdf


def open3d() -> Measure:
    import open3d as o3d

    def measure(v: Floats, f: Ints, p: Floats) -> Floats:
        scene = o3d.t.geometry.RaycastingScene(nthreads=1)
        scene.add_triangles(o3d.core.Tensor(v.astype(np.float32)), o3d.core.Tensor(f.astype(np.uint32)))
        return np.asarray(scene.compute_signed_distance(o3d.core.Tensor(p.astype(np.float32)), nthreads=1).numpy())

    return measure


def warp() -> Measure:
    import warp as wp

    wp.config.quiet = True
    wp.init()

    @wp.kernel
    def query(mesh: wp.uint64, points: wp.array(dtype=wp.vec3), out: wp.array(dtype=float)):  # type: ignore[valid-type,no-untyped-def]
        i = wp.tid()
        found = wp.mesh_query_point_sign_winding_number(mesh, points[i], 4.0)
        out[i] = found.sign * wp.length(points[i] - wp.mesh_eval_position(mesh, found.face, found.u, found.v))

    def measure(v: Floats, f: Ints, p: Floats) -> Floats:
        with wp.ScopedDevice("cpu"):
            corners, faces = wp.array(v, dtype=wp.vec3), wp.array(f.ravel(), dtype=int)
            mesh = wp.Mesh(corners, faces, support_winding_number=True)
            points, out = wp.array(p, dtype=wp.vec3), wp.zeros(len(p), dtype=float)
            wp.launch(query, dim=len(p), inputs=[mesh.id, points, out])
            return np.asarray(out.numpy())

    return measure


def point_cloud_utils() -> Measure:
    import point_cloud_utils as pcu

    return lambda v, f, p: np.asarray(pcu.signed_distance_to_mesh(p, v, f)[0])


def libigl() -> Measure:
    import igl

    def measure(v: Floats, f: Ints, p: Floats) -> Floats:
        tree = igl.AABB()
        tree.init(v, f)
        squared = tree.squared_distance(v, f, p)[0]
        inside = np.asarray(igl.fast_winding_number(v, f, p)) > 0.5
        return np.where(inside, -1.0, 1.0) * np.sqrt(squared)

    return measure


PEERS: dict[str, Callable[[], Measure]] = {
    each.__name__: each for each in (facegraft, open3d, warp, point_cloud_utils, libigl)
}


def measured(name: str, folder: Path, rounds: int) -> None:
    """In a process of its own: write FOLDER/NAME.npz, with the CPU seconds and the distances of each surface."""
    measure = PEERS[name]()
    results = {}
    for path in sorted(folder.glob("surface-*.npz")):
        with np.load(path) as arrays:
            v, f, p = arrays["vertices"], arrays["faces"], arrays["points"]
        found, best = measure(v, f, p), np.inf
        for _ in range(rounds):
            start = time.process_time()
            measure(v, f, p)
            best = min(best, time.process_time() - start)
        results[path.stem] = found
        results[f"seconds-{path.stem}"] = np.float64(best)
    np.savez(folder / f"{name}.npz", **results)  # type: ignore[arg-type]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("FACEGRAFT_DATA", "../shared/data")))
    parser.add_argument("--surfaces", type=Path, help="a surfaces dataset, instead of ICT heads")
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs=2, metavar=("PEER", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        measured(options.only[0], Path(options.only[1]), options.rounds)
        return 0
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder, names = Path(temporary), []
        surfaces = dataset_surfaces(options.surfaces) if options.surfaces else ict_surfaces(options.data)
        for number, (name, vertices, faces, mm) in enumerate(surfaces):
            seeds = sample_surface(vertices, faces, options.points * 5 // 8, rng).points
            near = near_points(seeds, [1.0 / mm, 5.0 / mm], rng)[0]
            points = np.concatenate([near, free_points(options.points - len(seeds), rng)]).astype(np.float32)
            np.savez(folder / f"surface-{number}.npz", vertices=vertices, faces=faces, points=points.astype(np.float64))
            names.append(f"{name}, {len(faces):,} triangles")
        environment = dict(os.environ) | dict.fromkeys(("OMP_NUM_THREADS", "IGL_NUM_THREADS"), "1")
        for peer in PEERS:
            command = [sys.executable, __file__, "--only", peer, str(folder), "--rounds", str(options.rounds)]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
            if done.returncode:
                print(f"{peer}: not measured ({(done.stderr.strip().splitlines() or ['no message'])[-1]})")
        results = {peer: np.load(folder / f"{peer}.npz") for peer in PEERS if (folder / f"{peer}.npz").exists()}
        print(f"{options.points:,} points; thousand points a CPU second, wrong signs, largest error in units")
        ratios = []
        for number, name in enumerate(names):
            key, cells = f"surface-{number}", []
            ours = results["facegraft"][key]
            speed = {peer: options.points / 1e3 / float(found[f"seconds-{key}"]) for peer, found in results.items()}
            for peer, found in results.items():
                wrong = int(((found[key] < 0) != (ours < 0)).sum())
                cells.append(f"{peer} {speed[peer]:.0f}" + ("" if peer == "facegraft" else f" ({wrong}, {np.abs(np.abs(found[key]) - np.abs(ours)).max():.0e})"))
            print(f"  {name:<34} " + "  ".join(cells))
            if "open3d" in speed:
                ratios.append(speed["facegraft"] / speed["open3d"])
        print(json.dumps({"times_as_fast_as_open3d": [round(ratio, 2) for ratio in ratios]}))
    return int(any(ratio < WANTED for ratio in ratios))


if __name__ == "__main__":
    sys.exit(main())
