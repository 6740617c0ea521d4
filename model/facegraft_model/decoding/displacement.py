"""Displacement of every point of a head when its codes are changed, and how much of it is where nothing should move.

Both heads are decoded and their points are matched through the template: points correspond when they warp to the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facegraft.arrays import Bools, Floats
from facegraft.parts import Parts
from facegraft_model.decoding.correspond import corresponding_points
from facegraft_model.decoding.decode import Decoded
from facegraft_model.decoding.extract import Mesh
from facegraft_model.errors import ModelError
from facegraft_model.method import Codes, Field

TOLERANCE_MM = 1.0
"""Points matched over a larger distance in template space have no counterpart and are not counted."""

FOLLOWED_MM = 1e-3
"""Tolerance of template coordinates for a followed point: far below the error of a model, but well above that of float32."""

UNMOVED_MM = 1e-3
"""A part whose points move less than this (rms) has not changed: ratios to it would be noise."""


@dataclass(frozen=True, eq=False)
class Displacement:
    """Displacements of the vertices of one head to another: vectors [n,3] and lengths [n] in mm; areas [n] in mm².

    template_mm [n]: distance of the matched points in template space; counted [n]: whether it is at most tolerance_mm.
    """

    vectors_mm: Floats
    template_mm: Floats
    areas_mm2: Floats
    tolerance_mm: float

    @property
    def lengths_mm(self) -> Floats:
        return np.asarray(np.linalg.norm(self.vectors_mm, axis=1), dtype=np.float64)

    @property
    def counted(self) -> Bools:
        return np.asarray(self.template_mm <= self.tolerance_mm)


def dense_displacement(
    field: Field, base: Decoded, other: Decoded, other_codes: Codes, tolerance_mm: float = TOLERANCE_MM
) -> Displacement:
    """From each vertex of `base` to the point of `other` (decoded from other_codes) with the same template coordinates.

    A field that can be unwarped says where that point is. For others each vertex is first followed (`follow_warp`) from its own position: a vertex that has not moved gets displacement 0, and where
    the warp folds several points of the head onto one of the template, the near one is taken. Vertices that cannot be followed
    get the point that `corresponding_points` finds on the other mesh. Raises ModelError for a method without a warp.
    """
    if base.template_coords is None:
        raise ModelError(
            "displacement: the field has no warp to a template (as with deepsdf); use a method that has one"
        )
    limit = FOLLOWED_MM / field.mm_per_unit
    if field.has_unwarp:
        points = in_chunks(lambda x: field.unwarp(x, other_codes)[0], other_codes, 1 << 15)(base.template_coords)
        return Displacement(
            (points - base.mesh.vertices) * field.mm_per_unit,
            np.zeros(len(points)),
            vertex_areas(base.mesh) * field.mm_per_unit**2,
            tolerance_mm,
        )
    points, distance = follow_warp(field, other_codes, base.mesh.vertices, base.template_coords, limit)
    lost = distance > limit
    if lost.any():
        # Faces are not used when looking up points.
        rest = Decoded(
            Mesh(base.mesh.vertices[lost], np.zeros((0, 3), dtype=np.int64)), base.template_coords[lost], None
        )
        points[lost], distance[lost] = corresponding_points(rest, other)
    return Displacement(
        (points - base.mesh.vertices) * field.mm_per_unit,
        distance * field.mm_per_unit,
        vertex_areas(base.mesh) * field.mm_per_unit**2,
        tolerance_mm,
    )


def follow_warp(
    field: Field, codes: Codes, start: Floats, target: Floats, limit: float, chunk: int = 1 << 15
) -> tuple[Floats, Floats]:
    """Points near `start` [n,3] whose template coordinates are `target` [n,3], and their remaining distances [n]. Codes [1,d].

    Solves W(y) = target from y = start, first by y ← y + s (target − W(y)), which suffices where the warp is nearly a translation;
    then, for the points still farther than `limit`, by y ← y + s (JᵀJ + μI)⁻¹ Jᵀ (target − W(y)), J = ∂W/∂y (Levenberg-Marquardt),
    which also works where the warp inverts space. s is halved for points whose distance to the target does not fall. The best
    points are returned; their distances show where neither iteration converged.
    """
    y = start.copy()
    value = template_coordinates(field, codes, chunk)
    gap = target - value(y)
    distance = np.linalg.norm(gap, axis=1)
    for towards, iterations in ((None, 20), (in_chunks(lambda x: _jacobian(field, x, codes), codes, chunk), 15)):
        step = np.ones(len(y))
        for _ in range(iterations):
            # Steps below 1/16 gain nothing: here the warp does not follow its derivative.
            left = np.flatnonzero((distance > limit) & (step >= 0.06))
            if not len(left):
                break
            move = gap[left] if towards is None else _damped_solution(towards(y[left]), gap[left])
            tried = y[left] + step[left, None] * move
            found = target[left] - value(tried)
            length = np.linalg.norm(found, axis=1)
            nearer = length < distance[left]
            step[left[~nearer]] *= 0.5
            rows = left[nearer]
            y[rows], gap[rows], distance[rows] = tried[nearer], found[nearer], length[nearer]
    return y, distance


def template_coordinates(field: Field, codes: Codes, chunk: int = 1 << 15) -> Callable[[Floats], Floats]:
    """The warp of one head: points [n,3] ↦ their positions [n,3] in the template's space."""
    return in_chunks(lambda x: field.warp(x, codes)[0], codes, chunk)


def in_chunks(what: Callable[[Tensor], Tensor], codes: Codes, chunk: int) -> Callable[[Floats], Floats]:
    """A function of float32 points [1,n,3] on the codes' device as one of numpy points [n,3]."""
    device = next(iter(codes.values())).device

    def evaluate(points: Floats) -> Floats:
        parts = []
        for a in range(0, len(points), chunk):
            x = torch.from_numpy(points[a : a + chunk].astype(np.float32))[None].to(device)
            with torch.no_grad():
                parts.append(what(x).double().cpu().numpy())
        return np.concatenate(parts)

    return evaluate


def _jacobian(field: Field, x: Tensor, codes: Codes) -> Tensor:
    """∂W_i/∂y_j [n,3,3] at points [1,n,3]."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        warped = field.warp(x, codes)
        rows = [torch.autograd.grad(warped[..., i].sum(), x, retain_graph=i < 2)[0][0] for i in range(3)]
    return torch.stack(rows, 1)


def _damped_solution(jacobian: Floats, gap: Floats, damping: float = 1e-4) -> Floats:
    """(JᵀJ + μI)⁻¹ Jᵀ gap [n,3], finite also where J is singular."""
    transposed = jacobian.transpose(0, 2, 1)
    normal = transposed @ jacobian + damping * np.eye(3)
    return np.asarray(np.linalg.solve(normal, transposed @ gap[..., None])[..., 0])


def vertex_areas(mesh: Mesh) -> Floats:
    """A third of the area of the faces around each vertex [n]: weights that make sums over vertices integrals over the surface."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    thirds = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 6.0
    areas = np.zeros(len(mesh.vertices))
    np.add.at(areas, mesh.faces, thirds[:, None])
    return areas


def describe_region(displacement: Displacement, region: Bools) -> dict[str, Any]:
    """Displacement over a region [n]: mean, rms (both weighted by area) and largest in mm; null where no point counts.

    n: points that count; excluded_percent: share of the region's area whose points do not.
    """
    counted = region & displacement.counted
    area, all_area = displacement.areas_mm2[counted].sum(), displacement.areas_mm2[region].sum()
    result: dict[str, Any] = {
        "n": int(counted.sum()),
        "area_mm2": float(all_area),
        "excluded_percent": float(100.0 * (1.0 - area / all_area)) if all_area > 0.0 else 0.0,
    }
    if not area > 0.0:
        return {**result, "mean_mm": None, "rms_mm": None, "max_mm": None}
    lengths, weights = displacement.lengths_mm[counted], displacement.areas_mm2[counted] / area
    return {
        **result,
        "mean_mm": float(weights @ lengths),
        "rms_mm": float(np.sqrt(weights @ lengths**2)),
        "max_mm": float(lengths.max()),
    }


def part_labels(decoded: Decoded) -> Any:
    """Part labels u8 [n] of the vertices. Raises ModelError for a model without them."""
    if decoded.parts is None:
        raise ModelError(
            "the decoded head has no part labels: the model was trained without registered points (stage_points) of the template"
        )
    return decoded.parts


def describe_change(
    base: Decoded, displacement: Displacement, changed: Collection[str], parts: Parts
) -> dict[str, Any]:
    """Displacement of a head inside the parts whose codes were changed, outside them, and in each part. parts: the model's.

    inside: vertices of `base` labelled as one of the `changed` parts; outside: all other vertices in the unit ball, including the
    neck and its cap. leakage: rms outside ÷ rms inside; null where the parts themselves move less than UNMOVED_MM. The
    remainder's code also moves the parts, and an expression moves everything, so leakage is null for these.
    """
    labels = part_labels(base)
    inside = np.isin(labels, [parts.label(name) for name in changed if name in parts.labelled])
    within, without = describe_region(displacement, inside), describe_region(displacement, ~inside)
    moved, leaked = within["rms_mm"], without["rms_mm"]
    local = set(changed) <= set(parts)
    measurable = local and moved is not None and leaked is not None and moved >= UNMOVED_MM
    return {
        "changed": sorted(changed),
        "template_tolerance_mm": displacement.tolerance_mm,
        "inside": within,
        "outside": without,
        "parts": {name: describe_region(displacement, labels == label) for label, name in enumerate(parts.labelled)},
        "leakage": leaked / moved if measurable else None,
    }
