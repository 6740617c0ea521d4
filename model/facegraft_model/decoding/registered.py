"""Heads on the vertices and triangles of the training heads: the template's mesh, moved to the zero level of a field.

Each vertex of the template's mesh goes to the point that warps to it, and from there along the gradient to sdf = 0. So vertex i is
the same place of the face in every head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facegraft.arrays import Bools, Floats
from facegraft.lazily import lazy_import
from facegraft.surfaces.normals import face_areas
from facegraft_model.data.topology import Topology
from facegraft_model.decoding.correspond import corresponding_points
from facegraft_model.decoding.decode import Decoded, decode, full_precision
from facegraft_model.decoding.displacement import FOLLOWED_MM, follow_warp, in_chunks
from facegraft_model.decoding.extract import Mesh
from facegraft_model.errors import ModelError
from facegraft_model.method import Codes, Field, SDFGrad

LEVEL_MM = 0.02
"""Every vertex of a registered head is within this distance of the zero level."""
REACHED_MM = 0.1
"""A vertex whose warp ends farther than this from its place in the template is lost: no point near it corresponds."""
LARGEST_SHARE = 0.02
"""A head is refused where more than this share of its vertices is lost, or of the template's area folded.

Area, not number: the triangles in the creases of lids and lips are small and many, and a field rounds creases off.
"""
GUESS_RESOLUTION = 64
"""Grid of the mesh on which the search for each vertex starts; its cells are a few mm, which the search bridges."""
STEPS = 12


ABOVE_MM = 0.1
"""Height above the template at which the side of a head that is outside is looked up."""


class RegistrationError(ModelError):
    """A head that cannot be given on the template's vertices."""


@dataclass(frozen=True, eq=False)
class Registered:
    """vertices f64 [n,3] in unit coordinates, of the field's topology; sdf_mm [n]: what is left of the distance there.

    lost: vertices without a point that warps to their place (they stand at the nearest one found); folded: triangles that face
    into the head, and folded_share: their share of the template's area.
    """

    vertices: Floats
    sdf_mm: Floats
    lost: int
    folded: int
    folded_share: float

    def describe(self) -> dict[str, Any]:
        """The numbers of the result, for JSON."""
        return {
            "vertices": len(self.vertices),
            "lost": self.lost,
            "folded": self.folded,
            "folded_share": self.folded_share,
            "largest_sdf_mm": float(np.abs(self.sdf_mm).max()),
        }


def check_registrable(field: Field) -> Topology:
    """The topology that a field's heads can be given on. Raises RegistrationError for a field without topology or warp."""
    if not field.has_warp:
        raise RegistrationError(
            f"a model of method {field.config.model.method} has no warp to a template, so its heads have no topology; use a method that has one"
        )
    if field.topology is None:
        raise RegistrationError(
            "the model knows no topology: its samples are of an older version; sample anew (facegraft sample SURFACES -o DIR) and train"
        )
    return field.topology


def registered_vertices(field: Field, codes: Codes, chunk: int = 1 << 15) -> Registered:
    """The head of one set of codes (each [1,d]) on the field's topology.

    Fields that can invert their warp (`Field.has_unwarp`) say where each vertex is; for others warp(y) = template vertex is solved
    (`follow_warp`) from the matching point of a coarse mesh of the head. Float32, at most `chunk` points at a time.
    Raises RegistrationError for a field without topology or warp, for a head with vertices off the zero level by more than LEVEL_MM,
    and where more than LARGEST_SHARE of the vertices is lost or of the template's area folded; EmptyFieldError for one without surface.
    """
    topology = check_registrable(field)
    target = topology.vertices.double().cpu().numpy()
    device = next(iter(codes.values())).device
    with torch.no_grad(), full_precision(device):
        if field.has_unwarp:
            return _unwarped(field, codes, topology, chunk)
        points, lost = _solved(field, codes, target, chunk)
        points, sdf, gradient = _on_zero_level(lambda x: field.sdf_and_grad(x, codes), field, codes, points, chunk)
        stuck = np.abs(sdf) > LEVEL_MM / field.mm_per_unit
        if stuck.any():  # the gradient leads nowhere from here: start on the surface itself
            lost |= stuck
            mesh = decode(field, codes, resolution=GUESS_RESOLUTION, chunk=chunk).mesh
            tree = lazy_import("scipy.spatial").cKDTree(mesh.vertices)
            start = mesh.vertices[tree.query(points[stuck])[1]]
            points[stuck], sdf[stuck], gradient[stuck] = _on_zero_level(
                lambda x: field.sdf_and_grad(x, codes), field, codes, start, chunk
            )
    return _checked(topology, points, sdf, gradient, lost, field.mm_per_unit)


def _unwarped(field: Field, codes: Codes, topology: Topology, chunk: int) -> Registered:
    """The head of a field that can be unwarped: the template's vertices are brought to its zero level there, and moved to the head."""
    distance = field.template_distance
    target, sdf, gradient = _on_zero_level(distance, field, codes, topology.vertices.double().cpu().numpy(), chunk)
    stuck = np.abs(sdf) > LEVEL_MM / field.mm_per_unit
    if stuck.any():  # the gradient leads nowhere from here: start on the surface itself
        template = decode(field, codes, resolution=GUESS_RESOLUTION, chunk=chunk).template_coords
        assert template is not None
        start = template[lazy_import("scipy.spatial").cKDTree(template).query(target[stuck])[1]]
        target[stuck], sdf[stuck], gradient[stuck] = _on_zero_level(distance, field, codes, start, chunk)
    moved = in_chunks(lambda x: field.unwarp(x, codes)[0], codes, chunk)
    points = moved(target)
    outward = moved(target + ABOVE_MM / field.mm_per_unit * gradient) - points
    return _checked(topology, points, sdf, outward, stuck, field.mm_per_unit)


def _checked(
    topology: Topology, points: Floats, sdf: Floats, outward: Floats, lost: Bools, mm_per_unit: float
) -> Registered:
    """The result for vertices [n,3] with their distances [n] and the directions [n,3] out of the head there. Raises RegistrationError."""
    faces, template = topology.faces.cpu().numpy(), topology.vertices.double().cpu().numpy()
    a, b, c = (points[faces[:, corner]] for corner in range(3))
    folded = np.einsum("ij,ij->i", np.cross(b - a, c - a), outward[faces].sum(axis=1)) <= 0
    areas = face_areas(template, faces)
    share = float(areas[folded].sum() / areas.sum())
    result = Registered(points, sdf * mm_per_unit, int(lost.sum()), int(folded.sum()), share)
    _check(result, len(faces))
    return result


def _solved(field: Field, codes: Codes, target: Floats, chunk: int) -> tuple[Floats, Bools]:
    """Points [n,3] whose warp is the target [n,3], and which of them were not found."""
    coarse = decode(field, codes, resolution=GUESS_RESOLUTION, chunk=chunk)
    # Faces are not used when looking up points.
    wanted = Decoded(Mesh(target, np.zeros((0, 3), dtype=np.int64)), target, None)
    start, _ = corresponding_points(wanted, coarse)
    points, distance = follow_warp(field, codes, start, target, FOLLOWED_MM / field.mm_per_unit, chunk)
    lost = distance > REACHED_MM / field.mm_per_unit
    points[lost] = start[lost]  # on the head, where a search that failed may have left it
    return points, lost


def _on_zero_level(
    distance: Callable[[Tensor], SDFGrad], field: Field, codes: Codes, points: Floats, chunk: int
) -> tuple[Floats, Floats, Floats]:
    """Points [n,3] moved along the gradient to sdf = 0 by Newton's method, the sdf [n] and gradient [n,3] there.

    A step that does not come nearer is halved, so that a kink of the field does not throw a point away.
    """

    def both(x: Tensor) -> Tensor:
        sdf, gradient = distance(x)
        return torch.cat([sdf[..., None], gradient], -1)[0]

    value = in_chunks(both, codes, chunk)
    points = points.copy()
    state = value(points)
    step = np.ones(len(points))
    enough = 0.05 * LEVEL_MM / field.mm_per_unit
    for _ in range(STEPS):
        left = np.flatnonzero(np.abs(state[:, 0]) > enough)
        if not len(left):
            break
        sdf, gradient = state[left, 0], state[left, 1:]
        slope = np.maximum(np.einsum("ij,ij->i", gradient, gradient), 0.05)  # no long leap where the field is flat
        tried = points[left] - (step[left] * sdf / slope)[:, None] * gradient
        found = value(tried)
        nearer = np.abs(found[:, 0]) < np.abs(sdf)
        step[left[~nearer]] *= 0.5
        points[left[nearer]], state[left[nearer]] = tried[nearer], found[nearer]
    return points, state[:, 0], state[:, 1:]


def _check(result: Registered, faces: int) -> None:
    off = int((np.abs(result.sdf_mm) > LEVEL_MM).sum())
    vertices = len(result.vertices)
    if off or result.lost > LARGEST_SHARE * vertices or result.folded_share > LARGEST_SHARE:
        raise RegistrationError(
            f"the head does not correspond with the template: {result.lost} of {vertices} vertices have no counterpart, {off} miss the "
            f"surface by more than {LEVEL_MM:g} mm, {result.folded} of {faces} triangles fold, {result.folded_share:.1%} of the area (at most {LARGEST_SHARE:.0%} may); "
            "extract it without --topology, fit it better or train longer"
        )
