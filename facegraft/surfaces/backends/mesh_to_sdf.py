"""The published pipelines' estimate, for comparison: mesh_to_sdf's vote of normals (sign_method='normal') over a cloud of sampled
points (as surface_point_method='sample'). It is approximate and gets signs wrong; needs `pip install facegraft[paper]`.

The cloud is drawn here, because the package's own is not repeatable. No OpenGL context is made, though the package imports
the OpenGL libraries (pyrender, PyOpenGL).
"""

from __future__ import annotations

import numpy as np

from facegraft.arrays import Floats, Ints
from facegraft.surfaces.errors import DistanceError
from facegraft.surfaces.nearest import nearest_on_surface
from facegraft.surfaces.sampling import sample_surface
from facegraft.surfaces.signed import SignedDistance

CLOUD = 1_000_000
"""Number of points of the cloud (the package's own default of 10 million takes minutes and gigabytes)."""


def mesh_to_sdf(v: Floats, f: Ints, p: Floats) -> SignedDistance:
    """Estimated signed distances of points [n, 3] to a closed mesh. Nearest points and faces are exact, for the part labels."""
    try:
        import trimesh
        from mesh_to_sdf.surface_point_cloud import SurfacePointCloud
    except ImportError as error:
        raise DistanceError(
            f"the backend mesh-to-sdf is not installed ({error}): pip install 'facegraft[paper]'"
        ) from error
    drawn = sample_surface(v, f, CLOUD, np.random.default_rng(0))
    cloud = SurfacePointCloud(trimesh.Trimesh(v, f, process=False), points=drawn.points, normals=drawn.normals)
    sdf, gradient = cloud.get_sdf_in_batches(p, return_gradients=True)
    _, index, closest = nearest_on_surface(v, f, p)
    return SignedDistance(np.asarray(sdf, dtype=np.float64), closest, index, np.asarray(gradient, dtype=np.float64))
