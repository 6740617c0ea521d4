"""The template morph: the registered skin points that are followed from a composite to the template."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from facegraft.regions.regionmap import RegionMap


def choose_stage_vertices(region_map: RegionMap, count: int) -> NDArray[np.int64]:
    """The skin vertices followed through the morph: at most `count`, a random set that depends on the topology alone."""
    digest = hashlib.sha256(region_map.faces_sha256.encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    return np.sort(rng.permutation(region_map.kept_skin())[:count])
