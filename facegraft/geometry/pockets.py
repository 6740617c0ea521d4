"""Pockets: surfaces behind the skin of a part, such as the mouth sac and the eye sockets.

If the donor's mouth sac were mapped with the donor's lips, it could come through the cheeks of a narrower host. Grafts
therefore keep the host's own pockets and move them with their rim.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facegraft.arrays import Floats, Ints
from facegraft.geometry.seam import spread_values
from facegraft.surfaces.topology import compact


@dataclass(frozen=True)
class PocketOperator:
    """x = b + P (x_rim − b_rim): the host's pocket vertices [m] follow the displacement of their rim [n]; P [m, n].

    P is the damped harmonic extension of `facegraft.geometry.seam`: deep in the pocket nothing moves, so a pocket that
    lies inside the host stays inside.
    """

    inner: Ints
    rim: Ints
    carry: Floats

    def apply(self, composite: Floats, host: Floats) -> None:
        """Move the pocket's vertices of a composite [V, 3] in place."""
        composite[self.inner] = host[self.inner] + self.carry @ (composite[self.rim] - host[self.rim])


def pocket_operator(vertices: Floats, faces: Ints, pocket: Ints, length: float) -> PocketOperator:
    """The operator of the pockets behind one part.

    Shapes: vertices [V, 3] of the template in mm, faces [F, 3] of skin and pockets, pocket [m]; `length`: mm over which
    the rim's displacement dies away.
    """
    mask = np.zeros(len(vertices), dtype=bool)
    mask[pocket] = True
    own_faces, kept = compact(faces[mask[faces].any(axis=1)], len(vertices))
    inner, rim = np.flatnonzero(mask[kept]), np.flatnonzero(~mask[kept])
    carry = spread_values(vertices[kept], own_faces, rim, inner, 1.0 / length**2)
    return PocketOperator(kept[inner], kept[rim], carry)
