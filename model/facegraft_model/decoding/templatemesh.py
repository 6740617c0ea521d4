"""The zero level of a template: extracted once for all heads of a model, so on a finer grid than a head's own would be."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from facegraft.lazily import lazy_import
from facegraft.surfaces.nearest import nearest_on_surface
from facegraft.surfaces.topology import face_components
from facegraft_model.decoding.extract import EmptyFieldError, Mesh, extract_surface, largest_piece, with_faces
from facegraft_model.decoding.grid import MAX_RESOLUTION, Grid
from facegraft_model.method import Field

FINER = 2
"""The template's grid has so many times a head's nodes along each axis, as far as a grid can: lips and lids have folds of a millimetre, as
wide as the cells of a grid of 256 nodes. Every node is looked at with mode "dense", which is left as it is."""
SIMPLIFIED_MM = 0.01
"""How far the template may move when its triangles are merged: where it is flat, it needs fewer than the grid has. A head may be curved
there, so it moves by more: by 0.003 mm on average, and by 0.08 mm at one place in a thousand (random heads of ict-head)."""
ASTRAY_MM = 1.0
"""A piece of the surface whose vertices are farther than this (their median) from the template of the data is a bubble of the distance's net."""
LOOKED_AT = 2000
"""Vertices of a piece that are looked at."""
SPHERE = 1e-3
"""The surface is cut by a sphere that is smaller than the ball by this share; what lies on it within half of this is the cut."""


def template_mesh(field: Field, resolution: int, options: dict[str, Any]) -> Mesh:
    """The surface of a field's template in its own space, for heads that are asked for at `resolution` nodes along each axis.

    options: those of `extract_surface`. A field that is still being trained (`field.training`) is extracted each time. Raises the errors
    of `extract_surface`.
    """
    if options.get("mode") == "sparse":
        resolution = max(resolution, min(FINER * resolution, MAX_RESOLUTION))
    if field.training:
        return _without_bubbles(_extracted(field, resolution, **options), field)
    key = ("template mesh", resolution, *options.values())
    if key not in field.derived:
        field.derived[key] = _without_bubbles(_extracted(field, resolution, **options), field)
    mesh: Mesh = field.derived[key]
    return mesh


def _extracted(
    field: Field,
    resolution: int,
    *,
    clip_radius: float | None,
    keep: Literal["all", "largest"],
    mode: Literal["sparse", "dense"],
    **options: Any,
) -> Mesh:
    device = field.template_points.device

    def distance(points: NDArray[np.float32]) -> NDArray[np.float32]:
        return field.template_sdf(torch.from_numpy(points)[None].to(device))[0].float().cpu().numpy()

    if clip_radius is None:
        return _simplified(extract_surface(distance, Grid.cube(resolution), keep=keep, mode=mode, **options), field)
    # Triangles can be merged only on a closed surface. So the template is cut by the ball as a solid, and the cut is left out afterwards.
    radius = (1 - SPHERE) * clip_radius

    def within(points: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.maximum(distance(points), np.linalg.norm(points, axis=1) - np.float32(radius))

    mesh = _simplified(extract_surface(within, Grid.cube(resolution, clip_radius), mode=mode, **options), field)
    inside = np.linalg.norm(mesh.vertices, axis=1) < radius - SPHERE / 2 * clip_radius
    mesh = with_faces(mesh, inside[mesh.faces].all(axis=1))
    if not len(mesh.faces):
        raise EmptyFieldError(
            f"extraction: the template has no surface inside the ball of radius {clip_radius:g}: is the model trained?"
        )
    return largest_piece(mesh) if keep == "largest" else mesh


def _without_bubbles(mesh: Mesh, field: Field) -> Mesh:
    """The pieces of the mesh that lie on the template's own triangles and caps, if the field knows these and any piece does."""
    topology, component = field.topology, face_components(mesh.faces)
    if topology is None or not component.any():
        return mesh
    vertices, faces = (part.cpu().numpy() for part in (topology.closed_vertices.double(), topology.closed_faces.long()))
    near = np.zeros(int(component.max()) + 1, dtype=bool)
    for piece in range(len(near)):
        own = np.unique(mesh.faces[component == piece])
        apart = nearest_on_surface(vertices, faces, mesh.vertices[own[:: max(len(own) // LOOKED_AT, 1)]]).distance
        near[piece] = np.median(apart) * field.mm_per_unit < ASTRAY_MM
    return with_faces(mesh, near[component]) if near.any() else mesh


def _simplified(mesh: Mesh, field: Field) -> Mesh:
    """The mesh with its triangles merged where the surface moves by less than SIMPLIFIED_MM; as it is if it is not closed."""
    manifold3d = lazy_import("manifold3d")
    solid = manifold3d.Manifold(manifold3d.Mesh64(mesh.vertices, mesh.faces.astype(np.uint64)))
    if solid.status() != manifold3d.Error.NoError:
        return mesh
    merged = solid.simplify(SIMPLIFIED_MM / field.mm_per_unit).to_mesh64()
    return Mesh(np.asarray(merged.vert_properties)[:, :3], np.asarray(merged.tri_verts).astype(np.int64))
