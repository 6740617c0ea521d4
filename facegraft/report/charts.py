"""Charts as inline SVG; text and lines follow the page's light or dark colours."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator

from facegraft.arrays import Floats
from facegraft.colours import CLAY, label_colour
from facegraft.geometry.graft import SANE_RANGE, SURE_RANGE
from facegraft.report.thresholds import (
    FLIPS_PER_COMPOSITE,
    SEAM_MAX_MEDIAN_DEG,
    SEAM_RMS_MEDIAN_DEG,
    SEAM_RMS_P95_DEG,
)

# Placeholder colours that nothing else uses; in the SVG they are replaced by the page's colours.
INK, FAINT, ALARM, PAPER = "#010203", "#040506", "#070809", "#0a0b0c"
_PAGE_COLOURS = {INK: "currentColor", FAINT: "var(--rule)", ALARM: "var(--alarm)", PAPER: "var(--card)"}

STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}

ONE, OTHER = label_colour(1), label_colour(2)
"""Colours of two series that are not parts."""

HEAT = LinearSegmentedColormap.from_list("heat", [CLAY, "#f0b44c", "#d8533f", "#7a1f5c"])
"""Colour map from clay (zero) to dark red."""

DISTANCE = LinearSegmentedColormap.from_list(
    "distance", ["#8c2f23", "#d9694c", "#f3b99b", "#fbf6f0", "#a9cbdc", "#4b88ad", "#1d4668"]
)
"""Signed distance: warm inside, white on the surface, blue outside."""

SIGN = LinearSegmentedColormap.from_list(
    "sign", [(0.0, "#6d1510"), (0.5, "#f0916a"), (0.5, "#74b4da"), (1.0, "#12385c")]
)
"""Signed distance of single points, with a step at zero, so that the side of a point is visible even near the surface."""


def gradient(colours: Colormap, stops: int = 12) -> str:
    """A CSS gradient of a colour map, for a colour bar."""
    listed = [matplotlib.colors.to_hex(colours(i / (stops - 1))) for i in range(stops)]
    return f"linear-gradient(to right, {', '.join(listed)})"


def to_svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an SVG element for a page; `name` makes its ids different from those of other figures."""
    buffer = io.StringIO()
    FigureCanvasSVG(figure)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", text)
    for colour, page in _PAGE_COLOURS.items():
        text = text.replace(colour, page)
    # matplotlib names its own fonts; use the page's instead.
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 var(--sans)", text)
    text = re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-label="{label}">', text, count=1
    )
    return text


def figure_of(width: float, height: float) -> Figure:
    """An empty figure of the given size in inches."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.08))


def quality_histograms(columns: Mapping[str, Floats], colours: Mapping[str, str], residual: Mapping[str, float]) -> str:
    """Histograms of the quality figures of composites: one line per disk, thresholds as dashed vertical lines.

    colours: the colour of each disk. residual: the threshold in mm of each disk's residual, where there is one.
    """
    disks = list(colours)
    with matplotlib.rc_context(STYLE):
        figure = figure_of(11.2, 5.4)
        axes = figure.subplots(2, 3)
        drawn = [
            (
                "residual_mm",
                "residual on the loop, RMS (mm)",
                [(v, f"{v:g} median, {_group(residual, v)}") for v in sorted(set(residual.values()))],
            ),
            (
                "seam_excess_rms_deg",
                "seam excess, RMS (°)",
                [(SEAM_RMS_MEDIAN_DEG, "median"), (SEAM_RMS_P95_DEG, "95th percentile")],
            ),
            ("seam_excess_max_deg", "seam excess, largest edge (°)", [(SEAM_MAX_MEDIAN_DEG, "median")]),
            (
                "sv_min",
                "smallest singular value",
                [(SURE_RANGE[0], "flagged below"), (SANE_RANGE[0], "rejected below")],
            ),
            ("sv_max", "largest singular value", [(SURE_RANGE[1], "flagged above"), (SANE_RANGE[1], "rejected above")]),
        ]
        for axis, (name, title, lines) in zip(axes.ravel(), drawn, strict=False):
            values = {disk: columns[f"{disk}_{name}"] for disk in disks}
            _histogram(axis, values, colours, [value for value, _ in lines])
            _thresholds(axis, lines)
            axis.set_title(title)
        _flips(axes.ravel()[5], columns, colours)
        for axis in axes[:, 0]:
            axis.set_ylabel("composites")
        handles = [Line2D([], [], color=colours[disk], lw=2) for disk in disks]
        figure.legend(
            handles, [disk.replace("_", " ") for disk in disks], loc="outside lower center", ncols=min(len(disks), 8)
        )
        return to_svg(figure, "quality", "Histograms of the quality figures of composites")


def _group(residual: Mapping[str, float], value: float) -> str:
    """Names of the disks with this threshold, a left and a right one as one."""
    sides = (disk.removesuffix("_left").removesuffix("_right") for disk, limit in residual.items() if limit == value)
    return ", ".join(dict.fromkeys(side.replace("_", " ") for side in sides))


def _histogram(axis: Axes, values: Mapping[str, Floats], colours: Mapping[str, str], marks: Sequence[float]) -> None:
    everything = np.concatenate([*values.values(), np.asarray(marks, dtype=float)])
    everything = everything[np.isfinite(everything)]
    low, high = float(everything.min()), float(everything.max())
    pad = 0.06 * (high - low) or 0.5
    bins = np.linspace(low - pad, high + pad, 25)
    for disk, found in values.items():
        colour = colours[disk]
        axis.hist(found, bins=bins.tolist(), histtype="stepfilled", color=colour, alpha=0.16)
        axis.hist(found, bins=bins.tolist(), histtype="step", color=colour, lw=1.5)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))


def _thresholds(axis: Axes, lines: Sequence[tuple[float, str]]) -> None:
    top = axis.get_ylim()[1]
    axis.set_ylim(0, 1.28 * top)
    low, high = axis.get_xlim()
    for value, _ in lines:
        axis.axvline(value, color=ALARM, ls=(0, (4, 3)), lw=1.1)
    for number, (value, label) in enumerate(lines):
        right = value < (low + high) / 2
        axis.annotate(
            f"threshold: {label}",
            (value, (1.22 - 0.10 * number) * top),
            xytext=(4 if right else -4, 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            fontsize=7.5,
            color=ALARM,
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.2},
        )


def _flips(axis: Axes, columns: Mapping[str, Floats], colours: Mapping[str, str]) -> None:
    """Number of composites by flipped faces, for each disk: grouped bars at 0, 1, 2, … and a last one for larger counts."""
    most = 6
    width = 0.8 / len(colours)
    for number, (disk, colour) in enumerate(colours.items()):
        flips = np.minimum(columns[f"{disk}_flips"], most).astype(int)
        axis.bar(
            np.arange(most + 1) + (number - (len(colours) - 1) / 2) * width,
            np.bincount(flips, minlength=most + 1),
            width,
            color=colour,
            alpha=0.85,
        )
    axis.set_xticks(range(most + 1), [*map(str, range(most)), f"{most}+"])
    axis.set_title("flipped faces of a part")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    _thresholds(axis, [(FLIPS_PER_COMPOSITE + 0.5, f"mean of all parts together ≤ {FLIPS_PER_COMPOSITE:g}")])


def distance_slices(slices: Sequence[tuple[str, tuple[str, str], Floats, float]], limit_mm: float) -> str:
    """Slices of a signed distance: (title, (across, up), sdf [n, n] in mm over ±half, half in mm), shown within the ball."""
    with matplotlib.rc_context(STYLE):
        figure = figure_of(11.2, 5.1)
        axes = figure.subplots(1, len(slices), squeeze=False)[0]
        for axis, (title, (across, up), sdf, half) in zip(axes, slices, strict=True):
            extent = (-half, half, -half, half)
            image = axis.imshow(
                sdf,
                origin="lower",
                extent=extent,
                cmap=DISTANCE,
                norm=Normalize(-limit_mm, limit_mm),
                interpolation="bilinear",
            )
            ball = Circle((0, 0), half, transform=axis.transData)
            image.set_clip_path(ball)
            steps = np.linspace(-half, half, len(sdf))
            levels = [level for level in np.arange(-200, 201, 10) if level]
            fine = axis.contour(
                steps, steps, sdf, levels=levels, colors="#405060", alpha=0.4, linewidths=0.5, linestyles="solid"
            )
            bold = axis.contour(steps, steps, sdf, levels=[0.0], colors="#1b1b1f", linewidths=1.6)
            for lines in (fine, bold):
                lines.set_clip_path(ball)
            axis.set_title(title)
            axis.set_xlabel(f"{across} (mm)")
            axis.set_ylabel(f"{up} (mm)")
            axis.set_aspect("equal")
            for spine in axis.spines.values():
                spine.set_visible(False)
        bar = figure.colorbar(
            ScalarMappable(Normalize(-limit_mm, limit_mm), DISTANCE),
            ax=axes,
            shrink=0.8,
            pad=0.02,
            label="signed distance (mm), negative inside",
            extend="both",
        )
        bar.outline.set_visible(False)
        return to_svg(figure, "slices", "Slices of the signed distance with its zero level line")


def distance_agreement(pairs: Mapping[str, tuple[Floats, Floats]]) -> str:
    """Stored against recomputed signed distances in mm, and their difference."""
    colours = {"near": ONE, "free": OTHER}
    with matplotlib.rc_context(STYLE):
        figure = figure_of(11.2, 3.3)
        left, right = figure.subplots(1, 2)
        for name, (stored, again) in pairs.items():
            left.plot(
                again, stored, ".", ms=2.5, alpha=0.5, color=colours[name], label=f"{name} points", rasterized=True
            )
            right.plot(again, 1e6 * (stored - again), ".", ms=2.5, alpha=0.5, color=colours[name], rasterized=True)
        ends = left.get_xlim()
        left.plot(ends, ends, color=INK, lw=0.7, alpha=0.6)
        left.set_title("stored against recomputed (mm)")
        left.set_xlabel("recomputed from the surface (mm)")
        left.set_ylabel("stored (mm)")
        left.legend(loc="upper left", markerscale=3)
        right.set_title("stored − recomputed (nanometres: the rounding error of float32)")
        right.set_xlabel("recomputed from the surface (mm)")
        right.set_ylabel("difference (nm)")
        return to_svg(figure, "agreement", "Stored against recomputed signed distances")


def item_times(stages: Mapping[str, Sequence[float]]) -> str:
    """Seconds per item, by stage, on a logarithmic axis: one dot per item, the median as a bar."""
    with matplotlib.rc_context(STYLE):
        figure = figure_of(11.2, 0.7 + 0.42 * len(stages))
        axis = figure.subplots()
        for row, seconds in enumerate(stages.values()):
            times = np.maximum(np.asarray(seconds), 1e-6)
            # A fixed low-discrepancy jitter: the same data give the same picture.
            jitter = (np.arange(len(times)) * 0.6180339887) % 1 - 0.5
            axis.plot(times, row + 0.5 * jitter, ".", ms=3, alpha=0.45, color=OTHER, rasterized=True)
            axis.plot([np.median(times)] * 2, [row - 0.36, row + 0.36], color=ALARM, lw=2)
        axis.set_xscale("log")
        axis.set_yticks(range(len(stages)), list(stages))
        axis.invert_yaxis()
        axis.set_xlabel("seconds per item (red: median)")
        axis.grid(axis="x", lw=0.5)
        axis.tick_params(axis="y", length=0)
        return to_svg(figure, "times", "Seconds per item by stage")
