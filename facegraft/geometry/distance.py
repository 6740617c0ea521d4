"""Signed distance to a surface, with its gradient, behind one interface: `signed_distance(vertices, faces, points, backend)`.

Backends
- `winding` (default): exact distance to the triangles by libigl's AABB tree; negative where the winding number of the
  closed mesh exceeds 1/2 (Jacobson et al. 2013). Fast winding numbers (Barill et al. 2018) decide the clear cases; points
  where they are not clear, or so near the surface that their single precision cannot be trusted, get exact ones. libigl's own
  `signed_distance` is not used: with winding numbers it returns (1 - 2|w|) d, which is not a distance wherever w is not 0 or 1.
- `height_field`: ImFace's sign for an open sheet that is a height field over x, y (`visibility.visible_sheet`): positive
  where the point lies in front (+z) of its nearest point, negative behind it; gradients have z >= 0.
- `mesh-to-sdf`: the published pipelines' estimate from a cloud of sampled points and a vote of their normals, for
  comparison. It is approximate and gets signs wrong; needs `pip install facegraft[paper]`.

Lengths are in the unit of the vertices; signs are negative inside.

Threads: libigl starts its own, one per core; results do not depend on their number. To use one thread set
IGL_NUM_THREADS=1 in the environment before libigl is first used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import igl
import numpy as np
from numpy.typing import ArrayLike, NDArray

from facegraft.errors import FacegraftError
from facegraft.geometry.sampling import sample_surface
from facegraft.geometry.topology import face_cross, open_edge_count, signed_volume

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

CLEAR_WINDING = 0.1
"""A fast winding number this close to 0 or 1 is taken at its word: its error was at most 0.004 on closed heads."""

NEAR = 1e-6
"""Points nearer to the surface than this share of its size get an exact winding number: the fast ones are computed in float32,
and go wrong below about 1e-8 of the size."""

TOUCHING = 1e-9
"""Points nearer to the surface than this share of its size have no direction of their own: their gradient is the face normal."""


class DistanceError(FacegraftError):
    """A mesh or points for which a signed distance is not defined, or a backend that is not there."""


@dataclass(frozen=True)
class SignedDistance:
    """Signed distances of n points to a surface.

    sdf             [n]    f64   negative inside
    closest_points  [n, 3] f64   nearest point of the surface
    face_index      [n]    i64   a face on which it lies
    gradient        [n, 3] f64   unit; points away from the inside
    """

    sdf: Floats
    closest_points: Floats
    face_index: Ints
    gradient: Floats


def signed_distance(
    vertices: ArrayLike, faces: ArrayLike, points: ArrayLike, backend: str = "winding"
) -> SignedDistance:
    """Signed distances of points [n, 3] to the mesh vertices [V, 3], faces [F, 3]; see the module for the backends.

    Raises DistanceError for numbers that are not finite, an unknown backend and, with `winding` and `mesh-to-sdf`, a
    mesh with open edges: the inside of an open mesh is not defined.
    """
    v = np.ascontiguousarray(vertices, dtype=np.float64)
    f = np.ascontiguousarray(faces, dtype=np.int64)
    p = np.ascontiguousarray(points, dtype=np.float64)
    if backend not in BACKENDS:
        raise DistanceError(f"unknown distance backend {backend!r}: choose one of {', '.join(BACKENDS)}")
    for name, array in (("vertices", v), ("points", p)):
        if array.ndim != 2 or array.shape[1] != 3:
            raise DistanceError(f"{name} have shape {array.shape}; (n, 3) is needed")
        if not np.isfinite(array).all():
            raise DistanceError(
                f"{int((~np.isfinite(array).all(axis=1)).sum())} of the {len(array)} {name} are not finite"
            )
    if len(f) == 0:
        raise DistanceError("the mesh has no faces")
    return BACKENDS[backend](v, f, p)


def nearest_on_surface(vertices: Floats, faces: Ints, points: Floats) -> tuple[Floats, Ints, Floats]:
    """Distance [n], face [n] and nearest point [n, 3] of the points on the mesh, all float64 and exact (libigl's AABB tree)."""
    tree = igl.AABB()
    tree.init(vertices, faces)
    order = _near_together(points)
    _, index, closest = tree.squared_distance(vertices, faces, np.ascontiguousarray(points[order]))
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    closest = np.asarray(closest)[back]
    return np.linalg.norm(points - closest, axis=1), np.asarray(index, dtype=np.int64)[back], closest


def _near_together(points: Floats) -> Ints:
    """An order of the points in which neighbours follow each other: the tree is then in the cache (a fifth to a half faster)."""
    if len(points) == 0:
        return np.empty(0, dtype=np.int64)
    low, extent = points.min(axis=0), np.ptp(points, axis=0)
    share = (points - low) / np.where(extent > 0.0, extent, 1.0)
    cells = np.minimum(16.0 * share, 15.0).astype(np.int64)
    return np.argsort(cells @ np.array([256, 16, 1]), kind="stable")


def _winding(v: Floats, f: Ints, p: Floats) -> SignedDistance:
    _refuse_open(v, f)
    distance, index, closest = nearest_on_surface(v, f, p)
    size = float(np.linalg.norm(np.ptp(v, axis=0)))
    centre = 0.5 * (v.min(axis=0) + v.max(axis=0))  # float32 inside: keep the numbers small
    winding = np.asarray(igl.fast_winding_number(v - centre, f, p - centre), dtype=np.float64)
    unclear = (distance < NEAR * size) | (np.abs(winding - np.round(winding)) > CLEAR_WINDING)
    if unclear.any():
        winding[unclear] = _exact_winding(v, f, p[unclear])
    sign = np.where(winding > 0.5, -1.0, 1.0)
    return SignedDistance(
        sign * distance, closest, index, _gradient(v, f, p, distance, index, closest, sign, TOUCHING * size)
    )


def _exact_winding(v: Floats, f: Ints, p: Floats) -> Floats:
    """Winding numbers [n] in float64: libigl's tree, or for a few points (its set-up takes as long as 30 of them) the plain
    sum of solid angles (Van Oosterom and Strackee 1983).
    """
    if len(p) > 30:
        return np.asarray(igl.winding_number(v, f, np.ascontiguousarray(p)), dtype=np.float64)
    corners = np.ascontiguousarray(v[f].transpose(1, 2, 0))  # [corner, xyz, F]
    winding = np.empty(len(p))
    for i, point in enumerate(p):
        a, b, c = corners - point[:, None]
        la, lb, lc = (np.sqrt(np.einsum("if,if->f", x, x)) for x in (a, b, c))
        ab, bc, ca = (np.einsum("if,if->f", x, y) for x, y in ((a, b), (b, c), (c, a)))
        volume = np.einsum("if,if->f", a, np.cross(b, c, axis=0))
        winding[i] = np.arctan2(volume, la * lb * lc + ab * lc + bc * la + ca * lb).sum() / (2.0 * np.pi)
    return winding


def _height_field(v: Floats, f: Ints, p: Floats) -> SignedDistance:
    distance, index, closest = nearest_on_surface(v, f, p)
    size = float(np.linalg.norm(np.ptp(v, axis=0)))
    sign = np.where(p[:, 2] < closest[:, 2], -1.0, 1.0)
    gradient = _gradient(v, f, p, distance, index, closest, sign, TOUCHING * size)
    gradient[gradient[:, 2] < 0] *= -1.0
    return SignedDistance(sign * distance, closest, index, gradient)


def _mesh_to_sdf(v: Floats, f: Ints, p: Floats) -> SignedDistance:
    """mesh_to_sdf's vote of normals (sign_method='normal') over a cloud of sampled points (as surface_point_method='sample').

    The cloud is drawn here, because the package's own is not repeatable; no OpenGL context is made, though the package
    imports one's libraries (pyrender, PyOpenGL). Nearest points and faces are exact ones, for the part labels.
    """
    _refuse_open(v, f)
    try:
        import trimesh
        from mesh_to_sdf.surface_point_cloud import SurfacePointCloud
    except ImportError as error:
        raise DistanceError(
            f"the backend mesh-to-sdf is not installed ({error}): pip install 'facegraft[paper]'"
        ) from error
    drawn = sample_surface(v, f, MESH_TO_SDF_CLOUD, np.random.default_rng(0))
    cloud = SurfacePointCloud(trimesh.Trimesh(v, f, process=False), points=drawn.points, normals=drawn.normals)
    sdf, gradient = cloud.get_sdf_in_batches(p, return_gradients=True)
    _, index, closest = nearest_on_surface(v, f, p)
    return SignedDistance(np.asarray(sdf, dtype=np.float64), closest, index, np.asarray(gradient, dtype=np.float64))


MESH_TO_SDF_CLOUD = 1_000_000
"""Points of the cloud that the mesh-to-sdf backend votes with (the package's own default of 10 million takes minutes and GBs)."""

BACKENDS: dict[str, Callable[[Floats, Ints, Floats], SignedDistance]] = {
    "winding": _winding,
    "height_field": _height_field,
    "mesh-to-sdf": _mesh_to_sdf,
}


def _refuse_open(vertices: Floats, faces: Ints) -> None:
    count = open_edge_count(faces)
    if count:
        raise DistanceError(
            f"the mesh has {count} open (or multiply used) edges, so it has no inside: close it first (facegraft clean)"
        )
    volume = signed_volume(vertices, faces)
    if not volume > 0.0:
        raise DistanceError(f"the mesh encloses a volume of {volume:.3g}, so its faces point inward: reverse them")


def _gradient(
    v: Floats, f: Ints, p: Floats, distance: Floats, index: Ints, closest: Floats, sign: Floats, touching: float
) -> Floats:
    """Unit gradients: along the line to the nearest point, or the face normal where a point lies on the surface."""
    gradient = (p - closest) * (sign / np.maximum(distance, np.finfo(np.float64).tiny))[:, None]
    on = distance <= touching
    if on.any():
        normal = face_cross(v, f[index[on]])
        gradient[on] = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return np.asarray(gradient)
