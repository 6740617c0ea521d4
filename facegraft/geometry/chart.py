"""A flat chart of the face: the cylinder about the head's vertical axis, unrolled.

Outlines are drawn in the chart as plane curves. A vertex belongs to the outer skin if the ray from it, away from the
axis, meets no face: lid folds, nostrils and the inside of the mouth are not in the chart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from facegraft.arrays import Bools, Floats
from facegraft.surfaces.normals import vertex_normals


@dataclass(frozen=True)
class CylinderChart:
    """Cylinder about the vertical line (x = 0, z = axis_z); `radius` sets the lateral scale of the chart."""

    axis_z: float
    radius: float

    def flatten(self, points: ArrayLike) -> Floats:
        """Chart coordinates [N, 2]: (radius · angle from the +z direction toward +x, height y), in the points' unit."""
        p = np.asarray(points, dtype=np.float64)
        return np.column_stack([self.radius * np.arctan2(p[..., 0], p[..., 2] - self.axis_z), p[..., 1]])

    def distance(self, points: ArrayLike) -> Floats:
        """Distance [N] from the axis."""
        p = np.asarray(points, dtype=np.float64)
        return np.hypot(p[..., 0], p[..., 2] - self.axis_z)

    def outward(self, points: ArrayLike) -> Floats:
        """Unit vectors [N, 3] away from the axis."""
        p = np.asarray(points, dtype=np.float64)
        out = np.column_stack([p[:, 0], np.zeros(len(p)), p[:, 2] - self.axis_z])
        return np.asarray(out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12))


def outer_skin(
    vertices: ArrayLike, faces: ArrayLike, chart: CylinderChart, candidates: ArrayLike, facing: float = 0.05
) -> Bools:
    """Mask [N] of the candidate vertices [N] that lie on the outer skin.

    A vertex does when its normal points away from the axis (cosine above `facing`) and no face lies in front of it.
    The test runs in the chart: a face lies in front if it covers the vertex's (u, v) at a greater radius.
    Exact up to the chord-versus-arc difference within one face.
    """
    v = np.asarray(vertices, dtype=np.float64)
    f = np.asarray(faces, dtype=np.int64)
    index = np.asarray(candidates, dtype=np.int64)
    normal = vertex_normals(v, f)[index]
    visible = np.einsum("ij,ij->i", normal, chart.outward(v[index])) > facing
    flat, depth = chart.flatten(v), chart.distance(v)
    corners = flat[f]
    low, high = corners.min(axis=1), corners.max(axis=1)
    whole = high[:, 0] - low[:, 0] < np.pi * chart.radius  # a face across the chart's seam (the back) covers nothing
    span = depth[f].max(axis=1)
    edge = float(np.median(np.linalg.norm(v[f[:, 0]] - v[f[:, 1]], axis=1)))
    for block in np.array_split(np.flatnonzero(visible), max(1, len(index) // 256)):
        if not len(block):
            continue
        p, r = flat[index[block]], depth[index[block]]
        near = np.flatnonzero(
            whole & (high >= p.min(axis=0)).all(axis=1) & (low <= p.max(axis=0)).all(axis=1) & (span > r.min())
        )
        inside = ((low[near, None] <= p) & (high[near, None] >= p)).all(axis=2) & (span[near, None] > r + 1e-6 * edge)
        which_face, which_point = np.nonzero(inside)
        triangle = f[near[which_face]]
        weight = _barycentric(flat[triangle], p[which_point])
        own = (triangle == index[block][which_point][:, None]).any(axis=1)
        in_front = (weight * depth[triangle]).sum(axis=1) > r[which_point] + 0.05 * edge
        blocked = which_point[(weight >= -1e-9).all(axis=1) & in_front & ~own]
        visible[block[np.unique(blocked)]] = False
    return visible


def _barycentric(triangles: Floats, points: Floats) -> Floats:
    """Barycentric coordinates [N, 3] of plane points in their triangles [N, 3, 2]; -1 in a triangle without area."""
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    e, g, d = b - a, c - a, points - a
    det = e[:, 0] * g[:, 1] - e[:, 1] * g[:, 0]
    safe = np.where(np.abs(det) > 1e-15, det, 1.0)
    w1 = (d[:, 0] * g[:, 1] - d[:, 1] * g[:, 0]) / safe
    w2 = (e[:, 0] * d[:, 1] - e[:, 1] * d[:, 0]) / safe
    weight = np.column_stack([1 - w1 - w2, w1, w2])
    weight[np.abs(det) <= 1e-15] = -1.0
    return weight
