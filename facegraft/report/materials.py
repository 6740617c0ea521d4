"""The materials of a page's sections: the data that was found, and scenes that several sections draw."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from facegraft.report.choose import composites_measured, spread
from facegraft.report.clay import head_look
from facegraft.report.gather import Gathered
from facegraft.report.scenes import Framing, HeadScenes, frame_heads
from facegraft.report.seams import SeamMap, seam_map
from facegraft.report.studio import Studio

COMPOSITES_MEASURED = 60
FRAMED = 12


class Topology:
    """How the run's heads are drawn: the dataset with the faces, template, framing and look."""

    def __init__(self, found: Gathered) -> None:
        self.found = found
        dataset = found.dataset("heads") or found.dataset("composites")
        assert dataset is not None
        self.faces = np.asarray(dataset.faces, dtype=np.int64)
        self.region_map = found.region_map
        subjects = spread(sorted(found.neutral), FRAMED)
        heads = [head for subject in subjects if (head := found.neutral_head(subject)) is not None]
        if not heads:  # no neutral head anywhere: use any head for the framing
            heads = [
                {name: dataset.read(key, name).astype(np.float64) for name in ("vertices", "landmarks")}
                for key in spread(dataset.keys(), FRAMED)
            ]
        self.template = np.mean([head["vertices"] for head in heads], axis=0)
        self.landmarks = np.mean([head["landmarks"] for head in heads], axis=0)
        surface = self.region_map.vertices_of("surface") if self.region_map else None
        self.framing: Framing = frame_heads([(head["vertices"], head["landmarks"]) for head in heads], surface)
        labels = self.region_map.vertex_labels(found.regions.name) if self.region_map and found.regions else None
        self.look = head_look(self.template, self.faces, self.region_map, labels)

    def scenes(self, studio: Studio) -> HeadScenes:
        """The scenes of these heads."""
        return HeadScenes(studio, self.look, self.framing)


@dataclass
class Page:
    """The materials of one page. The studio opens for the first picture: before that, only `found` and `measured` can be used."""

    found: Gathered
    opened: Studio | None = None

    @property
    def studio(self) -> Studio:
        """The studio in which pictures are drawn."""
        assert self.opened is not None, "a section with pictures can only be made after the studio has been opened"
        return self.opened

    @cached_property
    def topology(self) -> Topology | None:
        """How the heads are drawn; None where there are no registered heads."""
        registered = self.found.dataset("heads") or self.found.dataset("composites")
        return Topology(self.found) if registered else None

    @cached_property
    def measured(self) -> SeamMap | None:
        """Measures of grafting, averaged over composites; None where no composite can be measured."""
        found, topology, composites = self.found, self.topology, self.found.dataset("composites")
        if topology is None or topology.region_map is None or found.regions is None or composites is None:
            return None
        rows = composites_measured(found.stages["composites"].written, composites.parts, COMPOSITES_MEASURED)
        return seam_map(found, topology.region_map, found.regions, topology.faces, rows)

    @cached_property
    def scenes(self) -> HeadScenes | None:
        """Pictures of registered heads."""
        return None if self.topology is None else self.topology.scenes(self.studio)
