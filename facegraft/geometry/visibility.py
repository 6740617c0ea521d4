"""The vertices of a face that are visible from the front, and ImFace's height field over them (preset `paper`).

`visible_sheet` follows the published pre-processing of ImFace: cut the face at the sphere, drop the vertices that
something hides along +z, and join the rest by a 2-D Delaunay triangulation of their x and y. The sheet is open, a
height field over the convex hull of the points; its distances are signed by z (`distance` backend `height_field`).

One fault of the original is not repeated: it makes each vertex on the cut once per triangle (hundreds of duplicates),
here it is made once per edge. The faults of the method itself stay, for comparability: nostrils and undercuts are
bridged, about a quarter of the edges differ from the mesh's, and the convex hull adds long triangles along the rim that
are millimetres off the face. For an accurate solid use `clipping.BallClipper`.
"""

from __future__ import annotations

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import Delaunay, QhullError

from facegraft.arrays import Floats
from facegraft.geometry.clipping import ClippingError, CroppedSurface, crop_to_ball
from facegraft.surfaces.topology import compact

TOLERANCE = 1e-6
"""A face hides a vertex if it lies more than this share of the surface's size in front of it (float32 rays resolve 1e-7)."""


def visible_from_front(vertices: ArrayLike, faces: ArrayLike) -> NDArray[np.bool_]:
    """Mask [V] of the vertices that no face of the mesh hides from an observer far out on +z.

    One ray per vertex is shot along -z from in front of the mesh; the vertex is hidden where the first face hit (Embree)
    lies in front of it. The height of the hit is computed in float64.
    """
    v = np.asarray(vertices, dtype=np.float64)
    f = np.asarray(faces, dtype=np.int64)
    low, high = v.min(axis=0), v.max(axis=0)
    size = float(np.linalg.norm(high - low)) or 1.0
    scaled = (v - 0.5 * (low + high)) / size
    scene = EmbreeScene()
    TriangleMesh(scene, scaled.astype(np.float32), f.astype(np.int32))
    origins = scaled.astype(np.float32)
    origins[:, 2] = 1.0
    directions = np.zeros_like(origins)
    directions[:, 2] = -1.0
    hit = np.asarray(scene.run(origins, directions), dtype=np.int64)
    found = np.flatnonzero((hit >= 0) & (f[hit] != np.arange(len(v))[:, None]).all(axis=1))
    visible = np.ones(len(v), dtype=bool)
    height = _height_at(scaled[found], scaled[f[hit[found]]])
    visible[found] = height <= scaled[found, 2] + TOLERANCE
    return visible


def visible_sheet(vertices: ArrayLike, faces: ArrayLike, vertex_labels: ArrayLike, radius: float) -> CroppedSurface:
    """ImFace's surface of a face [V, 3], [F, 3] centred in the ball: an open height field, normals with z >= 0.

    Returns the visible vertices of the cropped surface with new faces; `source` is each vertex's index in the input.
    Raises ClippingError where fewer than three vertices are visible or they all lie on a line.
    """
    cropped = crop_to_ball(vertices, faces, vertex_labels, radius)
    seen = np.flatnonzero(visible_from_front(cropped.vertices, cropped.faces))
    points = cropped.vertices[seen]
    try:
        triangles = Delaunay(points[:, :2]).simplices.astype(np.int64)
    except (QhullError, ValueError) as error:
        raise ClippingError(f"the {len(seen)} visible vertices span no surface in x and y") from error
    flat = points[triangles, :2]
    one, two = flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
    turn = one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]
    triangles[turn < 0] = triangles[turn < 0][:, [0, 2, 1]]
    small, kept = compact(triangles, len(points))  # Qhull leaves out points that coincide in x and y
    chosen = seen[kept]
    return CroppedSurface(cropped.vertices[chosen], small, cropped.vertex_labels[chosen], cropped.source[chosen])


def _height_at(points: Floats, triangles: Floats) -> Floats:
    """z [n] of the planes of triangles [n, 3, 3] at the x, y of points [n, 3]; for a vertical triangle, its highest corner."""
    normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    to = points - triangles[:, 0]
    upright = np.abs(normal[:, 2]) <= 1e-12 * np.linalg.norm(normal, axis=1)
    slope = np.where(upright, 1.0, normal[:, 2])
    z = triangles[:, 0, 2] - (to[:, 0] * normal[:, 0] + to[:, 1] * normal[:, 1]) / slope
    return np.where(
        upright,
        triangles[:, :, 2].max(axis=1),
        np.clip(z, triangles[:, :, 2].min(axis=1), triangles[:, :, 2].max(axis=1)),
    )
