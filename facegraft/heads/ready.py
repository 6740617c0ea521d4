"""One head made ready to be stored: read or computed, its pose taken out where that is asked for, and compared with the others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from facegraft.arrays import Floats, Ints
from facegraft.errors import FacegraftError
from facegraft.heads.alignment import (
    STABLE_LANDMARKS,
    TO_ALIGN,
    Alignment,
    Motion,
    expression_map,
    motion,
    moved,
    neutral_map,
)
from facegraft.heads.errors import HeadError
from facegraft.heads.sanity import check_head
from facegraft.heads.source import Loader
from facegraft.heads.typical import Likeness, fault_of_edges, fault_of_pose, likeness, pose_of_expression
from facegraft.regions.regionmap import RegionMap
from facegraft.store import RemoteError

ROUNDING_MM = 0.01
"""Largest rounding error of a stored coordinate."""

Spec = Mapping[str, Any]


@dataclass(frozen=True)
class Ready:
    """A head that may be stored: vertices [V, 3] in mm; what alignment did to it; how like the others it is; how an expression lies against
    its subject's neutral head. What was not measured is None."""

    vertices: Floats
    aligned: Motion | None = None
    likeness: Likeness | None = None
    pose: Motion | None = None


def judged_skin(region_map: RegionMap) -> Ints:
    """The vertices by which a head is judged: its outer skin above the neck cut; all, of a map without groups."""
    skin = region_map.kept_skin()
    return skin if len(skin) else np.arange(region_map.vertex_count)


class HeadReader:
    """Makes heads of one source ready; where ingest writes heads and where it only plans or checks, they are judged here.

    load: the source's loader. edges [E, 2] of the mesh. target: the stable landmarks [n, 3] that heads are aligned to, None where they keep
    their pose. typical: the typical head [V, 3], None where none is known. mm_per_unit: for messages.
    """

    def __init__(
        self,
        load: Loader,
        region_map: RegionMap,
        edges: Ints,
        alignment: Alignment,
        mm_per_unit: float,
        target: Floats | None,
        typical: Floats | None,
    ) -> None:
        self.load, self.edges = load, edges
        self.landmarks = np.asarray(region_map.landmarks68)
        self.stable = self.landmarks[list(STABLE_LANDMARKS)]
        self.skin = judged_skin(region_map)
        self.similarity, self.mm_per_unit = alignment == "similarity", mm_per_unit
        self.target, self.typical = target, typical
        self._neutral = lru_cache(maxsize=4)(lambda spec: self.load(json.loads(spec)))
        self._sound_neutral = lru_cache(maxsize=4)(self._load_sound)

    def ready(self, spec: Spec, neutral: Spec | None, where: str) -> Ready:
        """The head of a spec; `neutral`: the spec of its subject's neutral head; `where`: for messages.

        Raises MeshError for a file that cannot be read, HeadError for a mesh that is no head or not like the others.
        """
        motion, pose = None, None
        if self.target is not None:
            assert neutral is not None
            vertices, motion = self._aligned(spec, neutral, self.target, where)
        else:
            vertices = self.load(spec)
        found = self._checked(vertices, where)
        if self.target is None and self.typical is not None:
            pose = self._pose(vertices, spec, neutral, where)
        return Ready(vertices, motion, found, pose)

    def _checked(self, vertices: Floats, where: str) -> Likeness | None:
        """How like the others a head is. Raises HeadError for one that cannot be stored exactly, or is not like them."""
        lost = float(np.abs(vertices.astype(np.float32) - vertices).max())
        if lost > ROUNDING_MM:
            raise HeadError(
                f"{where}: the head lies {np.abs(vertices).max() / 1000:,.0f} m from the origin, where numbers of 32 bits are off by {lost:.2g} mm; "
                f"move it to the origin, {TO_ALIGN}",
                vertices,
            )
        if self.typical is None:
            if fault := fault_of_edges(vertices, self.edges):
                raise HeadError(f"{where}: {fault}", vertices)
            return None
        found = likeness(vertices, self.typical, self.edges, self.skin, self.landmarks)
        # Beside the others first, which says more; but all of them may have the same fault.
        if fault := found.fault(posed=self.target is not None) or fault_of_edges(vertices, self.edges):
            raise HeadError(f"{where}: {fault}", vertices)
        return found

    def _pose(self, vertices: Floats, spec: Spec, neutral: Spec | None, where: str) -> Motion | None:
        """How an expression lies against its subject's neutral head. Raises HeadError where that would be learnt as expression."""
        if neutral is None or neutral == spec:
            return None
        first = self._sound_neutral(json.dumps(neutral))
        if first is None:
            return None
        found = pose_of_expression(vertices, first, self.skin, self.landmarks)
        if fault := fault_of_pose(found):
            raise HeadError(f"{where}: {fault}", vertices)
        return found

    def _load_sound(self, spec: str) -> Floats | None:
        """A neutral head; None for one that is rejected itself, for which its expressions are not to blame."""
        try:
            vertices = self.load(json.loads(spec))
            self._checked(vertices, spec)
        except RemoteError:
            raise
        except FacegraftError:
            return None
        return vertices

    def _aligned(self, spec: Spec, neutral: Spec, target: Floats, where: str) -> tuple[Floats, Motion]:
        """A head without its pose, and what was done."""
        vertices = self.load(spec)
        first, matrix = vertices, np.eye(4)
        if neutral != spec:
            first = self._neutral(json.dumps(neutral))
            matrix = expression_map(vertices[self.skin], first[self.skin], self.similarity)
        matrix = neutral_map(first[self.stable], target, self.similarity) @ matrix
        result = moved(vertices, matrix)
        check_head(result, self.landmarks, self.mm_per_unit, where)
        return result, motion(matrix, vertices[self.stable])
