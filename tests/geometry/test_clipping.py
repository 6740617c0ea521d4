"""Cutting with a ball: the frontal solid and the open crop."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import trimesh

from facegraft.geometry.clipping import BallClipper, ClippedSolid, ClippingError, crop_to_ball, icosphere
from facegraft.surfaces.nearest import nearest_on_surface
from facegraft.surfaces.normals import face_areas, signed_volume
from facegraft.surfaces.topology import boundary_loops, euler_characteristic, face_components, is_watertight

_BOX = trimesh.creation.box((2.0, 2.0, 2.0))
CUBE, CUBE_FACES = np.asarray(_BOX.vertices), np.asarray(_BOX.faces)


def assert_solid(solid: ClippedSolid) -> None:
    assert is_watertight(solid.faces)
    assert euler_characteristic(solid.faces) == 2
    assert face_components(solid.faces).max() == 0
    assert signed_volume(solid.vertices, solid.faces) > 0


def longest_edge(vertices, faces) -> float:
    corners = vertices[faces]
    return float(np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max())


@pytest.mark.parametrize("level", [0, 1, 3])
def test_icosphere(level: int) -> None:
    vertices, faces = icosphere(level)
    assert len(faces) == 20 * 4**level and is_watertight(faces) and euler_characteristic(faces) == 2
    np.testing.assert_allclose(np.linalg.norm(vertices, axis=1), 1.0)
    assert signed_volume(vertices, faces) == pytest.approx(4.18879, rel=0.4 if level == 0 else 0.15)


def test_cube_and_ball() -> None:
    """Volume of cube ∩ ball against its closed form (a cube of half side 1 whose faces cut six caps off the ball)."""
    radius, height = 1.2, 0.2
    exact = 4 / 3 * np.pi * radius**3 - 6 * np.pi * height**2 * (3 * radius - height) / 3
    solid = BallClipper(radius).clip(CUBE, CUBE_FACES, np.ones(8, dtype=np.uint8))
    assert_solid(solid)
    assert signed_volume(solid.vertices, solid.faces) == pytest.approx(exact, rel=1e-3)
    assert (solid.source == -1).all() and (solid.vertex_labels == 0).all()  # the corners are outside the ball
    on_cube = np.abs(np.abs(solid.vertices[solid.faces]).max(axis=2) - 1.0).max(axis=1) < 1e-9
    assert (on_cube[solid.face_source >= 0]).all()


def test_all_of_the_skin_inside_the_ball_is_kept_exactly(closed_globe) -> None:
    head = closed_globe
    solid = BallClipper(80.0).clip(head.vertices, head.faces, head.vertex_labels)
    assert_solid(solid)
    kept = solid.source >= 0
    np.testing.assert_array_equal(solid.vertices[kept], head.vertices[solid.source[kept]])
    np.testing.assert_array_equal(solid.vertex_labels[kept], head.vertex_labels[solid.source[kept]])
    assert (solid.vertex_labels[~kept] == 0).all()
    inside = np.flatnonzero(np.linalg.norm(head.vertices, axis=1) <= 80.0)
    assert set(inside.tolist()) <= set(solid.source.tolist())
    ball = solid.face_source < 0
    assert np.abs(np.linalg.norm(solid.vertices[solid.faces[ball]], axis=2) - 80.0).max() < 80.0 * 3e-4


EXPRESSIONS = [{}, {"jawOpen": 1.0}, {"mouthPucker": 1.0}]


@pytest.mark.slow
def test_ict_frontal_solids_meet_the_thresholds(ict) -> None:
    """No edge without two faces, skin within 0.1 mm of the input, no skin edge longer than 1.5 times the input's longest."""
    clipper = BallClipper(100.0)
    rng = np.random.default_rng(11)
    for expression in EXPRESSIONS:
        head = ict.closed(rng, **expression)
        solid = clipper.clip(head.vertices, head.faces, head.vertex_labels)
        assert_solid(solid)
        skin = solid.faces[solid.face_source >= 0]
        middles = solid.vertices[skin].mean(axis=1)
        away, _, _ = nearest_on_surface(
            head.vertices, head.faces, np.concatenate([solid.vertices[np.unique(skin)], middles])
        )
        assert away.max() < 1e-9
        assert longest_edge(solid.vertices, skin) <= 1.5 * longest_edge(head.vertices, head.faces)
        inside = np.flatnonzero(np.linalg.norm(head.vertices, axis=1) <= 100.0)
        assert set(inside.tolist()) <= set(solid.source.tolist())
        assert {1, 2, 3} <= set(solid.vertex_labels.tolist())


SCRIPT = """
import hashlib, numpy as np
from facegraft.geometry.clipping import BallClipper, icosphere
vertices, faces = icosphere(5)
vertices = vertices * [75.0, 110.0, 95.0] + 0.3 * np.random.default_rng(0).standard_normal(vertices.shape) + [0.0, 0.0, -50.0]
solid = BallClipper(100.0).clip(vertices, faces, np.zeros(len(vertices), dtype=np.uint8))
print(hashlib.sha256(solid.vertices.tobytes() + solid.faces.tobytes() + solid.face_source.tobytes()).hexdigest())
"""


def test_same_bytes_in_every_process_and_on_any_number_of_cores() -> None:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    digests = set()
    for chosen in (cores, cores[:1]):
        bind = f"import os; os.sched_setaffinity(0, {chosen})\n" if hasattr(os, "sched_setaffinity") else ""
        run = subprocess.run(
            [sys.executable, "-c", bind + SCRIPT], capture_output=True, text=True, check=True, timeout=600
        )
        digests.add(run.stdout.strip())
    assert len(digests) == 1


def test_repeated_clips_are_identical(closed_globe) -> None:
    clipper = BallClipper(80.0)
    digests = set()
    for _ in range(3):
        solid = clipper.clip(closed_globe.vertices, closed_globe.faces, closed_globe.vertex_labels)
        digests.add(hashlib.sha256(solid.vertices.tobytes() + solid.faces.tobytes()).hexdigest())
    assert len(digests) == 1


def test_what_cannot_be_clipped() -> None:
    labels = np.zeros(8, dtype=np.uint8)
    clipper = BallClipper(1.0)
    with pytest.raises(ClippingError, match="no part of the head"):
        clipper.clip(CUBE + 10.0, CUBE_FACES, labels)
    with pytest.raises(ClippingError, match="not a closed manifold"):
        clipper.clip(CUBE, CUBE_FACES[:-1], labels)
    with pytest.raises(ClippingError, match="not finite"):
        clipper.clip(np.where(CUBE > 0, np.nan, CUBE), CUBE_FACES, labels)
    with pytest.raises(ClippingError, match="positive"):
        BallClipper(0.0)
    two = np.concatenate([CUBE * 0.2 + [0.5, 0.0, 0.0], CUBE * 0.2 - [0.5, 0.0, 0.0]])
    with pytest.raises(ClippingError, match="into 2 pieces; 50%"):
        clipper.clip(two, np.concatenate([CUBE_FACES, CUBE_FACES + 8]), np.zeros(16, dtype=np.uint8))


def test_small_strays_are_dropped() -> None:
    two = np.concatenate([CUBE * 0.4, CUBE * 0.05 + [0.7, 0.0, 0.0]])
    solid = BallClipper(1.0).clip(two, np.concatenate([CUBE_FACES, CUBE_FACES + 8]), np.arange(16) % 4)
    assert_solid(solid)
    np.testing.assert_array_equal(np.sort(solid.source), np.arange(8))
    np.testing.assert_array_equal(solid.vertex_labels, solid.source % 4)


def test_a_torus_is_no_simple_solid() -> None:
    u, w = np.meshgrid(np.arange(24), np.arange(12), indexing="ij")
    a, b = 2 * np.pi * u / 24, 2 * np.pi * w / 12
    vertices = np.stack(
        [(0.5 + 0.2 * np.cos(b)) * np.cos(a), (0.5 + 0.2 * np.cos(b)) * np.sin(a), 0.2 * np.sin(b)], axis=-1
    ).reshape(-1, 3)

    def at(i, j):
        return (i % 24) * 12 + j % 12

    corner = [at(u, w), at(u + 1, w), at(u + 1, w + 1), at(u, w + 1)]
    faces = np.concatenate([np.stack([corner[i] for i in t], axis=-1).reshape(-1, 3) for t in ((0, 1, 2), (0, 2, 3))])
    with pytest.raises(ClippingError, match="Euler characteristic 0"):
        BallClipper(1.0).clip(vertices, faces, np.zeros(len(vertices), dtype=np.uint8))


def test_crop_of_a_plane_is_a_disk() -> None:
    n = 60
    x, y = np.meshgrid(np.linspace(-1.5, 1.5, n), np.linspace(-1.5, 1.5, n), indexing="ij")
    vertices = np.column_stack([x.ravel(), y.ravel(), np.full(n * n, 0.3)])
    at = np.arange(n * n).reshape(n, n)
    a, b, c, d = at[:-1, :-1].ravel(), at[1:, :-1].ravel(), at[1:, 1:].ravel(), at[:-1, 1:].ravel()
    faces = np.concatenate([np.column_stack([a, b, c]), np.column_stack([a, c, d])])
    cropped = crop_to_ball(vertices, faces, np.ones(n * n, dtype=np.uint8), 1.0)
    disk = np.pi * (1 - 0.09)
    areas = face_areas(cropped.vertices, cropped.faces)
    assert areas.sum() == pytest.approx(disk, rel=2e-3)
    (rim,) = boundary_loops(cropped.faces)
    np.testing.assert_allclose(np.linalg.norm(cropped.vertices[rim], axis=1), 1.0, atol=1e-12)
    assert euler_characteristic(cropped.faces) == 1
    assert len(np.unique(cropped.vertices, axis=0)) == len(cropped.vertices)  # every cut vertex once
    kept = cropped.source >= 0
    np.testing.assert_array_equal(cropped.vertices[kept], vertices[cropped.source[kept]])
    assert (cropped.vertex_labels[kept] == 1).all() and (cropped.vertex_labels[~kept] == 0).all()
    normal = np.cross(*(cropped.vertices[cropped.faces[:, i]] - cropped.vertices[cropped.faces[:, 0]] for i in (1, 2)))
    assert (normal[:, 2] >= 0).all()
    with pytest.raises(ClippingError, match="no part of the surface"):
        crop_to_ball(vertices + 5.0, faces, np.zeros(n * n), 1.0)
