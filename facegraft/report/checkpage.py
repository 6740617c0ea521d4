"""The page of `facegraft ingest --check`: what is in a source of heads, what looks odd, and pictures, odd heads first."""

from __future__ import annotations

import numpy as np
from PIL import Image

from facegraft.arrays import Floats
from facegraft.report.blocks import Block, Picture, Section, Sheet, Table, Text
from facegraft.report.choose import spread
from facegraft.report.clay import HeadLook, head_look
from facegraft.report.odd import odd_blocks
from facegraft.report.page import render_page
from facegraft.report.scenes import Framing, frame_heads, portrait
from facegraft.report.studio import Camera, Studio, start_probe
from facegraft.stages.census import Census, rows

ODD_SHOWN, OTHERS_SHOWN = 60, 96
ACROSS, HIGH = 8, 260
MARGIN, MOST = 1.1, 98
"""The height of a rejected head's picture: this much more than this percentage of its vertices need."""


def compose_check(census: Census) -> str:
    """The HTML of the page. Raises ReportError where this machine cannot draw."""
    by_reason: dict[str, list[str]] = {}
    for key, reason in census.rejected.items():
        by_reason.setdefault(reason, []).append(key)
    what = Section("there", "What is there", "Everything was read as ingest reads it, and nothing was written.", [Table(["", "found"], rows(census))])
    odd = Section("odd", "What looks odd", "Each measure beside the bound that ingest judges by.", odd_blocks(census.statistics, by_reason))
    with start_probe() as probe, Studio(probe) as studio:
        heads = _heads(census, studio)
    subtitle = f"{len(census.items):,} heads of kind {census.kind}, {len(census.rejected):,} of which ingest would reject."
    return render_page(f"facegraft check: {census.where}", subtitle, [what, odd, heads])


def _heads(census: Census, studio: Studio) -> Section:
    """Thumbnails: heads that would be rejected, heads that look odd, and the others, at most so many of each."""
    refused = [item.key for item in census.items if item.key in census.rejected]
    strange = [key for key in census.odd if key not in census.rejected]
    others = [item.key for item in census.items if item.key not in census.rejected and item.key not in strange]
    shown = [*spread(refused, ODD_SHOWN), *spread(strange, ODD_SHOWN), *spread(others, OTHERS_SHOWN)]
    odd = dict.fromkeys(strange, "✗ odd") | {key: f"✗ {reason}" for key, reason in census.rejected.items()}
    artist = _Artist(census)
    pictures = [artist.picture(studio, key, odd.get(key, "")) for key in shown]
    blocks: list[Block] = [Sheet(pictures, ACROSS, 110)]
    if left := len(census.items) - len(shown):
        blocks.append(Text(f"{left:,} heads are not shown: at most {ODD_SHOWN} rejected, {ODD_SHOWN} odd and {OTHERS_SHOWN} others, evenly spread."))
    lead = "From the front (+z), as ingest sees them; ✗ marks heads that would be rejected or look odd, which come first."
    return Section("heads", "Heads", lead, blocks)


class _Artist:
    """Draws the heads of a census; the look and the framing are the typical head's, or the first's that can be read."""

    def __init__(self, census: Census) -> None:
        self.census, self.region_map = census, census.prepared.plan.region_map
        self.landmarks = np.asarray(self.region_map.landmarks68)
        self.typical = census.typical if census.typical is not None else self._first()
        self.look: HeadLook | None = None
        self.framing: Framing | None = None
        if self.typical is not None:
            self.look = head_look(self.typical, np.asarray(census.faces, dtype=np.int64), self.region_map, None)
            self.framing = frame_heads([(self.typical, self.typical[self.landmarks])], self.region_map.vertices_of("surface"))

    def _first(self) -> Floats | None:
        good = (item.key for item in self.census.items if item.key not in self.census.rejected)
        return next((found for key in good if (found := self.census.vertices(key)) is not None), None)

    def picture(self, studio: Studio, key: str, note: str) -> Picture:
        """One head, or why it has no picture."""
        vertices = self.census.vertices(key)
        if vertices is None or self.look is None:
            return Picture(None, key, note or "cannot be read")
        return Picture(self._shot(studio, self.look, vertices, key in self.census.rejected), key, note)

    def _shot(self, studio: Studio, look: HeadLook, vertices: Floats, own: bool) -> Image.Image:
        # Around the origin: far away, single precision would not do.
        middle = np.median(vertices, axis=0)
        return studio.shoot([look.body(vertices - middle)], self._camera(vertices - middle, own), portrait(HIGH))

    def _camera(self, vertices: Floats, own: bool) -> Camera:
        """The typical head's framing; or, for a head that may be of any size and pose, one that holds nearly all of its vertices."""
        assert self.framing is not None
        seen = self.framing.camera(vertices[self.landmarks])
        if not own:
            return seen
        size = float(np.percentile(np.linalg.norm(vertices, axis=1), MOST))
        return Camera(np.zeros(3), max(2 * MARGIN * size, 1e-3), seen.turn_deg, seen.tilt_deg)
