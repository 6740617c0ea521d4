"""How far every point of a head has moved when its codes were changed, and how much of that lies where nothing should move.

The two heads are decoded, and their points matched through the template (`correspond.corresponding_points`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from facegraft_model.correspond import corresponding_points
from facegraft_model.errors import ModelError
from facegraft_model.extract import Decoded, Mesh
from facegraft_model.metrics import Bools, Floats
from facegraft_model.truth import PART_NAMES

TOLERANCE_MM = 1.0
"""Points matched over a larger distance in template space have no counterpart and are not counted."""

UNMOVED_MM = 1e-3
"""A part whose points move less than this (rms) has not changed: ratios to it would be noise."""


@dataclass(frozen=True, eq=False)
class Displacement:
    """Where the vertices of one head lie on another: vectors [n,3] and lengths [n] in mm; areas [n] in mm².

    template_mm [n]: how far apart the matched points are in template space; counted [n]: not farther than tolerance_mm.
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
    base: Decoded, other: Decoded, mm_per_unit: float, tolerance_mm: float = TOLERANCE_MM
) -> Displacement:
    """From each vertex of `base` to the corresponding point of `other`. Raises ModelError for a method without a warp."""
    points, distance = corresponding_points(base, other)
    return Displacement(
        (points - base.mesh.vertices) * mm_per_unit,
        distance * mm_per_unit,
        vertex_areas(base.mesh) * mm_per_unit**2,
        tolerance_mm,
    )


def vertex_areas(mesh: Mesh) -> Floats:
    """A third of the area of the faces around each vertex [n], so that sums over vertices are integrals over the surface."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    thirds = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 6.0
    return np.bincount(mesh.faces.ravel(), weights=np.repeat(thirds, 3), minlength=len(mesh.vertices))


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
    """Part labels u8 [n] of the vertices. Raises ModelError for a model that cannot tell."""
    if decoded.parts is None:
        raise ModelError(
            "the decoded head has no part labels: the model was trained without registered points (stage_points) of the template"
        )
    return decoded.parts


def describe_change(base: Decoded, displacement: Displacement, changed: Collection[str]) -> dict[str, Any]:
    """How much a head moved inside the parts whose codes were changed, outside them, and in each part.

    inside: vertices of `base` labelled as one of the `changed` parts; outside: all other vertices within the unit ball, with the
    neck and what closes it. leakage: rms outside ÷ rms inside; null where the parts themselves move less than UNMOVED_MM. The
    remainder's code moves the parts along with the face, and an expression everything, so leakage is null for these.
    """
    labels = part_labels(base)
    inside = np.isin(labels, [PART_NAMES.index(name) for name in changed if name in PART_NAMES])
    result = {
        "changed": sorted(changed),
        "template_tolerance_mm": displacement.tolerance_mm,
        "inside": describe_region(displacement, inside),
        "outside": describe_region(displacement, ~inside),
        "parts": {name: describe_region(displacement, labels == label) for label, name in enumerate(PART_NAMES)},
    }
    moved, leaked = result["inside"]["rms_mm"], result["outside"]["rms_mm"]
    local = set(changed) <= {"nose", "eyes", "mouth"}
    result["leakage"] = (
        leaked / moved if local and moved is not None and leaked is not None and moved >= UNMOVED_MM else None
    )
    return result
