"""How the heads of a topology are closed: its region map says which skin stays, and which openings there are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facegraft.geometry.closing import HeadCloser
from facegraft.regions.regionmap import RegionMap


def make_closer(
    template: NDArray[np.float64], faces: NDArray[np.int64], region_map: RegionMap, labels: NDArray[np.uint8]
) -> HeadCloser:
    """The closer of a topology: its skin, openings, neck crop and eyeballs, from the region map."""
    eyeballs = {
        g.behind: g.vertices
        for name, g in region_map.groups.items()
        if name.startswith("eyeball") and g.behind in region_map.openings
    }
    return HeadCloser(
        template,
        region_map.skin_faces(faces),
        region_map.openings,
        labels,
        neck_loop=region_map.neck_crop_loop,
        neck_drop=region_map.neck_crop_drop,
        eyeballs={str(name): vertices for name, vertices in eyeballs.items()},
    )
