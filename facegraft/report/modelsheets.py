"""Picture sheets of the heads that the model's commands decode. They take plain arrays, so nothing here needs torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facegraft.report.facesheet import Tile, write_face_sheet
from facegraft.vocabulary import REM


def write_edit_sheet(path: Path, command: str, heads: Sequence[Any], title: str) -> Path:
    """The sheet of a command: swap, interpolate, generate or components.

    heads: label, row, column, vertices_mm, faces, part, amount, base and displacement_mm of each (facegraft_model.editing.edit.EditedHead).
    """
    rows, options = _LAYOUTS[command](heads)
    return write_face_sheet(path, rows, title=title, value_label="displacement (mm)", **options)


def _tile(head: Any, *, painted: bool = False, caption: str | None = None, turn_deg: float = 0.0) -> Tile:
    values = None
    if painted and head.displacement_mm is not None:
        # Where the other head has no counterpart, the displacement is unknown and drawn as clay (0).
        values = np.nan_to_num(head.displacement_mm, nan=0.0)
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


def _interpolate(heads: Sequence[Any]) -> tuple[list[list[Tile | None]], dict[str, Any]]:
    count = max(head.row for head in heads) + 1
    rows: list[list[Tile | None]] = []
    titles = []
    for row in range(count):
        own = sorted((head for head in heads if head.row == row), key=lambda head: head.column)
        first = heads[own[-1].base] if own[-1].base is not None else own[0]
        moved = [head for head in own if head.column > 0]
        rows.append([_tile(first, caption=""), *(_tile(head, caption=_percent(head)) for head in moved)])
        rows.append([None, *(_tile(head, painted=True, caption="") for head in moved)])
        titles += [str(moved[0].part), ""]
    # The remainder moves the whole head; on its scale the parts' maps would be pale.
    lengths = [head.displacement_mm for head in heads if head.displacement_mm is not None and head.part != REM]
    limit = max((float(np.nanpercentile(length, 99.5)) for length in lengths), default=0.0)
    return rows, {"row_titles": titles, "colour_limit_mm": round(limit, 1) or None}


def _percent(head: Any) -> str:
    return "" if head.amount is None else f"{100 * head.amount:.0f} %"


def _generate(heads: Sequence[Any]) -> tuple[list[list[Tile | None]], dict[str, Any]]:
    rows: list[list[Tile | None]] = [
        [_tile(head) for head in sorted((h for h in heads if h.row == row), key=lambda h: h.column)]
        for row in range(max(head.row for head in heads) + 1)
    ]
    return rows, {}


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
    return rows, {"row_titles": titles, "column_titles": columns}


_LAYOUTS = {"swap": _swap, "interpolate": _interpolate, "generate": _generate, "components": _components}


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
