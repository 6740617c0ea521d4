"""Dense correspondence of two decoded heads through the template: points are the same when they warp to the same place."""

from __future__ import annotations

import numpy as np

from facegraft.arrays import Floats
from facegraft.surfaces.barycentric import barycentric
from facegraft.surfaces.nearest import nearest_on_surface
from facegraft_model.decoding.decode import Decoded
from facegraft_model.errors import ModelError


def corresponding_points(a: Decoded, b: Decoded) -> tuple[Floats, Floats]:
    """For each vertex of `a` the corresponding point on `b` [n,3], and how far apart the two are in template space [n].

    The vertex's template coordinates are projected to the nearest point of b's faces laid out in template space; its
    barycentric coordinates there give the point of b's mesh. A large template distance says that b has no such point
    (a hole, or a part clipped away). All in unit coordinates.
    Raises ModelError when either was decoded without template coordinates, or `b` has no faces.
    """
    if a.template_coords is None or b.template_coords is None:
        raise ModelError(
            "correspondence: the field has no warp to a template (as with deepsdf); use a method that has one"
        )
    if not len(b.mesh.faces):
        raise ModelError("correspondence: the second mesh has no faces")
    distance, face, nearest = nearest_on_surface(b.template_coords, b.mesh.faces, a.template_coords)
    corners = b.mesh.faces[face]
    weights = barycentric(nearest, b.template_coords[corners])
    return np.einsum("nk,nkj->nj", weights, b.mesh.vertices[corners]), distance
