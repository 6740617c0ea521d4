"""Heads of some 2,400 vertices for the report's tests: eggs with noses, four disks for parts, a neck opening."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh

from facegraft.regions.regionmap import Disk, Group, Region, RegionMap, RegionSet, load_region_map
from facegraft.store import (
    DatasetSchema,
    RejectedItem,
    ShardItem,
    finish_dataset,
    shard_name,
    write_region_map,
    write_shard,
    write_shared,
)
from facegraft.store.schema import heads_fields
from facegraft.surfaces.topology import boundary_loops, compact, faces_sha256

RADII = np.array([74.0, 106.0, 92.0])
DISKS = {
    "nose": ((0.0, -0.10, 1.0), 16.0),
    "mouth": ((0.0, -0.62, 0.9), 13.0),
    "eye_left": ((0.52, 0.22, 0.8), 13.0),
    "eye_right": ((-0.52, 0.22, 0.8), 13.0),
}
RESIDUAL_MM = {"nose": (1.3, 1.1), "mouth": (1.3, 1.1), "eye_left": (1.0, 1.0), "eye_right": (1.0, 1.0)}
SUBJECTS = {"s1": "train", "s2": "train", "s3": "train", "s4": "train", "s5": "test", "s6": "test"}
EXPRESSIONS = ("neutral", "smile")
PLAN = "e" * 64


def unit_mesh() -> tuple[np.ndarray, np.ndarray]:
    """Directions [V, 3] and faces [F, 3] of a sphere that is open at the neck."""
    sphere = trimesh.creation.icosphere(subdivisions=4)
    keep = sphere.vertices[sphere.faces][:, :, 1].min(axis=1) > -0.86
    faces, used = compact(sphere.faces[keep], len(sphere.vertices))
    return np.asarray(sphere.vertices[used], dtype=np.float64), faces


def head(directions: np.ndarray, subject: int, smile: bool) -> np.ndarray:
    """Vertices [V, 3] in mm: a nose of the subject's own size, wide bumps of its own, corners of the mouth up in a smile."""
    rng = np.random.default_rng(subject)
    size = RADII * rng.uniform(0.95, 1.05, 3)
    nose = np.array([0.0, -0.12, 0.99])
    out = 1 + rng.uniform(0.16, 0.26) * np.exp(-((directions - nose) ** 2).sum(axis=1) / 0.03)
    for _ in range(5):
        centre = rng.normal(size=3)
        out += rng.uniform(-0.03, 0.03) * np.exp(
            -((directions - centre / np.linalg.norm(centre)) ** 2).sum(axis=1) / 0.4
        )
    points = directions * out[:, None] * size
    if smile:
        for side in (-1, 1):
            corner = np.array([0.28 * side, -0.5, 0.8])
            points[:, 1] += 5 * np.exp(-((directions - corner / np.linalg.norm(corner)) ** 2).sum(axis=1) / 0.01)
    return points


def landmarks(directions: np.ndarray) -> np.ndarray:
    """68 vertices in about the iBUG places."""
    turn = np.linspace(-75, 75, 17)
    wanted = [(np.sin(np.radians(a)), -0.25 - 0.6 * np.cos(np.radians(a)) ** 2, np.cos(np.radians(a))) for a in turn]
    wanted += [(x, 0.45, 0.9) for x in np.linspace(-0.7, 0.7, 10)]
    wanted += [(0, y, 1.0) for y in np.linspace(0.2, -0.1, 4)] + [(x, -0.25, 1.0) for x in np.linspace(-0.15, 0.15, 5)]
    for side in (-1, 1):
        ring = [(-0.16, 0), (-0.06, 0.06), (0.06, 0.06), (0.16, 0), (0.06, -0.06), (-0.06, -0.06)]
        wanted += [(0.45 * side + x, 0.2 + y, 0.85) for x, y in ring]
    wanted += [(0.28 * np.cos(a), -0.6 + 0.08 * np.sin(a), 0.9) for a in np.linspace(np.pi, -np.pi, 20, endpoint=False)]
    rays = np.array(wanted) / np.linalg.norm(wanted, axis=1, keepdims=True)
    return np.argmax(rays @ directions.T, axis=1)


def region_map(directions: np.ndarray, faces: np.ndarray) -> RegionMap:
    disks = {}
    for name, (centre, degrees) in DISKS.items():
        axis = np.array(centre) / np.linalg.norm(centre)
        inside = (directions[faces].mean(axis=1) @ axis) > np.cos(np.radians(degrees))
        loop = boundary_loops(faces[inside])[0]
        disks[name] = Disk(loop, np.setdiff1d(np.unique(faces[inside]), loop), (), RESIDUAL_MM[name])
    like = load_region_map("synthetic").region_set("eyes").regions
    regions = {
        part: Region(region.landmarks, (), {name: disks[name] for name in region.disks})
        for part, region in like.items()
    }
    return RegionMap(
        name="egg",
        vertex_count=len(directions),
        face_count=len(faces),
        faces_sha256=faces_sha256(faces),
        mm_per_unit=1.0,
        landmarks68=landmarks(directions),
        regions={"eyes": RegionSet("eyes", regions)},
        groups={"skin": Group(((0, len(directions)),), "surface")},
        openings={"neck": boundary_loops(faces)[0]},
    )


def write_heads(folder: Path) -> None:
    """A dataset of heads: six subjects, two expressions, and one head that was rejected."""
    directions, faces = unit_mesh()
    meaning = region_map(directions, faces)
    topology = {"name": "egg", "vertex_count": len(directions), "faces_sha256": meaning.faces_sha256}
    schema = DatasetSchema(
        "heads", topology, 1.0, "test", heads_fields(), dict.fromkeys(("subject", "expression", "split"), "string")
    )
    items = []
    for number, (subject, split) in enumerate(SUBJECTS.items()):
        for order, expression in enumerate(EXPRESSIONS):
            vertices = head(directions, number, expression == "smile").astype(np.float32)
            fields = {"vertices": vertices, "landmarks": vertices[meaning.landmarks68]}
            items.append(
                ShardItem(
                    f"{subject}_e{order:02d}", fields, {"subject": subject, "expression": expression, "split": split}
                )
            )
    refused = RejectedItem(
        "s6_e09", "the mesh holds <NaN> coordinates", {"subject": "s6", "expression": "frown", "split": "test"}
    )
    shard = shard_name(0, 1)
    write_shared(folder, {"faces": faces.astype(np.int32)})
    write_region_map(folder, meaning.to_json())
    write_shard(folder, shard, items, [refused], schema, PLAN)
    finish_dataset(folder, schema, {shard: [*(item.key for item in items), refused.key]}, PLAN)
