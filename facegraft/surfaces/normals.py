"""Normals, areas and volume of a triangle mesh: vertices [V, 3], faces [F, 3], counter-clockwise seen from outside."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from facegraft.arrays import Floats
from facegraft.lazily import lazy_import


def face_cross(vertices: ArrayLike, faces: ArrayLike) -> Floats:
    """Cross product [F, 3] of two edges of every face: its normal times twice its area."""
    corners = np.asarray(vertices, dtype=np.float64)[np.asarray(faces)]
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def face_areas(vertices: ArrayLike, faces: ArrayLike) -> Floats:
    """Area [F] of every face, in squared units of the vertices."""
    return 0.5 * np.linalg.norm(face_cross(vertices, faces), axis=1)


def face_normals(vertices: ArrayLike, faces: ArrayLike) -> Floats:
    """Unit normals [F, 3]; a face without area gets the zero vector."""
    cross = face_cross(vertices, faces)
    length = np.linalg.norm(cross, axis=1, keepdims=True)
    return np.divide(cross, length, out=np.zeros_like(cross), where=length > 0)


def vertex_normals(vertices: ArrayLike, faces: ArrayLike) -> Floats:
    """Area-weighted unit normals [V, 3]; zero where a vertex has no face with area."""
    v = np.asarray(vertices, dtype=np.float64)
    f = np.asarray(faces)
    cross = face_cross(v, f)
    rows = f.ravel()
    incidence = lazy_import("scipy.sparse").csr_matrix(
        (np.ones(len(rows)), (rows, np.repeat(np.arange(len(f)), 3))), shape=(len(v), len(f))
    )
    total = incidence @ cross
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.divide(total, length, out=np.zeros_like(total), where=length > 0)


def signed_volume(vertices: ArrayLike, faces: ArrayLike) -> float:
    """Volume enclosed by a closed mesh, positive when its normals point outward (divergence theorem)."""
    corners = np.asarray(vertices, dtype=np.float64)[np.asarray(faces)]
    return float(np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6.0)
