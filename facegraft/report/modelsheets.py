"""Picture sheets of the heads that the model's commands decode. They take plain arrays, so nothing here needs torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from facegraft.arrays import Floats
from facegraft.parts import Parts
from facegraft.report.facesheet import Tile, write_face_sheet
from facegraft.report.scale import nice_limit
from facegraft.vocabulary import EXP, REM

INTERPOLATION_LIMIT_MM = 4.0
"""End of the colour scale of an interpolation, that of the paper's Figure 8."""

CLOSE_UP_TURN = 20.0
"""Degrees by which a close-up is turned: from the front, the height of a nose is not seen."""


def write_edit_sheet(
    path: Path,
    command: str,
    heads: Sequence[Any],
    title: str,
    *,
    parts: Parts | None = None,
    limit_mm: float | None = None,
    ends: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """The sheet of a command: swap, interpolate, generate (also with --figure) or components.

    heads: label, row, column, vertices_mm, faces, parts, part, amount, base and displacement_mm of each (facegraft_model.editing.edit.EditedHead).
    parts: the parts of their labels, for the close-ups of an interpolation. limit_mm: end of the colour scale; None:
    INTERPOLATION_LIMIT_MM, or for the other commands by the values. ends: true heads beside their fits, for an interpolation, as
    `write_fit_sheet` takes them.
    """
    if command == "interpolate":
        rows, options = _interpolate(heads, parts, ends)
    else:
        rows, options = _LAYOUTS[command](heads)
    if limit_mm is not None:
        options["colour_limit_mm"] = limit_mm
    return write_face_sheet(path, rows, title=title, value_label="displacement (mm)", **options)


def _lengths(head: Any) -> Floats | None:
    """The displacements of a head's vertices; 0, which is clay, where the other head has no counterpart."""
    return None if head.displacement_mm is None else np.nan_to_num(head.displacement_mm, nan=0.0)


def _tile(head: Any, *, painted: bool = False, caption: str | None = None, turn_deg: float = 0.0) -> Tile:
    values = _lengths(head) if painted else None
    return Tile(
        head.vertices_mm, head.faces, values, caption=head.label if caption is None else caption, turn_deg=turn_deg
    )


def _swap(heads: Sequence[Any]) -> tuple[list[list[Tile | None]], dict[str, Any]]:
    result = heads[-1]
    faces: list[Tile | None] = [_tile(head) for head in heads]
    side: list[Tile | None] = [_tile(head, caption="", turn_deg=40) for head in heads]
    faces.append(_tile(result, painted=True, caption="change of the host"))
    side.append(_tile(result, painted=True, caption="", turn_deg=40))
    titles = ["host", *["donor"] * (len(heads) - 2), "swapped", "displacement"]
    return [faces, side], {"column_titles": titles}


def _interpolate(
    heads: Sequence[Any], parts: Parts | None, ends: Sequence[Mapping[str, Any]]
) -> tuple[list[list[Tile | None]], dict[str, Any]]:
    """A row for each part: its heads from 0 to 100 %, the maps of their displacements, and close-ups of the part."""
    rows: list[list[Tile | None]] = []
    titles: list[str] = []
    if ends:
        rows.append([tile for end in ends for tile in _end(end)])
        titles.append("from, to")
    last = ""
    for row in range(max(head.row for head in heads) + 1):
        moved = sorted((head for head in heads if head.row == row and head.part is not None), key=lambda head: head.column)
        part = str(moved[0].part)
        # The first head of a row is the last one of the row before; its map, from the first head of that row, is what the last part changed.
        first = heads[moved[0].base]
        plain = [_tile(first, caption="0 %"), *(_tile(head, caption=_percent(head)) for head in moved)]
        maps: list[Tile | None] = [None] if first.base is None else [
            replace(plain[0], values=_lengths(first), caption=f"displacement by {last}")
        ]
        maps += [
            replace(tile, values=_lengths(head), caption=f"displacement, {tile.caption}")
            for tile, head in zip(plain[1:], moved, strict=True)
        ]
        box = _part_box([first, *moved], part, parts)
        near = [] if box is None else [
            replace(tile, close_up=box, turn_deg=CLOSE_UP_TURN, caption=f"close-up, {tile.caption}") for tile in plain
        ]
        rows.append([*plain, *maps, *near])
        titles.append(part)
        last = part
    return rows, {"row_titles": titles, "colour_limit_mm": INTERPOLATION_LIMIT_MM}


def _end(end: Mapping[str, Any]) -> list[Tile]:
    """A true head, its fit, and the fit's distance from it."""
    true_vertices, true_faces = end["truth"]
    vertices, faces, _, distance = end["fit"]
    fit = Tile(vertices, faces, caption=f"{end['key']}, fit")
    return [
        Tile(true_vertices, true_faces, caption=f"{end['key']}, truth"),
        fit,
        replace(fit, values=distance, caption=f"{end['key']}, distance"),
    ]


def _part_box(heads: Sequence[Any], part: str, parts: Parts | None) -> Floats | None:
    """The box [2, 3] of a part in all these heads; None for the remainder, and without labels of it."""
    if parts is None or part not in parts:
        return None
    label = parts.label(part)
    own = [head.vertices_mm[head.parts == label] for head in heads if head.parts is not None]
    points = np.concatenate([*own, np.zeros((0, 3))])
    return np.stack([points.min(axis=0), points.max(axis=0)]) if len(points) > 1 else None


def _percent(head: Any) -> str:
    return "" if head.amount is None else f"{100 * head.amount:.0f} %"


def _generate(heads: Sequence[Any]) -> tuple[list[list[Tile | None]], dict[str, Any]]:
    rows: list[list[Tile | None]] = [
        [_tile(head) for head in sorted((h for h in heads if h.row == row), key=lambda h: h.column)]
        for row in range(max(head.row for head in heads) + 1)
    ]
    return rows, {}


def _figure(heads: Sequence[Any]) -> tuple[list[list[Tile | None]], dict[str, Any]]:
    """Two rows for each original: it and its heads with one random part, and the maps of their displacements from it."""
    rows: list[list[Tile | None]] = []
    titles: list[str] = []
    columns: list[str] = []
    for row in range(max(head.row for head in heads) + 1):
        own = sorted((head for head in heads if head.row == row), key=lambda head: head.column)
        plain = [_tile(head, caption="") for head in own]
        maps = [replace(tile, values=_lengths(head)) for tile, head in zip(plain[1:], own[1:], strict=True)]
        rows += [list(plain), [None, *maps]]
        titles += [str(own[0].label), ""]
        columns = ["original", *(str(head.part).replace("_", " ").capitalize() for head in own[1:])]
    return rows, {"row_titles": titles, "column_titles": columns, "colour_limit_mm": _limit_of_parts(heads)}


def _limit_of_parts(heads: Sequence[Any]) -> float | None:
    """The end of the colour scale by what the parts move; None, by all values, where only remainder or expression move.

    These two move the whole head; on their scale the parts' maps would be pale."""
    shown = [head.displacement_mm for head in heads if head.displacement_mm is not None and head.part not in (REM, EXP)]
    counted = [lengths[np.isfinite(lengths)] for lengths in shown]
    return nice_limit(counted) if any(map(len, counted)) else None


def _components(heads: Sequence[Any]) -> tuple[list[list[Tile | None]], dict[str, Any]]:
    rows: list[list[Tile | None]] = []
    titles: list[str] = []
    components: Counter[str] = Counter()
    columns: list[str] = []
    for row in sorted({head.row for head in heads if head.amount is not None}):
        own = sorted(
            (head for head in heads if head.row == row and head.amount is not None), key=lambda head: head.column
        )
        moved = [head for head in own if head.amount]
        rows.append(
            [*(_tile(head, caption="") for head in own), *(_tile(head, painted=True, caption="") for head in moved)]
        )
        columns = [f"{head.amount:+g} σ" if head.amount else "mean" for head in own] + [
            f"displacement {head.amount:+g} σ" for head in moved
        ]
        components[own[0].part] += 1
        titles.append(f"{own[0].part} {components[own[0].part]}")
    return rows, {"row_titles": titles, "column_titles": columns, "colour_limit_mm": _limit_of_parts(heads)}


_LAYOUTS = {"swap": _swap, "generate": _generate, "generate --figure": _figure, "components": _components}


def write_fit_sheet(path: Path, heads: Sequence[Mapping[str, Any]], title: str) -> Path:
    """Truth, reconstruction, its distance from the truth, its parts, and a view from the side: a row for each head.

    heads: mappings with key, truth (vertices in mm, faces) and fit (vertices in mm, faces, parts or None, distance in mm [n]).
    """
    rows: list[list[Tile | None]] = []
    for head in heads:
        vertices, faces, parts, distance = head["fit"]
        true_vertices, true_faces = head["truth"]
        rows.append(
            [
                Tile(true_vertices, true_faces),
                Tile(vertices, faces),
                Tile(vertices, faces, distance),
                Tile(vertices, faces, parts=parts),
                Tile(true_vertices, true_faces, turn_deg=40),
                Tile(vertices, faces, turn_deg=40),
            ]
        )
    columns = ["truth", "fit", "distance to the truth", "parts", "truth", "fit"]
    return write_face_sheet(
        path,
        rows,
        title=title,
        row_titles=[str(head["key"]) for head in heads],
        column_titles=columns,
        value_label="distance (mm)",
    )
