"""Mesh files: one reader for each format (OBJ, PLY, XYZ, NPY), for registered heads and for scans, and one writer (PLY, OBJ, GLB).

Needs numpy and the dataset store; trimesh only to write GLB.
"""

from facegraft.meshfiles.errors import MeshError
from facegraft.meshfiles.meshfile import read_mesh, read_triangles
from facegraft.meshfiles.points import PointCloud, read_points
from facegraft.meshfiles.rawmesh import RawMesh
from facegraft.meshfiles.write import write_mesh

__all__ = ["MeshError", "PointCloud", "RawMesh", "read_mesh", "read_points", "read_triangles", "write_mesh"]
