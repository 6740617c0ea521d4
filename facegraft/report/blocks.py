"""Building blocks of the page's sections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image


@dataclass(frozen=True)
class Picture:
    """A picture with a caption; the picture is None if it could not be made, and the caption says why."""

    image: Image.Image | None
    caption: str
    note: str = ""


@dataclass(frozen=True)
class Sheet:
    """Pictures in rows of `columns`; `width` is the minimum width of a cell in CSS pixels."""

    pictures: Sequence[Picture]
    columns: int
    width: int = 130
    kind: str = field(default="sheet", init=False)


@dataclass(frozen=True)
class ColourBar:
    """A CSS gradient from 0 to `top`, with its unit."""

    gradient: str
    ticks: Sequence[str]
    label: str
    kind: str = field(default="bar", init=False)


@dataclass(frozen=True)
class Legend:
    """Colours by name."""

    entries: Sequence[tuple[str, str]]
    kind: str = field(default="legend", init=False)


@dataclass(frozen=True)
class Chart:
    """An inline SVG."""

    svg: str
    kind: str = field(default="chart", init=False)


@dataclass(frozen=True)
class Table:
    """A table of text; numeric columns are right-aligned. A cell that starts with "✓" or "✗" is coloured."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[int] = ()
    kind: str = field(default="table", init=False)


@dataclass(frozen=True)
class Text:
    """A paragraph; `missing` marks a note about content that could not be made."""

    text: str
    missing: bool = False
    kind: str = field(default="text", init=False)


@dataclass(frozen=True)
class Code:
    """Commands."""

    text: str
    kind: str = field(default="code", init=False)


Block = Sheet | ColourBar | Legend | Chart | Table | Text | Code


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading; `name` is its anchor."""

    name: str
    title: str
    lead: str
    blocks: Sequence[Block]
