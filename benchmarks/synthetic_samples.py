"""A dataset of samples of bumpy spheres: what a training step needs, with exact distances, and no face data.

It goes through the same writer and reader as real samples, so that the benchmarks time the real data path.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegraft.regions.regionmap import load_region_map
from facegraft.store import (
    DatasetSchema,
    ShardItem,
    finish_dataset,
    samples_fields,
    shard_name,
    write_shard,
    write_shared,
)
from facegraft.vocabulary import DEFAULT_REGION_SET

PARTS = load_region_map("synthetic").region_set(DEFAULT_REGION_SET).parts
COLUMNS = dict.fromkeys(("subject", "expression", "split", *PARTS.head_columns, "origin"), "string")
STAGES, LANDMARKS, STAGE_POINTS = len(PARTS.stages), 68, 2048
MM_PER_UNIT = 170.0
EXPRESSIONS = 4
ITEMS_PER_SHARD = 12
PART_CENTRES = np.array([[0.0, 0.0, 1.0], [0.0, 0.5, 0.87], [0.0, -0.5, 0.87]])
"""Directions of the nose, the eyes and the mouth; what lies within PART_ANGLE of one belongs to it."""
PART_ANGLE = 0.3

Array = NDArray[np.float32]


def write_synthetic_samples(folder: Path, items: int, sizes: dict[str, int], seed: int = 0) -> Path:
    """Samples of `items` spheres with radii 0.6 to 0.8 of the unit ball; sizes: points of the sets surface, near and free of each.

    Stage by stage the sphere grows or shrinks to the template's, of radius 0.7. Every third item is a composite.
    """
    rng = np.random.default_rng(seed)
    topology = {"name": "sphere", "vertex_count": None, "faces_sha256": None}
    schema = DatasetSchema("samples", topology, MM_PER_UNIT, "unit ball", samples_fields(PARTS), COLUMNS, PARTS)
    plan_sha256 = hashlib.sha256(repr((items, sizes, seed)).encode()).hexdigest()
    directions = _directions(rng, STAGE_POINTS)
    landmark_directions = _directions(rng, LANDMARKS)
    landmark_directions[:, 2] = np.abs(landmark_directions[:, 2])
    subjects = max(items // EXPRESSIONS, 2)
    keys = [f"item{number:05d}" for number in range(items)]
    starts = range(0, items, ITEMS_PER_SHARD)
    plan = {}
    for number, start in enumerate(starts):
        shard = shard_name(number, len(starts))
        plan[shard] = keys[start : start + ITEMS_PER_SHARD]
        written = []
        for index in range(start, min(start + ITEMS_PER_SHARD, items)):
            arrays = _sphere(rng, 0.6 + 0.2 * rng.random(), sizes, directions, landmark_directions)
            written.append(ShardItem(keys[index], arrays, _row(index, subjects)))
        write_shard(folder, shard, written, [], schema, plan_sha256)
    write_shared(folder, {"stage_parts": _parts(directions)})
    finish_dataset(folder, schema, plan, plan_sha256)
    return folder


def _row(index: int, subjects: int) -> dict[str, object]:
    subject = f"s{index % subjects:05d}"
    donors = dict.fromkeys(PARTS.head_columns, subject)
    origin, expression = "scan", "neutral" if index < subjects else f"e{index // subjects}"
    if index % 3 == 2:
        origin, expression = "composite", "neutral"
        donors[next(iter(PARTS.donor_columns.values()))] = f"s{(index + 1) % subjects:05d}"
    return {"subject": subject, "expression": expression, "split": "train", "origin": origin, **donors}


def _sphere(
    rng: np.random.Generator, radius: float, sizes: dict[str, int], directions: Array, landmarks: Array
) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for name, size in sizes.items():
        normals = _directions(rng, size)
        distance = np.zeros(size, np.float32)
        if name == "near":
            distance = rng.normal(scale=0.01, size=size).astype(np.float32)
        elif name == "free":
            distance = (rng.random(size) ** (1 / 3) - radius).astype(np.float32)
        arrays |= {f"{name}_points": (radius + distance[:, None]) * normals, f"{name}_normals": normals}
        if name != "free":
            arrays[f"{name}_parts"] = _parts(normals)
        if name != "surface":
            arrays[f"{name}_sdf"] = distance
    radii = np.linspace(radius, 0.7, STAGES, dtype=np.float32)[:, None, None]
    arrays |= {"landmarks": radii * landmarks, "stage_points": radii * directions}
    arrays["to_mm"] = np.diag([MM_PER_UNIT] * 3 + [1.0])
    return {
        name: np.ascontiguousarray(array, np.float64 if name == "to_mm" else array.dtype)
        for name, array in arrays.items()
    }


def _directions(rng: np.random.Generator, count: int) -> Array:
    vectors = rng.normal(size=(count, 3))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _parts(directions: Array) -> NDArray[np.uint8]:
    """Labels u8 [n] of directions."""
    angles = np.arccos(np.clip(directions @ PART_CENTRES.T, -1, 1))
    return np.where(angles.min(1) < PART_ANGLE, angles.argmin(1) + 1, 0).astype(np.uint8)
