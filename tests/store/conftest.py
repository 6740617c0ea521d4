"""Small datasets to read, break and compare."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facegraft.regions.regionmap import load_region_map
from facegraft.store import (
    Dataset,
    DatasetSchema,
    FieldSpec,
    RejectedItem,
    ShardItem,
    finish_dataset,
    open_dataset,
    samples_fields,
    shard_name,
    write_region_map,
    write_shard,
    write_shared,
)

PLAN = "5" * 64
PARTS = load_region_map("synthetic").region_set("eyes").parts
TOPOLOGY = {"name": "toy", "vertex_count": 5, "faces_sha256": None}


class ToyDataset:
    """Two shards of three items, one rejected in each: what was put in, and where it was written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(3)
        fields = {
            "vertices": FieldSpec("float32", ("V", 3), "mm", "", "points"),
            "labels": FieldSpec("uint8", ("n",), "label", "", "labels"),
            "weights": FieldSpec("float64", ("n", 2), "", "", "weights of the labels"),
        }
        self.schema = DatasetSchema(
            "heads", TOPOLOGY, 1.0, "test", fields, {"subject": "string", "score": "float64", "count": "int64"}
        )
        self.items: dict[str, dict[str, np.ndarray]] = {}
        self.plan: dict[str, list[str]] = {}
        for number in range(2):
            keys = [f"s{number}{letter}" for letter in "abc"]
            self.plan[shard_name(number, 2)] = keys
            for count, key in enumerate(keys[:2]):
                self.items[key] = {
                    "vertices": rng.normal(size=(5, 3)).astype(np.float32),
                    "labels": rng.integers(0, 9, 7 * count, dtype=np.uint8),
                    "weights": rng.random((7 * count, 2)),
                }
        self.shared = {"faces": np.array([[0, 1, 2], [2, 3, 4]], np.int32)}

    def write_shard(self, shard: str) -> dict[str, Any]:
        written = [key for key in self.plan[shard] if key in self.items]
        return write_shard(
            self.folder,
            shard,
            [ShardItem(key, self.items[key], {"subject": key[:2], "score": 0.5, "count": len(key)}) for key in written],
            [
                RejectedItem(key, "mesh is not closed", {"subject": key[:2]})
                for key in self.plan[shard]
                if key not in written
            ],
            self.schema,
            PLAN,
        )

    def finish(self) -> None:
        write_shared(self.folder, self.shared)
        write_region_map(self.folder, {"name": "toy"})
        finish_dataset(self.folder, self.schema, self.plan, PLAN)

    def write(self) -> ToyDataset:
        for shard in self.plan:
            self.write_shard(shard)
        self.finish()
        return self

    def open(self, **options: bool) -> Dataset:
        return open_dataset(self.folder, **options)

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def new_toy(tmp_path: Path) -> Callable[[str], ToyDataset]:
    """Makes an unwritten toy dataset in a folder of the given name."""
    return lambda name: ToyDataset(tmp_path / name)


@pytest.fixture
def toy(new_toy: Callable[[str], ToyDataset]) -> ToyDataset:
    """A finished toy dataset."""
    return new_toy("toy").write()


def one_sample(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """An item of `samples` of the unit sphere: 40 surface, 20 near and 10 free points."""

    def directions(count: int) -> np.ndarray:
        vectors = rng.normal(size=(count, 3))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    surface, near, free = directions(40), directions(20), directions(10)
    offsets = rng.normal(scale=0.01, size=20).astype(np.float32)
    radii = rng.random(10).astype(np.float32) ** np.float32(1 / 3)
    return {
        "surface_points": surface,
        "surface_normals": surface,
        "surface_parts": rng.integers(0, 4, 40, dtype=np.uint8),
        "near_points": near * (1 + offsets[:, None]),
        "near_sdf": offsets,
        "near_normals": near,
        "near_parts": rng.integers(0, 4, 20, dtype=np.uint8),
        "free_points": free * radii[:, None],
        "free_sdf": radii - 1,
        "free_normals": free,
        "landmarks": rng.normal(size=(6, 68, 3)).astype(np.float32),
        "stage_points": rng.normal(size=(6, 8, 3)).astype(np.float32),
        "to_mm": np.diag([100.0, 100.0, 100.0, 1.0]),
    }


@pytest.fixture
def write_samples(tmp_path: Path) -> Callable[..., Path]:
    """Writes a samples dataset of one sphere, with some of its fields replaced; returns its folder."""

    def write(**replaced: np.ndarray) -> Path:
        folder = tmp_path / "samples"
        schema = DatasetSchema("samples", TOPOLOGY, 100.0, "unit ball", samples_fields(PARTS), {}, PARTS)
        item = ShardItem("ball", {**one_sample(np.random.default_rng(0)), **replaced}, {})
        write_shard(folder, shard_name(0, 1), [item], [], schema, PLAN)
        finish_dataset(folder, schema, {shard_name(0, 1): ["ball"]}, PLAN)
        return folder

    return write
