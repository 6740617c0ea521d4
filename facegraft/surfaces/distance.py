"""Signed distance to a surface, with its gradient, behind one interface: `signed_distance(vertices, faces, points, backend)`.

A backend is one file in `surfaces/backends` and one line in BACKENDS below; `facegraft.testing.distance.DistanceSuite` proves it right.
Lengths are in the unit of the vertices; signs are negative inside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from facegraft.arrays import Floats, Ints
from facegraft.errors import nearest
from facegraft.surfaces.backends.height_field import height_field
from facegraft.surfaces.backends.mesh_to_sdf import check_installed, mesh_to_sdf
from facegraft.surfaces.backends.winding import winding
from facegraft.surfaces.errors import DistanceError
from facegraft.surfaces.normals import signed_volume
from facegraft.surfaces.signed import SignedDistance
from facegraft.surfaces.topology import open_edge_count


@dataclass(frozen=True)
class Backend:
    """A function of vertices f64 [V, 3], faces i64 [F, 3] (F > 0) and points f64 [n, 3], all finite and contiguous.

    closed: the backend is defined only for closed meshes with outward faces, and is given no others, but open ones where it also takes
    sheets that face +z (`sheets`); summary: one line for the documentation and the description of `sample.backend`; check: raises
    DistanceError where the backend cannot run on this machine.
    """

    measure: Callable[[Floats, Ints, Floats], SignedDistance]
    closed: bool
    summary: str
    sheets: bool = False
    check: Callable[[], None] = lambda: None


BACKENDS: dict[str, Backend] = {
    "winding": Backend(winding, True, "exact; the sign by winding numbers, for closed meshes"),
    "height_field": Backend(height_field, False, "exact; the sign by z, for an open sheet that faces +z"),
    "mesh-to-sdf": Backend(
        mesh_to_sdf,
        True,
        "the published pipelines' estimate, for closed meshes and sheets; needs facegraft[paper]",
        sheets=True,
        check=check_installed,
    ),
}
"""All backends, by their name in `sample.backend`."""


def signed_distance(
    vertices: ArrayLike, faces: ArrayLike, points: ArrayLike, backend: str = "winding"
) -> SignedDistance:
    """Signed distances of points [n, 3] to the mesh vertices [V, 3], faces [F, 3]; see BACKENDS.

    Raises DistanceError for numbers that are not finite, an unknown backend and, where the backend is for closed meshes,
    one with open edges or faces that point inward: the inside of an open mesh is not defined.
    """
    v = np.ascontiguousarray(vertices, dtype=np.float64)
    f = np.ascontiguousarray(faces, dtype=np.int64)
    p = np.ascontiguousarray(points, dtype=np.float64)
    chosen = _chosen(backend)
    for name, array in (("vertices", v), ("points", p)):
        if array.ndim != 2 or array.shape[1] != 3:
            raise DistanceError(f"{name} have shape {array.shape}; (n, 3) is needed")
        if not np.isfinite(array).all():
            raise DistanceError(
                f"{int((~np.isfinite(array).all(axis=1)).sum())} of the {len(array)} {name} are not finite"
            )
    if len(f) == 0:
        raise DistanceError("the mesh has no faces")
    if chosen.closed and not (chosen.sheets and open_edge_count(f)):
        _refuse_open(v, f)
    return chosen.measure(v, f, p)


def check_backend(name: str) -> None:
    """Raises DistanceError for a backend that is unknown or cannot run on this machine."""
    _chosen(name).check()


def _chosen(name: str) -> Backend:
    if name in BACKENDS:
        return BACKENDS[name]
    raise DistanceError(f"there is no distance backend {name!r}{nearest(name, BACKENDS)}")


def _refuse_open(vertices: Floats, faces: Ints) -> None:
    count = open_edge_count(faces)
    if count:
        raise DistanceError(
            f"the mesh has {count} open (or multiply used) edges, so it has no inside: close it first (facegraft clean)"
        )
    volume = signed_volume(vertices, faces)
    if not volume > 0.0:
        raise DistanceError(f"the mesh encloses a volume of {volume:.3g}, so its faces point inward: reverse them")
