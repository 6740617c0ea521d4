"""Stand-ins for FaceScape and Headspace as they are published: the one real mesh of each topology, smoothly deformed."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facegraft.meshfiles import read_triangles, write_mesh
from facegraft.regions.regionmap import load_region_map
from facegraft.seeds import stream

EXPRESSIONS = ("1_neutral", "2_smile", "3_mouth_stretch", "4_anger")
ARCHIVES = {"facescape_trainset_001_100": (1, 2), "facescape_trainset_101_200": (122,)}
"""Subjects by archive: two for training and one for testing, by ImFace's split."""
V10_VERTICES = 26317
REACH, WAVES = 60.0, 12
"""Length in mm of the deformations, and how many of them make one subject."""


def waved(vertices: NDArray[np.float64], where: NDArray[np.float64], size: float, seed: int, name: str) -> NDArray[np.float64]:
    """Vertices [V,3] in mm after smooth random displacements of about `size` mm about random points of `where` [n,3]."""
    draw = stream(seed, "stand-in", name)
    moved = vertices.copy()
    for centre in where[draw.integers(len(where), size=WAVES)]:
        reach = np.exp(-((vertices - centre) ** 2).sum(1) / (2 * REACH**2))
        moved += size * draw.normal(size=3) * reach[:, None] / WAVES**0.5
    return moved


def facescape_archives(root: Path, data: Path, vertex_count: int = 26278) -> Path:
    """`<archive>/<id>/models_reg/<n>_<expression>.obj` of either topology; of 26,317 vertices, with FaceScape's file of landmarks beside."""
    root.mkdir(parents=True)
    sample = root / "sample.obj"
    sample.write_bytes(gzip.decompress((data / "facescape" / "facescape_v16_sample.obj.gz").read_bytes()))
    vertices, faces = read_triangles(sample)
    sample.unlink()
    landmarks = load_region_map("facescape_v16").landmarks68
    if vertex_count == V10_VERTICES:
        # A vertex in the middle of some triangles at the back of the head: another topology with the same landmarks.
        back = np.argsort(vertices[faces].mean(1)[:, 2])[: vertex_count - len(vertices)]
        new = len(vertices) + np.arange(len(back))
        a, b, c = faces[back].T
        vertices = np.concatenate([vertices, vertices[faces[back]].mean(1)])
        split = [np.stack(corners, 1) for corners in ((a, b, new), (b, c, new), (c, a, new))]
        faces = np.concatenate([np.delete(faces, back, axis=0), *split])
        np.savez(root / "landmark_indices.npz", v10=landmarks, v16=np.arange(68))
    mouth = vertices[landmarks[48:68]]
    for archive, subjects in ARCHIVES.items():
        for subject in subjects:
            neutral = waved(vertices, vertices, 6.0, subject, "identity")
            folder = root / archive / str(subject) / "models_reg"
            folder.mkdir(parents=True)
            for expression in EXPRESSIONS:
                head = neutral if expression == EXPRESSIONS[0] else waved(neutral, mouth, 3.0, subject, expression)
                write_mesh(folder / f"{expression}.obj", head, faces)
    return root


def mica_root(root: Path, data: Path, subjects: int = 6) -> Path:
    """`registrations/<id>/<time>.obj` in metres, and `FLAME_parameters/<id>/<time>.npz` beside."""
    vertices, faces = read_triangles(data / "flame" / "template.ply")
    for subject in range(1, subjects + 1):
        stem = f"201601{subject:02d}_120000"
        for folder in ("registrations", "FLAME_parameters"):
            (root / folder / f"{subject:05d}").mkdir(parents=True)
        head = waved(1000 * vertices, 1000 * vertices, 6.0, subject, "identity") / 1000
        write_mesh(root / "registrations" / f"{subject:05d}" / f"{stem}.obj", head, faces)
        np.savez(root / "FLAME_parameters" / f"{subject:05d}" / f"{stem}.npz", betas=np.zeros(400, np.float32), pose=np.zeros(15))
    return root
