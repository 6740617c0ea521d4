"""The seam operator: it spreads the residual on the loop into a grafted part and blends the part into the host.

A grafted part never cracks (donor and host share their topology) but leaves a crease: the mapped loop misses the
host's loop by a millimetre or two. The operator of one part, computed once per topology, is

    x = b + w (g − b) + w (W r),      r = b_loop − g_loop,      W = −(L_ii + M_ii/l²)⁻¹ L_il

with g the mapped donor part, b the host's own (registered) vertices, L the cotangent Laplacian and M the lumped mass
of the template, l the length over which the residual decays, and w a smoothstep of the geodesic depth inside the
loop. The loop and everything outside it keep the host's positions to the bit. Damping keeps the donor's shape in the
core of the part; blending with the host's own interior removes the crease without extrapolating slopes into the part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import igl
import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from facegraft.arrays import Floats, Ints
from facegraft.surfaces.normals import face_areas
from facegraft.surfaces.topology import compact, faces_within

SeamMethod = Literal["blend", "harmonic", "hard"]
"""`blend`: as above; `harmonic`: spreads the residual over the whole part, without blending; `hard`: does neither."""


@dataclass(frozen=True)
class SeamOperator:
    """The seam of one part: `loop` [n] and `interior` [m] vertices, `weight` w [m], `carry` w·W [m, n]."""

    loop: Ints
    interior: Ints
    weight: Floats
    carry: Floats

    def apply(self, mapped_loop: Floats, mapped_interior: Floats, host: Floats) -> Floats:
        """Positions [m, 3] of the part's interior on the host [V, 3], from the mapped donor's loop and interior."""
        below = host[self.interior]
        result = self.carry @ (host[self.loop] - mapped_loop)
        result += below
        result += self.weight[:, None] * (mapped_interior - below)
        return result


def seam_widths(vertices: Floats, loop: Ints, width: float, length: float) -> tuple[float, float]:
    """Blend width and damping length in mm on this mesh: long edges raise the width to 2.5 mean loop edges."""
    edge = float(np.linalg.norm(np.roll(vertices[loop], -1, axis=0) - vertices[loop], axis=1).mean())
    wide = 2.5 * edge
    return (width, length) if wide <= width else (wide, max(length, wide / 2.0))


def seam_operator(
    vertices: Floats,
    faces: Ints,
    loop: Ints,
    interior: Ints,
    method: SeamMethod = "blend",
    width: float = 8.0,
    length: float = 4.0,
) -> SeamOperator:
    """Build the operator of one part on the template.

    Shapes: vertices [V, 3] in mm, faces [F, 3], loop [n] ordered, interior [m]; width and length in mm.
    """
    count = (len(interior), len(loop))
    if method == "hard":
        return SeamOperator(loop, interior, np.ones(count[0]), np.zeros(count))
    inside = np.zeros(len(vertices), dtype=bool)
    inside[interior] = inside[loop] = True
    part_faces, kept = compact(np.asarray(faces)[faces_within(faces, inside)], len(vertices))
    place = np.full(len(vertices), -1, dtype=np.int64)
    place[kept] = np.arange(len(kept))
    local_loop, local_interior = place[loop], place[interior]
    width, length = seam_widths(vertices, loop, width, length)
    part_vertices = vertices[kept]
    damping = 0.0 if method == "harmonic" else 1.0 / length**2
    spread = spread_values(part_vertices, part_faces, local_loop, local_interior, damping)
    if method == "harmonic":
        return SeamOperator(loop, interior, np.ones(count[0]), spread)
    depth = geodesic_depth(part_vertices, part_faces, local_loop)[local_interior]
    weight = smoothstep(depth / width)
    return SeamOperator(loop, interior, weight, weight[:, None] * spread)


def spread_values(vertices: Floats, faces: Ints, loop: Ints, interior: Ints, damping: float) -> Floats:
    """W [m, n]: minimiser of the Dirichlet energy plus damping · ‖u‖², for given values on the loop."""
    laplacian = -igl.cotmatrix(vertices, faces).tocsr()
    areas = np.repeat(face_areas(vertices, faces) / 3.0, 3)
    mass = np.bincount(faces.ravel(), weights=areas, minlength=len(vertices))
    system = laplacian[interior][:, interior] + damping * sp.diags(mass[interior])
    return -splu(system.tocsc()).solve(laplacian[interior][:, loop].toarray())


def geodesic_depth(vertices: Floats, faces: Ints, loop: Ints) -> Floats:
    """Exact geodesic distance [V] from the vertices of a loop (Mitchell, Mount & Papadimitriou 1987)."""
    everything = np.arange(len(vertices), dtype=np.int64)
    empty = np.empty(0, dtype=np.int64)
    return np.asarray(igl.exact_geodesic(vertices, faces, loop.astype(np.int64), empty, everything, empty))


def smoothstep(t: Floats) -> Floats:
    """3t² − 2t³ on [0, 1], constant outside."""
    clipped = np.clip(t, 0.0, 1.0)
    return clipped * clipped * (3.0 - 2.0 * clipped)
