"""Quads are split by the shorter diagonal, alike on both sides."""

from __future__ import annotations

import gzip

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from facegraft.geometry.symmetry import mirror_map
from facegraft.meshfiles.obj import parse_obj
from facegraft.surfaces.triangulate import triangulate


def as_set(faces):
    return {frozenset(f) for f in np.asarray(faces).tolist()}


def test_the_shorter_diagonal_in_the_order_of_the_polygons():
    vertices = np.array([[0, 0, 0], [2, 0, 0], [3, 2, 0], [0, 1, 0], [5, 5, 5]], dtype=float)
    polygons = [[0, 1, 2, 3], [4, 1, 0, -1], [1, 2, 3, 0]]
    assert triangulate(polygons, vertices).tolist() == [[0, 1, 3], [1, 2, 3], [4, 1, 0], [1, 2, 3], [1, 3, 0]]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), turn=st.integers(0, 3))
def test_a_lopsided_head_is_split_symmetrically(toy, seed, turn):
    rng = np.random.default_rng(seed)
    vertices = toy.vertices() + rng.normal(scale=6, size=(81, 3)).round(
        0
    )  # round numbers, so that equal diagonals occur
    polygons, symmetry = toy.polygons().copy(), toy.symmetry()
    quads = polygons[:, 3] >= 0
    polygons[quads] = np.where(
        rng.random(quads.sum())[:, None] < 0.5, np.roll(polygons[quads], turn, axis=1), polygons[quads]
    )
    polygons = polygons[2:]  # the first quad is given as two triangles, its mirror image is not
    polygons = polygons[~(np.sort(polygons, axis=1) == np.sort([7, 8, 17, 16])).all(axis=1)]
    faces = triangulate(polygons, vertices, symmetry)
    assert as_set(symmetry[faces]) == as_set(faces)


def test_ict_triangles_are_the_known_ones(data_dir):
    model = np.load(data_dir / "ict" / "ict_facekit_light.npz")
    text = gzip.decompress((data_dir / "ict" / "mesh_without_vertices.obj.gz").read_bytes())
    lines = "".join(f"v {x:.9g} {y:.9g} {z:.9g}\n" for x, y, z in model["neutral"].astype(float))
    mesh = parse_obj(lines.encode() + text, "ict")
    assert np.array_equal(mesh.polygons, model["quads"])
    assert np.array_equal(
        triangulate(mesh.polygons, mesh.vertices, mirror_map(mesh.vertices, model["faces"])), model["faces"]
    )
