"""A head of 81 vertices for tests: a mirror-symmetric mask of quads with 68 landmarks, its region map, and file writers."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from facegraft.regions.regionmap import RegionMap
from facegraft.surfaces.topology import faces_sha256
from facegraft.surfaces.triangulate import triangulate

SIDE = 9


def vertices() -> np.ndarray:
    """A mask in mm: outer eye corners 90 mm apart, nose tip in front."""
    y, x = np.meshgrid(np.linspace(-80, 80, SIDE), np.linspace(-60, 60, SIDE), indexing="ij")
    z = 40 - (x**2 + y**2) / 200
    z[4, 4] += 25
    return np.stack([x, y, z], axis=-1).reshape(-1, 3)


def polygons() -> np.ndarray:
    """64 quads, the first of them cut into two triangles; counter-clockwise seen from the front."""
    corner = (np.arange(SIDE - 1)[:, None] * SIDE + np.arange(SIDE - 1)).ravel()
    quads = np.stack([corner, corner + 1, corner + SIDE + 1, corner + SIDE], axis=1)
    a, b, c, d = quads[0]
    return np.concatenate([[[a, b, c, -1], [a, c, d, -1]], quads[1:]]).astype(np.int32)


def symmetry() -> np.ndarray:
    return np.arange(SIDE * SIDE).reshape(SIDE, SIDE)[:, ::-1].ravel()


def landmarks() -> np.ndarray:
    chosen = np.full(68, 4 * SIDE + 4)
    row = {"chin": 0, "bridge": 5}
    chosen[8] = row["chin"] * SIDE + 4
    chosen[27] = row["bridge"] * SIDE + 4
    chosen[36], chosen[45] = row["bridge"] * SIDE + 1, row["bridge"] * SIDE + 7
    return chosen


def faces() -> np.ndarray:
    return triangulate(polygons(), vertices(), symmetry())


def region_map(mm_per_unit: float = 1.0) -> RegionMap:
    return RegionMap(
        name="toy",
        vertex_count=SIDE * SIDE,
        face_count=len(faces()),
        faces_sha256=faces_sha256(faces()),
        polygons_sha256=hashlib.sha256(polygons().astype("<i4").tobytes()).hexdigest(),
        mm_per_unit=mm_per_unit,
        landmarks68=landmarks(),
        symmetry=symmetry(),
        regions={},
        groups={},
    )


def write_obj(path: Path, v: np.ndarray | None = None, p: np.ndarray | None = None) -> Path:
    v = vertices() if v is None else v
    p = polygons() if p is None else p
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in v]
    lines += ["f " + " ".join(str(i + 1) for i in face if i >= 0) for face in p]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_ict(folder: Path, shapes: list[str], modes: int = 4) -> dict[str, np.ndarray]:
    """A FaceXModel folder of toy heads in cm; the displacements [V, 3] in mm by file stem."""
    rng = np.random.default_rng(5)
    deltas = {f"identity{i:03d}": rng.normal(size=(SIDE * SIDE, 3)) for i in range(modes)}
    deltas |= {shape: rng.normal(size=(SIDE * SIDE, 3)) for shape in shapes}
    write_obj(folder / "generic_neutral_mesh.obj", vertices() / 10)
    for name, delta in deltas.items():
        write_obj(folder / f"{name}.obj", (vertices() + delta) / 10)
    return deltas
