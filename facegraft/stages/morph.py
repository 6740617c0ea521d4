"""The template morph: the registered skin points whose positions are stored from the composite to the template."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facegraft.regions.regionmap import RegionMap
from facegraft.seeds import topology_rng


def choose_stage_vertices(region_map: RegionMap, count: int) -> NDArray[np.int64]:
    """The skin vertices followed through the morph: at most `count`, a random set that depends on the topology alone."""
    rng = topology_rng(region_map.faces_sha256)
    return np.sort(rng.permutation(region_map.kept_skin())[:count])
