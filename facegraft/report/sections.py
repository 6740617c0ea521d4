"""The sections that need no picture of a head: summary, quality, distances, rejects, timings."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Floats
from facegraft.colours import disk_colours
from facegraft.report import charts
from facegraft.report.blocks import Block, Chart, Code, Section, Table, Text
from facegraft.report.choose import spread
from facegraft.report.gather import Gathered, StageFacts
from facegraft.report.thresholds import ALL_PARTS, Check, checks, residual_thresholds
from facegraft.stages.graft import QUALITY_COLUMNS
from facegraft.surfaces.distance import signed_distance
from facegraft.vocabulary import COMPOSITE, KINDS, NOSE_TIP, REM, SPLITS

KEYS_SHOWN = 20
GRID = 181
POINTS_CHECKED = 4000


def summary(found: Gathered) -> Section:
    """Section about the content of each stage."""
    rows = [_summary_row(found.stages[kind]) for kind in KINDS if kind in found.stages]
    head = [
        "dataset",
        "topology",
        "written",
        "rejected",
        "subjects",
        "train / test",
        "mm per unit",
        "size",
        "worker time",
        "seed",
        "parameters (other than defaults)",
    ]
    blocks: list[Block] = [Table(head, rows, numeric=(2, 3, 4, 5, 6, 7, 8, 9))]
    absent = [kind for kind in KINDS if kind not in found.stages]
    if absent:
        blocks.append(
            Text(
                f"Not in this folder: {', '.join(absent)}. The sections about them are left out or say that they are missing.",
                missing=True,
            )
        )
    problems = [facts for facts in found.stages.values() if facts.problem]
    blocks += [Text(f"{facts.kind}: {facts.problem}", missing=True) for facts in problems]
    return Section("summary", "Summary", "The dataset of each stage: its content and how it was made.", blocks)


def _summary_row(facts: StageFacts) -> list[str]:
    if facts.dataset is None:
        return [facts.kind, *["–"] * 10]
    topology = facts.dataset.schema.topology
    name = str(topology["name"] or "unnamed")
    if topology["vertex_count"] is not None:
        name += f", {topology['vertex_count']:,} vertices"
    splits = Counter(row.get("split") for row in facts.written)
    changed = ", ".join(f"{name} = {_plain(value)}" for name, value in facts.changed_parameters().items())
    return [
        facts.kind,
        name,
        f"{len(facts.written):,}",
        f"{len(facts.rows) - len(facts.written):,}",
        str(len({row.get("subject") for row in facts.written})),
        " / ".join(f"{splits.get(split, 0):,}" for split in SPLITS),
        f"{facts.dataset.mm_per_unit:g}",
        size_text(facts.size_bytes),
        duration_text(facts.timings.seconds) if facts.timings else "–",
        str(facts.run.seed) if facts.run else "–",
        changed or "none",
    ]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def size_text(count: int) -> str:
    """A number of bytes as readable text."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration_text(seconds: float) -> str:
    """A number of seconds as readable text."""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def quality(found: Gathered) -> Section:
    """Histograms of the composites' quality figures, and their thresholds."""
    title, lead = (
        "Quality of the grafts",
        (
            "Figures from the composites' index, self-grafts left out. Residual: how far the fitted rim misses the host's. Seam excess: how "
            "far a dihedral angle on the seam lies outside the range of the same edge in donor and host. Thresholds (dashed) were measured on "
            "random ICT heads with the default parameters."
        ),
    )
    dataset = found.dataset("composites")
    if dataset is None:
        return Section("quality", title, lead, [Text(found.missing("composites"), missing=True)])
    facts = found.stages["composites"]
    rows = [row for row in facts.written if not found.is_self_graft(row)]
    figures = set(dataset.schema.columns) - set(dataset.parts.donor_columns.values())
    disks = [name.removesuffix("_residual_mm") for name in dataset.schema.columns if name in figures and name.endswith("_residual_mm")]
    if not rows or not disks:
        return Section(
            "quality", title, lead, [Text("There are only self-grafts here: nothing to measure.", missing=True)]
        )
    columns = {
        name: np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=np.float64)
        for disk in disks
        for name in (f"{disk}_{figure}" for figure in QUALITY_COLUMNS)
        if name in figures
    }
    parameters = facts.run.parameters if facts.run else {}
    regions = found.regions
    known = regions.disks if regions is not None else {}
    residual = residual_thresholds(known, float(parameters.get("stiffness", 0.1)))
    owner = regions.part_of if regions is not None else {}
    colours = disk_colours(dataset.parts, {disk: owner.get(disk, REM) for disk in disks})
    svg = charts.quality_histograms(columns, colours, residual)
    note = f"{len(rows):,} composites."
    if parameters.get("seam", "blend") != "blend":
        note += (
            f" They were made with seam = {parameters['seam']}, to which the seam thresholds do not apply."
        )
    return Section(
        "quality", title, lead, [Chart(svg), Text(note), _check_table(checks(columns, disks, residual), disks)]
    )


def _check_table(found: list[Check], disks: list[str]) -> Table:
    """Table with a row for each figure and a column for each part; the last column is for figures of whole composites."""
    places = [*disks, ALL_PARTS]
    cells: dict[str, dict[str, str]] = {}
    for check in found:
        cells.setdefault(check.figure, {})[check.part] = (
            f"{'✓' if check.within else '✗'} {check.measured:.2f} {'≤' if check.within else '>'} {check.threshold:g}{check.unit}"
        )
    rows = [[figure, *(by_part.get(place, "–") for place in places)] for figure, by_part in cells.items()]
    return Table(
        ["figure", *(place.replace("_", " ") for place in places)], rows, numeric=tuple(range(1, len(places) + 1))
    )


def distances(found: Gathered) -> Section:
    """Slices of one surface's signed distance, and the stored distances of its samples checked against it."""
    title = "Signed distance"
    lead = "Computed here, from one item's surface: sagittal slice through x = 0 and axial slice through the tip of the nose."
    surfaces, samples = found.dataset("surfaces"), found.dataset("samples")
    if surfaces is None:
        return Section("sdf", title, lead, [Text(found.missing("surfaces"), missing=True)])
    key = _key_of_both(found)
    surface = surfaces[key]
    vertices, faces = surface["vertices"].astype(np.float64), surface["faces"].astype(np.int64)
    closed = bool(surfaces.row(key).get("closed", True))
    backend = "winding" if closed else "height_field"
    mm = surfaces.mm_per_unit
    tip = surface["landmarks"][0, NOSE_TIP].astype(np.float64)
    steps = np.linspace(-1, 1, GRID)
    across, up = np.meshgrid(steps, steps)
    planes = {
        "sagittal, x = 0": (("z", "y"), np.stack([np.zeros_like(up), up, across], axis=-1)),
        f"axial, y = {tip[1] * mm:.0f} mm (tip of the nose)": (
            ("x", "z"),
            np.stack([across, np.full_like(up, tip[1]), up], axis=-1),
        ),
    }
    slices = []
    for name, (axes, grid) in planes.items():
        sdf = mm * signed_distance(vertices, faces, grid.reshape(-1, 3), backend).sdf
        slices.append((name, axes, sdf.reshape(up.shape), mm))
    blocks: list[Block] = [
        Chart(charts.distance_slices(slices, limit_mm=0.5 * mm)),
        Text(
            f"Item {key}. Black: the zero level, which is the surface; thin lines every 10 mm. The disk is the unit ball ({mm:g} mm)."
        ),
    ]
    if samples is None:
        blocks.append(Text(found.missing("samples"), missing=True))
    elif key in samples:
        blocks += _agreement(samples[key], vertices, faces, backend, mm, key)
    return Section("sdf", title, lead, blocks)


def _key_of_both(found: Gathered) -> str:
    """An item from the middle of the keys that surfaces and samples share, preferably a composite that is not a self-graft."""
    surfaces, samples = found.dataset("surfaces"), found.dataset("samples")
    assert surfaces is not None
    rows = [row for row in found.stages["surfaces"].written if samples is None or row["key"] in samples]
    rows = rows or found.stages["surfaces"].written
    grafted = [row for row in rows if row.get("origin") == COMPOSITE and not found.is_self_graft(row)]
    return str(spread(grafted or rows, 2)[-1]["key"])


def _agreement(
    item: dict[str, Any], vertices: Floats, faces: NDArray[np.int64], backend: str, mm: float, key: str
) -> list[Block]:
    pairs, rows = {}, []
    for name in ("near", "free"):
        points, stored = (
            item[f"{name}_points"][:POINTS_CHECKED],
            item[f"{name}_sdf"][:POINTS_CHECKED].astype(np.float64),
        )
        if not len(points):
            continue
        again = signed_distance(vertices, faces, points.astype(np.float64), backend).sdf
        worst = float(np.abs(stored - again).max())
        signs = int(np.count_nonzero((stored < 0) != (again < 0)))
        rows.append([f"{name} points", f"{len(points):,}", f"{worst:.2e}", f"{worst * mm:.2e}", str(signs)])
        pairs[name] = (mm * stored, mm * again)
    if not pairs:
        return [Text("The samples hold no points off the surface to check.", missing=True)]
    return [
        Text(
            f"The distances stored in the samples of {key}, compared to those computed here (at most the first {POINTS_CHECKED:,} of each set)."
        ),
        Table(
            ["set", "points", "largest error (unit)", "largest error (mm)", "wrong signs"], rows, numeric=(1, 2, 3, 4)
        ),
        Chart(charts.distance_agreement(pairs)),
    ]


def rejects(found: Gathered) -> Section:
    """Section about rejected items with the reasons, and about items kept with a flag."""
    rows = []
    for facts in found.stages.values():
        for reason, keys in facts.rejects.items():
            more = f", and {len(keys) - KEYS_SHOWN} more" if len(keys) > KEYS_SHOWN else ""
            rows.append([facts.kind, str(len(keys)), reason, ", ".join(keys[:KEYS_SHOWN]) + more])
    blocks: list[Block] = (
        [Table(["stage", "items", "reason", "keys"], rows, numeric=(1,))] if rows else [Text("Nothing was rejected.")]
    )
    composites = found.stages.get("composites")
    if composites is not None and composites.written:
        flagged: dict[str, list[str]] = {}
        for row in composites.written:
            for disk in filter(None, (row.get("flags") or "").split(",")):
                flagged.setdefault(disk, []).append(row["key"])
        if flagged:
            table = [
                [
                    disk.replace("_", " "),
                    f"{len(keys)} of {len(composites.written)}",
                    ", ".join(keys[:KEYS_SHOWN]) + (", …" if len(keys) > KEYS_SHOWN else ""),
                ]
                for disk, keys in sorted(flagged.items())
            ]
            blocks += [
                Text(
                    "Flagged, but kept: composites with a part squeezed or stretched beyond the safe range of singular values."
                ),
                Table(["part", "composites", "keys"], table, numeric=(1,)),
            ]
        else:
            blocks.append(Text("No composite was flagged."))
    return Section(
        "rejects",
        "Rejects and flags",
        "Rejected items, with the reason; the tracebacks are in each dataset's folder rejects/.",
        blocks,
    )


def timings(found: Gathered) -> Section:
    """Section about the time of the stages, and the commands that reproduce the datasets."""
    rows, times = [], {}
    for facts in found.stages.values():
        noted = facts.timings
        if noted is None or facts.dataset is None or not noted.items:
            continue
        seconds = np.array(list(noted.items.values()))
        slowest = max(noted.items, key=lambda key: noted.items[key])
        rows.append([
            facts.kind, f"{len(seconds):,}", str(noted.processes), duration_text(noted.seconds), f"{noted.rate:.3g}",
            duration_text(float(np.median(seconds))), duration_text(float(seconds.max())), slowest,
        ])  # fmt: skip
        times[facts.kind] = spread([noted.items[key] for key in sorted(noted.items)], 2000)
    blocks: list[Block] = []
    if rows:
        head = [
            "stage",
            "items timed",
            "processes",
            "worker time",
            "items/s per worker",
            "median item",
            "slowest item",
            "its key",
        ]
        blocks += [Table(head, rows, numeric=(1, 2, 3, 4, 5, 6)), Chart(charts.item_times(times))]
    else:
        blocks.append(Text("These datasets have no logs, so no times are known.", missing=True))
    commands = [command for facts in found.stages.values() if (command := facts.command(found.root))]
    if commands:
        blocks += [
            Text("Commands that make the same datasets again (byte for byte, with the same parameters, inputs and version):"),
            Code("\n".join(commands)),
        ]
    return Section(
        "timings",
        "Timings and how to reproduce",
        "From the logs of the shards; worker time includes reading and writing shards.",
        blocks,
    )
