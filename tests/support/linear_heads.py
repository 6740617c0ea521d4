"""Registered heads that really are linear, and scans of them, for the tests of linear models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from toy_parts import EYES

from facegraft.store import DatasetSchema, ShardItem, finish_dataset, shard_name, surfaces_fields, write_shard

MODES, VERTICES = 3, 642


def icosphere() -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    import trimesh

    sphere = trimesh.creation.icosphere(subdivisions=3)
    return np.asarray(sphere.vertices), np.asarray(sphere.faces, dtype=np.int32)


class Synthetic:
    """Heads that really are linear: an ellipsoid, three smooth identity modes along its normals, one mode of expression."""

    def __init__(self) -> None:
        sphere, self.faces = icosphere()
        self.mean = sphere * [0.5, 0.7, 0.6]
        x, y, z = sphere.T
        waves = np.stack([np.sin(3 * y), x * z, z**3 - 0.6 * z])
        self.identity = 0.03 * waves[:, :, None] * sphere
        self.expression = 0.02 * np.cos(4 * x)[:, None] * sphere * (z > 0)[:, None]
        self.parts = (np.arange(VERTICES) % 4).astype(np.uint8)

    def head(self, code: NDArray[np.float64], smile: float = 0.0) -> NDArray[np.float64]:
        return self.mean + np.tensordot(code, self.identity, 1) + smile * self.expression

    def write(
        self,
        folder: Path,
        heads: dict[str, tuple[dict[str, str], NDArray[np.float64]]],
        faces: Any = None,
        stages: dict[str, NDArray[np.float64]] | None = None,
        parts: NDArray[np.uint8] | None = None,
    ) -> Path:
        """stages [S,M,3] by key: default, no template morph. parts: labels of the vertices, other than our own."""
        columns = dict.fromkeys(
            ("subject", "expression", "split", "recipient", "donor_nose", "donor_eyes", "donor_mouth", "origin"),
            "string",
        )
        topology = {"name": "toy", "vertex_count": None, "faces_sha256": None}
        schema = DatasetSchema("surfaces", topology, 170.0, "unit ball", surfaces_fields(EYES), columns, EYES)
        items = []
        for number, (key, (row, vertices)) in enumerate(sorted(heads.items())):
            arrays = {
                "vertices": vertices.astype(np.float32),
                "faces": self.faces if faces is None or number == 0 else faces,
                "vertex_parts": self.parts if parts is None else parts,
                "face_cut": np.zeros(len(self.faces), np.uint8),
                "landmarks": np.zeros((1 if stages is None else len(stages[key]), 68, 3), np.float32),
                "stage_points": (np.zeros((1, 5, 3)) if stages is None else stages[key]).astype(np.float32),
                "to_mm": np.diag([170.0, 170.0, 170.0, 1.0]),
            }
            items.append(ShardItem(key, arrays, row))
        name = shard_name(0, 1)
        write_shard(folder, name, items, [], schema, "c" * 64)
        finish_dataset(folder, schema, {name: [item.key for item in items]}, "c" * 64)
        return folder


def scan_of(
    vertices: NDArray[np.float64], faces: NDArray[Any], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    import trimesh

    mesh = trimesh.Trimesh(vertices, faces, process=False)
    points, face = trimesh.sample.sample_surface(mesh, count, seed=0)
    return np.asarray(points), np.asarray(mesh.face_normals[face])
