"""Barycentric coordinates of points on triangles."""

from __future__ import annotations

import numpy as np

from facegraft.arrays import Floats


def barycentric(points: Floats, triangles: Floats) -> Floats:
    """Barycentric coordinates [n,3], in [0, 1] with sum 1, of points [n,3] that lie on triangles [n,3,3].

    A triangle that the warp has collapsed to a line has no unique coordinates: those along its longest edge are returned.
    """
    u, v, w = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0], points - triangles[:, 0]
    uu, uv, vv = np.einsum("nj,nj->n", u, u), np.einsum("nj,nj->n", u, v), np.einsum("nj,nj->n", v, v)
    wu, wv = np.einsum("nj,nj->n", w, u), np.einsum("nj,nj->n", w, v)
    twice_area = uu * vv - uv * uv  # squared
    flat = twice_area <= 1e-12 * np.maximum(uu, vv) ** 2
    safe = np.where(flat, 1.0, twice_area)
    second, third = (vv * wu - uv * wv) / safe, (uu * wv - uv * wu) / safe
    weights = np.clip(np.stack([1 - second - third, second, third], axis=1), 0.0, 1.0)
    weights /= weights.sum(axis=1, keepdims=True)
    for n in np.flatnonzero(flat):
        weights[n] = _along_longest_edge(points[n], triangles[n])
    return weights


def _along_longest_edge(point: Floats, triangle: Floats) -> Floats:
    edges = np.roll(triangle, -1, axis=0) - triangle
    lengths = np.einsum("ij,ij->i", edges, edges)
    k = int(lengths.argmax())
    along = float(np.clip((point - triangle[k]) @ edges[k] / lengths[k], 0.0, 1.0)) if lengths[k] > 0 else 0.0
    weights = np.zeros(3)
    weights[k], weights[(k + 1) % 3] = 1 - along, along
    return weights
