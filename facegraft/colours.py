"""Colours of parts, the same in every picture and chart: by label, so that they need no list of names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from facegraft.parts import Parts

CLAY = "#dccdc0"
"""Colour of the remainder, and of everything that is not coloured."""

_PALETTE = (
    "#e0913f",
    "#4a8fd0",
    "#cf5b78",
    "#5fa36a",
    "#8a6fc4",
    "#c2a13a",
    "#3fa7a3",
    "#b3654a",
    "#7f8c5a",
    "#d784c4",
)


def label_colour(label: int) -> str:
    """`#rrggbb` of a part label; after the end of the palette the colours repeat."""
    return CLAY if label == 0 else _PALETTE[(label - 1) % len(_PALETTE)]


def part_colours(parts: Parts) -> dict[str, str]:
    """`#rrggbb` of each part, in cascade order."""
    return {name: label_colour(parts.label(name)) for name in parts}


def disk_colours(parts: Parts, part_of: Mapping[str, str]) -> dict[str, str]:
    """`#rrggbb` of each disk: its part's colour, paler for every further disk of the same part."""
    colours: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for disk, part in part_of.items():
        colours[disk] = _paler(label_colour(parts.label(part)), 0.4 * min(seen[part], 2))
        seen[part] += 1
    return colours


def _paler(colour: str, share: float) -> str:
    """The colour mixed with a share of white."""
    channels = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(channel + share * (255 - channel)):02x}" for channel in channels)
