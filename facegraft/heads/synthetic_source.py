"""Heads of the built-in synthetic family: no files are needed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Floats
from facegraft.heads import synthetic
from facegraft.heads.errors import SourceError
from facegraft.heads.expressions import BY_NAME, check_names, expression_intensity
from facegraft.heads.options import SyntheticOptions
from facegraft.heads.sanity import check_head
from facegraft.heads.source import (
    DEFAULT_EXPRESSIONS,
    DEFAULT_SUBJECTS,
    Head,
    HeadSource,
    Loader,
    SourcePlan,
    subject_name,
)
from facegraft.regions.regionmap import RegionMap, load_region_map
from facegraft.seeds import subject_rng
from facegraft.store.remote import Location
from facegraft.vocabulary import NEUTRAL

FAMILY_VERSION = 1
"""Version of the family's heads, raised when they change: a run begun with the old heads is not continued with the new."""


class SyntheticSource(HeadSource):
    """Subjects s0001, s0002, … of the synthetic family."""

    Options = SyntheticOptions

    def __init__(self, path: Location | None, options: SyntheticOptions, seed: int) -> None:
        if path is not None:
            raise SourceError(f"{path}: kind synthetic reads no files; leave the folder out")
        self.options, self.seed = options, seed

    def plan(self) -> SourcePlan:
        """List the heads, subjects × expressions; raises SourceError for expressions that the family does not have."""
        faces = synthetic.template().faces.astype(np.int32)
        region_map = load_region_map(self.options.region_map or "synthetic")
        region_map.check_mesh(len(synthetic.template().vertices), faces, "the synthetic family")
        if region_map.mm_per_unit != 1.0:
            raise SourceError(
                f"{self.options.region_map}: its unit is {region_map.mm_per_unit:g} mm, the synthetic family's 1 mm; build it with --mm-per-unit 1"
            )
        first, count = self.options.first_subject, self.options.subjects or DEFAULT_SUBJECTS
        names = self._expressions()
        heads = [self._head(number, name) for number in range(first, first + count) for name in names]
        identity = {"family": "synthetic", "version": FAMILY_VERSION}
        return SourcePlan(region_map, faces, heads, identity=identity, columns={"intensity": "float64"})

    def loader(self, shared: Mapping[str, NDArray[Any]], region_map: RegionMap) -> Loader:
        """The family's head of the spec's subject, expression and intensity; float64 [V, 3] in mm."""
        options = self.options

        @lru_cache(maxsize=2)  # a subject's expressions follow each other
        def coefficients(number: int) -> Floats:
            rng = subject_rng(self.seed, "synthetic", number, "identity")
            return options.sigma * synthetic.sample_identity(rng, asymmetry=1.0 - options.symmetrise)

        def load(spec: Mapping[str, Any]) -> Floats:
            vertices = synthetic.head(coefficients(spec["number"]), spec["expression"], spec["intensity"])
            check_head(vertices, region_map.landmarks68, 1.0, subject_name(spec["number"]))
            return vertices

        return load

    def _expressions(self) -> list[str]:
        known, wanted = synthetic.EXPRESSIONS, self.options.expressions
        if wanted is None or isinstance(wanted, int):
            count = DEFAULT_EXPRESSIONS if wanted is None else wanted
            if count > len(known):
                raise SourceError(f"expressions={count}: the synthetic family has {len(known)}: {', '.join(known)}")
            return list(known[:count])
        check_names(wanted, known)
        return [name for name in known if name in wanted]

    def _head(self, number: int, name: str) -> Head:
        expression = BY_NAME[name]
        intensity = expression_intensity(self.seed, "synthetic", number, expression)
        return Head(
            subject=subject_name(number),
            expression=name,
            number=expression.number,
            spec={"number": number, "expression": name, "intensity": intensity},
            row={"intensity": None if name == NEUTRAL else intensity},
        )
