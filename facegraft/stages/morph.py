"""The template morph: the registered skin points whose positions are stored from the composite to the template."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facegraft.regions.regionmap import RegionMap
from facegraft.seeds import topology_rng


def choose_stage_vertices(region_map: RegionMap, count: int) -> NDArray[np.int64]:
    """The skin vertices followed through the morph: at most `count`, of which a half at most are those of the rims of the openings,
    by which the caps move; the others are a random set. All depend on the topology alone."""
    rng = topology_rng(region_map.faces_sha256)
    skin = rng.permutation(region_map.kept_skin())
    rims = np.isin(skin, np.concatenate([np.zeros(0, dtype=np.int64), *region_map.openings.values()]))
    rims &= np.cumsum(rims) <= count // 2
    return np.sort(np.concatenate([skin[rims], skin[~rims]])[:count])
