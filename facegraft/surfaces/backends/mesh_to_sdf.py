"""The published pipelines' estimate, for comparison: mesh_to_sdf's vote of normals (sign_method='normal') over a cloud of sampled
points (as surface_point_method='sample'). It is approximate and gets signs wrong; needs `pip install facegraft[paper]`.

On an open sheet that faces +z the sign is ImFace's: positive in front of the nearest point.

The cloud is drawn here, because the package's own is not repeatable. No OpenGL context is made, though the package imports
the OpenGL libraries (pyrender, PyOpenGL).
"""

from __future__ import annotations

import numpy as np

from facegraft.arrays import Floats, Ints
from facegraft.surfaces.backends.height_field import in_front
from facegraft.surfaces.errors import DistanceError
from facegraft.surfaces.nearest import nearest_on_surface
from facegraft.surfaces.sampling import sample_surface
from facegraft.surfaces.signed import SignedDistance
from facegraft.surfaces.topology import open_edge_count

CLOUD = 1_000_000
"""Number of points of the cloud (the package's own default of 10 million takes minutes and gigabytes)."""


def check_installed() -> None:
    """Raises DistanceError, which says how to install the package, where it is missing."""
    try:
        import mesh_to_sdf.surface_point_cloud  # noqa: F401
    except ImportError as error:
        raise DistanceError(
            f"the backend mesh-to-sdf is not installed ({error}): pip install 'facegraft[paper]'"
        ) from error


def mesh_to_sdf(v: Floats, f: Ints, p: Floats) -> SignedDistance:
    """Estimated signed distances of points [n, 3] to a closed mesh, or to an open sheet that faces +z. Nearest points and faces are
    exact, for the part labels."""
    check_installed()
    import trimesh
    from mesh_to_sdf.surface_point_cloud import SurfacePointCloud

    drawn = sample_surface(v, f, CLOUD, np.random.default_rng(0))
    cloud = SurfacePointCloud(trimesh.Trimesh(v, f, process=False), points=drawn.points, normals=drawn.normals)
    estimate = cloud.get_sdf_in_batches(p, return_gradients=True)
    sdf, gradient = (np.asarray(values, dtype=np.float64) for values in estimate)
    _, index, closest = nearest_on_surface(v, f, p)
    if open_edge_count(f):
        sdf = in_front(p, closest) * np.abs(sdf)
        gradient = np.where(gradient[:, 2:] < 0, -gradient, gradient)
    return SignedDistance(sdf, closest, index, gradient)
