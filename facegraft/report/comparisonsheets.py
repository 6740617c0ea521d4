"""Pictures of a comparison of methods. They take plain arrays, so nothing here needs torch."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.ticker import FuncFormatter, LogLocator

from facegraft.arrays import Bools, Floats
from facegraft.report.charts import figure_of
from facegraft.report.facesheet import Tile, write_face_sheet
from facegraft.report.scale import nice_limit

TILE_HEIGHT = 240
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "legend.frameon": False,
}


def write_comparison_sheet(path: Path, heads: Sequence[Any], title: str = "Held-out heads by every method") -> Path:
    """For each head the truth and the methods' reconstructions: in clay, coloured by their distance to the truth, and so close up
    on each part. One colour scale for all, which ends at the larger errors of the parts.

    heads: truth (vertices in mm, faces, parts of the faces, vocabulary) and fits, by method a mesh (vertices in mm, faces) and the
    distances in mm of its vertices (facegraft_model.evaluation.comparison.ShownHead). A method without a head leaves its cell empty.
    """
    methods = list(dict.fromkeys(name for head in heads for name in head.fits))
    rows: list[list[Tile | None]] = []
    titles: list[str] = []
    shown: list[Floats] = []
    for head in heads:
        truth = head.truth
        plain: list[Tile | None] = [Tile(truth.vertices, truth.faces, caption="")]
        painted = list(plain)
        for name in methods:
            if name not in head.fits:
                plain.append(None)
                painted.append(None)
                continue
            mesh, distance = head.fits[name]
            plain.append(Tile(mesh.vertices, mesh.faces))
            painted.append(Tile(mesh.vertices, mesh.faces, distance))
        rows += [plain, painted]
        titles += [str(truth.key), "distance"]
        for part in truth.vocabulary:
            own = truth.vertices[truth.faces[truth.parts == truth.vocabulary.label(part)]].reshape(-1, 3)
            box = np.stack([own.min(axis=0), own.max(axis=0)])
            rows.append([None if tile is None else replace(tile, close_up=box) for tile in painted])
            titles.append(part)
            shown += [distance[_inside(mesh.vertices, box)] for mesh, distance in head.fits.values()]
    return write_face_sheet(
        path,
        rows,
        title=title,
        row_titles=titles,
        column_titles=["truth", *methods],
        value_label="distance to the truth (mm)",
        # The scale is that of the parts: the back of the head and the neck, which no one looks at, have larger errors.
        colour_limit_mm=nice_limit(shown) if any(map(len, shown)) else None,
        tile_height=TILE_HEIGHT,
    )


def _inside(points: Floats, box: Floats) -> Bools:
    """Mask [n] of the points [n, 3] in a box [2, 3]."""
    return np.asarray(((points >= box[0]) & (points <= box[1])).all(axis=1))


def write_curves(path: Path, curves: Mapping[str, Any]) -> Path:
    """The error of held-out heads over the seconds of training, a line for each method; one that has a single point is a dashed
    horizontal line. curves: seconds, errors_mm and moving by method (facegraft_model.evaluation.compared.Curve)."""
    from facegraft.store.atomic import write_bytes_atomic

    with matplotlib.rc_context(STYLE):
        figure = figure_of(8.0, 4.4)
        axis = figure.subplots()
        for number, (name, curve) in enumerate(curves.items()):
            colour = matplotlib.colormaps["tab10"](number % 10)
            if curve.moving:
                axis.plot(curve.seconds, curve.errors_mm, "o-", ms=3.5, lw=1.4, color=colour, label=name)
            else:
                axis.axhline(curve.errors_mm[-1], ls="--", lw=1.2, color=colour, label=name)
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_minor_locator(LogLocator(base=10, subs=tuple(np.arange(1.0, 10.0))))
        for which in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
            which(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.tick_params(axis="y", which="minor", labelsize=7)
        axis.grid(axis="y", which="both", lw=0.4, alpha=0.5)
        axis.set_xlim(left=0)
        axis.set_xlabel("seconds of training")
        axis.set_ylabel("mean |sdf| on held-out heads, brief fits (mm)")
        figure.legend(loc="outside right upper")
        buffer = io.BytesIO()
        FigureCanvasAgg(figure)
        figure.savefig(buffer, format="png", dpi=150, facecolor="white")
    write_bytes_atomic(path, buffer.getvalue())
    return path
