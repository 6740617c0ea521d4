"""Samples of heads that are spheres: every distance and every stage of the morph is known, and a tiny model learns them in seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import trimesh
from toy_parts import EYES

from facegraft.parts import Parts
from facegraft.store import (
    OPTIONAL_SETS,
    DatasetSchema,
    ShardItem,
    finish_dataset,
    samples_fields,
    shard_name,
    surfaces_fields,
    write_shard,
    write_shared,
)

COLUMNS = dict.fromkeys(("subject", "expression", "split", *EYES.head_columns, "origin"), "string")


def scan(subject: str, expression: str, split: str) -> dict[str, object]:
    people = dict.fromkeys(("subject", "recipient", "donor_nose", "donor_eyes", "donor_mouth"), subject)
    return {**people, "expression": expression, "split": split, "origin": "scan"}


def composite(recipient: str, nose: str, eyes: str, mouth: str, split: str) -> dict[str, object]:
    donors = {"donor_nose": nose, "donor_eyes": eyes, "donor_mouth": mouth}
    return {
        "subject": recipient,
        "recipient": recipient,
        **donors,
        "expression": "neutral",
        "split": split,
        "origin": "composite",
    }


RADII = {"anna": 0.5, "bert": 0.5, "cleo": 0.6, "dave": 0.6, "eve": 0.55}
TEMPLATE_RADIUS = 0.55
SMILE = 1.05
"""A smile makes a sphere this much larger."""
SPHERE_ROWS = {
    **{
        f"{name}_{expression}": scan(name, expression, "test" if name == "eve" else "train")
        for name in RADII
        for expression in ("neutral", "smile")
    },
    # Donors of the same radius: the composite of two equal spheres is that sphere.
    "anna-bert": composite("anna", "bert", "bert", "bert", "train"),
    "cleo-dave": composite("cleo", "dave", "dave", "dave", "train"),
}


def direction(azimuth: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    """Unit vectors [n,3]; the face looks along +z, y is up."""
    return np.stack(
        [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)], axis=-1
    )


def landmark_directions() -> np.ndarray:
    """Sixty-eight directions laid out like the landmarks of a face."""
    jaw = np.linspace(-1, 1, 17)
    turn = np.linspace(0, 2 * np.pi, 6, endpoint=False)
    lips = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    azimuth = [jaw, np.linspace(-0.6, 0.6, 10), np.zeros(4), np.linspace(-0.2, 0.2, 5)]
    elevation = [0.9 * jaw**2 - 0.9, np.full(10, 0.6), np.linspace(0.4, 0.0, 4), np.full(5, -0.1)]
    azimuth += [0.12 * np.cos(turn) - 0.4, 0.12 * np.cos(turn) + 0.4, 0.3 * np.cos(lips)]
    elevation += [0.12 * np.sin(turn) + 0.35, 0.12 * np.sin(turn) + 0.35, 0.12 * np.sin(lips) - 0.45]
    return direction(np.concatenate(azimuth), np.concatenate(elevation))


CAPS = ((3, 0.0, -0.45, 0.93), (2, -0.4, 0.35, 0.96), (2, 0.4, 0.35, 0.96), (1, 0.0, 0.1, 0.95))
"""Mouth, eyes and nose: label, azimuth, elevation, cosine of the half angle; a later one lies over those before."""


def caps(parts: Parts) -> tuple[tuple[int, float, float, float], ...]:
    """The caps of three parts as above, whatever they are called; of any other number, in a zigzag from the left to the right."""
    if len(parts) == len(EYES):
        return CAPS
    azimuths = np.linspace(-1.2, 1.2, len(parts)) if len(parts) > 1 else np.zeros(1)
    return tuple((i + 1, float(azimuth), 0.4 * (-1) ** i, 0.96) for i, azimuth in enumerate(azimuths))


def part_of(directions: np.ndarray, among: Parts = EYES) -> np.ndarray:
    """Part labels u8 [n] of directions: caps around the parts."""
    parts = np.zeros(len(directions), np.uint8)
    for label, azimuth, elevation, cosine in caps(among):
        parts[directions @ direction(np.array(azimuth), np.array(elevation)) > cosine] = label
    return parts


def stage_directions(count: int, among: Parts = EYES) -> np.ndarray:
    """Directions [count,3] of the registered points: half of them on the parts, half anywhere."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((count, 3))
    centres = np.stack([direction(np.array(azimuth), np.array(elevation)) for _, azimuth, elevation, _ in caps(among)])
    vectors[::2] = centres[np.arange(len(vectors[::2])) % len(centres)] + 0.12 * vectors[::2]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def sphere(
    row: dict[str, object],
    radii: dict[str, float],
    sizes: dict[str, int],
    stages: int | None,
    points: int,
    parts: Parts = EYES,
) -> dict[str, np.ndarray]:
    """The arrays of a head that is a sphere around the origin: every distance and every stage of the morph is known exactly."""
    neutral = radii[str(row["subject"])]
    radius = neutral * (SMILE if row["expression"] == "smile" else 1.0)
    # Expressions of a subject get points of their own; bytes of the key make the same numbers on every machine.
    rng = np.random.default_rng(list(f"{row['subject']}/{row['expression']}/{row['donor_nose']}".encode()))

    def unit(count: int) -> np.ndarray:
        vectors = rng.standard_normal((count, 3))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    arrays: dict[str, np.ndarray] = {}
    distances = {
        "surface": np.zeros(sizes["surface"]),
        "near": rng.normal(0.0, 0.03, sizes["near"]),
        "free": rng.uniform(0.05, 1.0, sizes["free"]) ** (1 / 3) - radius,
    }
    wider = {name: rng.normal(0.0, 0.06, sizes[name]) for name in OPTIONAL_SETS if name in sizes}
    for name, distance in {**distances, **wider}.items():
        u = unit(len(distance))
        arrays[f"{name}_points"] = ((radius + distance)[:, None] * u).astype(np.float32)
        arrays[f"{name}_normals"] = u.astype(np.float32)
        if name != "surface":
            arrays[f"{name}_sdf"] = distance.astype(np.float32)
        if name != "free":
            arrays[f"{name}_parts"] = part_of(u, parts)
    for name, u in (("landmarks", landmark_directions()), ("stage_points", stage_directions(points, parts))):
        part = part_of(u, parts)
        # After stage 1 the parts become the template's one by one, then everything.
        last = len(parts.stages) - 1
        swapped = [np.isin(part, range(1, stage)) | (stage == last) for stage in range(1, last + 1)]
        radius_at = [np.full(len(u), radius), *(np.where(done, TEMPLATE_RADIUS, neutral) for done in swapped)]
        arrays[name] = np.stack([r[:, None] * u for r in radius_at[:stages]]).astype(np.float32)
    arrays["to_mm"] = np.diag([100.0, 100.0, 100.0, 1.0])
    return arrays


def renamed(row: Mapping[str, object], parts: Parts) -> dict[str, object]:
    """A row of `scan` or `composite` with other parts, which take turns with the donors of the three."""
    three = list(EYES.donor_columns.values())
    donors = {column: row[three[i % 3]] for i, column in enumerate(parts.donor_columns.values())}
    before = {column: row[column] for column in ("subject", "expression", "split", "recipient") if column in row}
    return {**before, **donors, **{column: row[column] for column in row if column not in before and column not in three}}


def template_mesh(among: Parts = EYES) -> dict[str, np.ndarray]:
    """The template's mesh as samples share it: a ball of 642 vertices, which are every second vertex of an imagined topology. It is
    closed; so its caps are none."""
    ball = trimesh.creation.icosphere(subdivisions=3)
    unit = np.asarray(ball.vertices)
    return {
        "template_vertices": (TEMPLATE_RADIUS * unit).astype(np.float32),
        "template_faces": np.asarray(ball.faces, dtype=np.int32),
        "template_parts": part_of(unit, among),
        "template_ids": 2 * np.arange(len(unit), dtype=np.int32) + 1,
        "template_cap_vertices": np.zeros((0, 3), dtype=np.float32),
        "template_cap_faces": np.zeros((0, 3), dtype=np.int32),
    }


def write_spheres(
    folder: Path,
    *,
    radii: dict[str, float] | None = None,
    rows: dict[str, dict[str, object]] | None = None,
    stages: int | None = None,
    points: int = 120,
    sizes: dict[str, int] | None = None,
    mm_per_unit: float = 100.0,
    topology: str = "sphere",
    change: Callable[[str, dict[str, np.ndarray]], None] | None = None,
    parts: Parts = EYES,
    mesh: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write FOLDER, samples of spheres with the morph to the template; `change(key, arrays)` may spoil an item before it is written.

    rows: of `scan` and `composite`, by key; parts: as many as there shall be; stages: only so many of theirs; mesh: what they share of the
    template's mesh, by default all of `template_mesh`.
    """
    rows = SPHERE_ROWS if rows is None else rows
    facts = {"name": topology, "vertex_count": None, "faces_sha256": None}
    columns = dict.fromkeys(renamed(COLUMNS, parts), "string")
    schema = DatasetSchema("samples", facts, mm_per_unit, "unit ball", samples_fields(parts, sizes or ()), columns, parts)
    items = []
    for key, row in sorted(rows.items()):
        arrays = sphere(row, radii or RADII, sizes or {"surface": 600, "near": 300, "free": 200}, stages, points, parts)
        if change is not None:
            change(key, arrays)
        items.append(ShardItem(key, arrays, renamed(row, parts)))
    plan = {shard_name(0, 1): sorted(rows)}
    write_shard(folder, shard_name(0, 1), items, [], schema, "c" * 64)
    mesh = template_mesh(parts) if mesh is None else mesh
    # The stage points are vertices between those of the mesh.
    numbers = 2 * np.arange(points, dtype=np.int32)
    write_shared(folder, {"stage_vertices": numbers, "stage_parts": part_of(stage_directions(points, parts), parts), **mesh})
    finish_dataset(folder, schema, plan, "c" * 64)
    return folder


def write_sphere_surfaces(
    folder: Path, *, rows: dict[str, dict[str, object]] | None = None, parts: Parts = EYES
) -> Path:
    """Write FOLDER, the surfaces of the same spheres, so that fits of `write_spheres` can be scored against them."""
    ball = trimesh.creation.icosphere(subdivisions=4)
    unit, faces = np.asarray(ball.vertices), np.asarray(ball.faces, dtype=np.int32)
    rows = SPHERE_ROWS if rows is None else rows
    facts = {"name": "sphere", "vertex_count": None, "faces_sha256": None}
    columns = dict.fromkeys(renamed(COLUMNS, parts), "string")
    schema = DatasetSchema("surfaces", facts, 100.0, "unit ball", surfaces_fields(parts), columns, parts)
    items = []
    for key, row in sorted(rows.items()):
        arrays = sphere(row, RADII, {"surface": 1, "near": 1, "free": 1}, None, 120, parts)
        radius = RADII[str(row["subject"])] * (SMILE if row["expression"] == "smile" else 1.0)
        own = {
            "vertices": (radius * unit).astype(np.float32),
            "faces": faces,
            "vertex_parts": part_of(unit, parts),
            "face_cut": np.zeros(len(faces), np.uint8),
        }
        shared = {name: arrays[name] for name in ("landmarks", "stage_points", "to_mm")}
        items.append(ShardItem(key, own | shared, renamed(row, parts)))
    write_shard(folder, shard_name(0, 1), items, [], schema, "c" * 64)
    finish_dataset(folder, schema, {shard_name(0, 1): sorted(rows)}, "c" * 64)
    return folder
