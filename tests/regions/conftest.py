"""Templates with their shipped region maps: the synthetic one always, the real ones where the data are at hand."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from facegraft.heads.synthetic import template
from facegraft.meshfiles.ply import read_ply
from facegraft.regions.regionmap import RegionMap, load_region_map

REAL = {"ict": "ict", "facescape_v16": "facescape", "flame": "flame"}
"""Topologies with a reference in data/regions, and its name there."""


@dataclass(frozen=True)
class Template:
    name: str
    vertices: np.ndarray
    faces: np.ndarray
    published_landmarks: np.ndarray | None
    region_map: RegionMap


def _obj(path: Path) -> tuple[np.ndarray, np.ndarray]:
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    vertices = [line.split()[1:4] for line in lines if line.startswith("v ")]
    faces = [[corner.split("/")[0] for corner in line.split()[1:]] for line in lines if line.startswith("f ")]
    return np.array(vertices, dtype=float), np.array(faces, dtype=np.int64) - 1


@pytest.fixture(scope="session")
def load_template(request: pytest.FixtureRequest) -> Callable[[str], Template]:
    def load(name: str) -> Template:
        region_map = load_region_map(name)
        if name == "synthetic":
            shape = template()
            return Template(name, shape.vertices, shape.faces, None, region_map)
        data: Path = request.getfixturevalue("data_dir")
        if name == "ict":
            model = np.load(data / "ict" / "ict_facekit_light.npz")
            return Template(name, model["neutral"].astype(float), model["faces"], model["lm68"], region_map)
        if name == "flame":
            mesh = read_ply(data / "flame" / "template.ply")
            faces = mesh.polygons[:, :3]
            marks = np.load(data / "flame" / "landmarks68_embedding.npz")
            nearest = faces[marks["lmk_face_idx"]][np.arange(68), marks["lmk_b_coords"].argmax(axis=1)]
            return Template(name, mesh.vertices, faces, nearest, region_map)
        vertices, faces = _obj(data / "facescape" / "facescape_v16_sample.obj.gz")
        return Template(name, vertices, faces, np.load(data / "facescape" / "landmark_indices.npz")["v16"], region_map)

    return load


@pytest.fixture(scope="session")
def reference(data_dir: Path) -> Callable[[str], dict[str, set[int]]]:
    """Vertex sets of the reference regions by our part names."""

    def load(name: str) -> dict[str, set[int]]:
        content = json.loads((data_dir / "regions" / f"regions_{REAL[name]}.json").read_text())
        names = {"nose": "nose", "mouth": "mouth", "eye_left": "eye_l", "eye_right": "eye_r", "goggles": "goggles"}
        return {
            ours: set(content[theirs]["periphery"]) | set(content[theirs]["interior"]) for ours, theirs in names.items()
        }

    return load
