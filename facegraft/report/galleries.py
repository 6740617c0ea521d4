"""The sections with pictures: heads, composites, seams, surfaces, points, the template morph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from facegraft.arrays import Floats
from facegraft.colours import part_colours
from facegraft.parts import Parts
from facegraft.report import charts
from facegraft.report.blocks import Block, ColourBar, Legend, Picture, Section, Sheet, Text
from facegraft.report.choose import composites_measured, composites_of_one_host, composites_shown, heads_grid, spread
from facegraft.report.clay import part_palette, rgb, surface_look
from facegraft.report.gather import Gathered
from facegraft.report.materials import Page
from facegraft.report.scenes import (
    FRONT,
    SIDE,
    THREE_QUARTER,
    HeadScenes,
    join_stage_points,
    point_cloud,
    portrait,
)
from facegraft.report.studio import Body, Camera
from facegraft.store import Dataset
from facegraft.vocabulary import COMPOSITE

HEADS_WIDE, EXPRESSIONS_HIGH, COMPOSITES_SHOWN = 8, 5, 8
REST = "#9c9691"
"""Colour of points without a part: clay would not stand out from the page."""
SMALL, LARGE = 330, 470
DONORS_SHOWN = 3


def heads(page: Page) -> Section:
    """Contact sheet: subjects across, expressions down."""
    found, scenes = page.found, page.scenes
    lead = "Subjects across, expressions down; the last row shows the first expression from the side. Every head has the same triangles."
    dataset = found.dataset("heads")
    if dataset is None or scenes is None:
        return Section("heads", "Heads", lead, [Text(found.missing("heads"), missing=True)])
    subjects, expressions, keys = heads_grid(found.stages["heads"].written, HEADS_WIDE, EXPRESSIONS_HIGH)
    pictures = []
    for expression, turn in [*((e, FRONT) for e in expressions), (expressions[0], THREE_QUARTER)]:
        for subject in subjects:
            key = keys.get((subject, expression))
            caption = key or f"{subject}, {expression}"
            if key is None:
                pictures.append(Picture(None, caption, "not there"))
                continue
            item = _head(dataset, key)
            image = scenes.head(f"heads/{key}", item["vertices"], item["landmarks"], turn, (), SMALL)
            pictures.append(Picture(image, caption, expression.replace("_", " ")))
    return Section("heads", "Heads", lead, [Sheet(pictures, len(subjects), 120)])


def composites(page: Page) -> Section:
    """Rows of donor, recipient and composite, or of three donors, recipient and composite."""
    found, scenes = page.found, page.scenes
    lead = (
        "Each row: the donors of the parts, the recipient, and the composite from the front with the grafted parts tinted and turned "
        "in plain clay. First composites with one donor for all parts, then composites with a different donor for each part."
    )
    dataset = found.dataset("composites")
    if dataset is None or scenes is None:
        return Section("composites", "Composites", lead, [Text(found.missing("composites"), missing=True)])
    pictures = []
    for row in composites_shown(found.stages["composites"].written, dataset.parts, COMPOSITES_SHOWN):
        pictures += _composite_row(found, scenes, dataset, row)
    return Section("composites", "Composites", lead, [_legend(dataset.parts), Sheet(pictures, 6, 130)])


def _composite_row(found: Gathered, scenes: HeadScenes, dataset: Dataset, row: Mapping[str, Any]) -> list[Picture]:
    parts = dataset.parts
    given: dict[str, list[str]] = {}  # donor → the parts it gives
    for part, column in parts.donor_columns.items():
        given.setdefault(row[column], []).append(part)

    def person(subject: str, what: str, turn: float, tinted: tuple[int, ...]) -> Picture:
        head = found.neutral_head(subject)
        if head is None:
            return Picture(None, subject, "head is missing")
        image = scenes.head(f"neutral/{subject}", head["vertices"], head["landmarks"], turn, tinted, LARGE)
        return Picture(image, subject, what)

    if len(given) == 1:
        (donor,) = given
        people = [
            person(donor, "donor", FRONT, _all(parts)),
            person(donor, "donor", THREE_QUARTER, ()),
            person(row["recipient"], "recipient", FRONT, ()),
            person(row["recipient"], "recipient", THREE_QUARTER, ()),
        ]
    else:
        people = [
            person(donor, _donor_of(names, len(given)), FRONT, tuple(map(parts.label, names)))
            for donor, names in list(given.items())[:DONORS_SHOWN]
        ]
        if len(people) < DONORS_SHOWN:
            people.append(person(row["recipient"], "recipient", THREE_QUARTER, ()))
        people.append(person(row["recipient"], "recipient", FRONT, ()))
    item = _head(dataset, row["key"])
    made = [
        Picture(
            scenes.head(f"composites/{row['key']}", item["vertices"], item["landmarks"], turn, tinted, LARGE),
            row["key"],
            "composite",
        )
        for turn, tinted in ((FRONT, _all(parts)), (THREE_QUARTER, ()))
    ]
    return people + made


def _donor_of(names: list[str], donors: int) -> str:
    """`donor of the nose and chin`; with the number of donors where not all of them are shown."""
    listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])).replace("_", " ")
    return f"donor of the {listed}" + (f" ({donors} donors in all)" if donors > DONORS_SHOWN else "")


def seams(page: Page) -> Section:
    """Displacement against the recipient as a colour map, and seam excess along the loops."""
    found, topology, scenes, measured = page.found, page.topology, page.scenes, page.measured
    lead = "Changes of the recipients by grafting, averaged over composites (without self-grafts) and drawn on the mean head."
    title = "Seams"
    if found.dataset("composites") is None or topology is None or scenes is None:
        return Section("seams", title, lead, [Text(found.missing("composites"), missing=True)])
    if measured is None:
        why = "There is no composite whose recipient and donors are available (there are only self-grafts, or neutral heads are missing)."
        return Section("seams", title, lead, [Text(why, missing=True)])
    moved_top = _round_up(float(measured.displacement.max())) or 1.0
    excess = np.concatenate(list(measured.excess.values()))
    excess_top = _round_up(float(excess.max())) or 1.0
    shown = (topology.template, topology.landmarks)
    left = [
        Picture(
            scenes.heat(*shown, measured.displacement, moved_top, charts.HEAT, measured.loops, turn, LARGE),
            "|composite − recipient|",
            f"mean of {measured.count}, {view}",
        )
        for turn, view in ((FRONT, "front"), (THREE_QUARTER, "turned"))
    ]
    right = [
        Picture(
            scenes.seams(*shown, measured, excess_top, charts.HEAT, turn, LARGE),
            "seam excess",
            f"mean of {measured.count}, {view}",
        )
        for turn, view in ((FRONT, "front"), (THREE_QUARTER, "turned"))
    ]
    blocks: list[Block] = [
        Sheet([*left, *right], 4, 200),
        ColourBar(charts.gradient(charts.HEAT), _ticks(moved_top), "displacement against the recipient (mm)"),
        ColourBar(
            charts.gradient(charts.HEAT),
            _ticks(excess_top),
            "seam excess: dihedral angle outside the range of donor and host (°)",
        ),
        Text(f"Outside the parts, composites differ from their recipients by {measured.largest_outside:g} mm at most."),
    ]
    return Section("seams", title, lead, blocks)


def surfaces(page: Page) -> Section:
    """One closed surface from four sides."""
    found, studio = page.found, page.studio
    lead = "One cleaned item as it is sampled: in the unit ball, its vertices labelled by part."
    dataset = found.dataset("surfaces")
    if dataset is None:
        return Section("surfaces", "Surfaces", lead, [Text(found.missing("surfaces"), missing=True)])
    rows = found.stages["surfaces"].written
    grafted = [row for row in rows if row.get("origin") == COMPOSITE and not found.is_self_graft(row)]
    row = spread(grafted or rows, 2)[-1]
    item = dataset[row["key"]]
    vertices, faces = item["vertices"].astype(np.float64), item["faces"].astype(np.int64)
    look = surface_look(vertices, faces, item["vertex_parts"])
    # Drawn separately, each with its own normals, so that the rim of a cut is a sharp edge.
    cut = item["face_cut"].astype(bool)
    pieces = [replace(look, faces=faces[chosen]) for chosen in (~cut, cut) if chosen.any()]
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    views = {
        "front": (FRONT, 3.0, _all(dataset.parts)),
        "turned": (THREE_QUARTER, 3.0, ()),
        "side": (SIDE, 3.0, _all(dataset.parts)),
        "from below": (20.0, -50.0, ()),
    }
    pictures = []
    for name, (turn, tilt, tinted) in views.items():
        camera = Camera((low + high) / 2, 1.14 * float((high - low).max()), turn, tilt)
        pictures.append(
            Picture(
                studio.shoot([piece.body(vertices, tinted) for piece in pieces], camera, portrait(LARGE)),
                row["key"],
                name,
            )
        )
    said = f"{len(vertices):,} vertices, {len(faces):,} triangles, {'closed' if row.get('closed', True) else 'an open height field'}."
    return Section("surfaces", "Surfaces", lead, [Sheet(pictures, 4, 200), Text(said)])


def points(page: Page) -> Section:
    """Surface points by part, and the band near the surface by signed distance."""
    found, studio = page.found, page.studio
    lead = "One item of the samples, as the model reads it: a window of its shuffled points."
    dataset = found.dataset("samples")
    if dataset is None:
        return Section("points", "Points", lead, [Text(found.missing("samples"), missing=True)])
    rows = found.stages["samples"].written
    grafted = [row for row in rows if row.get("origin") == COMPOSITE and not found.is_self_graft(row)]
    key = spread(grafted or rows, 2)[-1]["key"]
    count = min(20_000, dataset.shape(key, "surface_points")[0])
    at, normals = (
        dataset.window(key, name, 0, count).astype(np.float64) for name in ("surface_points", "surface_normals")
    )
    parts = dataset.window(key, "surface_parts", 0, count)
    low, high = at.min(axis=0), at.max(axis=0)
    middle, tall = (low + high) / 2, 1.12 * float((high - low).max())
    size = (LARGE, LARGE)
    colours = np.where(parts[:, None] == 0, rgb(REST), part_palette()[parts])
    pictures = [
        Picture(
            point_cloud(studio, at, normals, colours, Camera(middle, tall, turn, 3.0), size, 4.0),
            key,
            f"{count:,} surface points by part, {name}",
        )
        for name, turn in (("front", FRONT), ("side", SIDE))
    ]
    blocks: list[Block] = []
    near = min(30_000, dataset.shape(key, "near_points")[0])
    limit_mm = 10.0
    if near:
        around = dataset.window(key, "near_points", 0, near).astype(np.float64)
        sdf = dataset.window(key, "near_sdf", 0, near).astype(np.float64) * dataset.mm_per_unit
        painted = np.asarray(charts.SIGN(0.5 + 0.5 * np.clip(sdf / limit_mm, -1, 1)))[:, :3]
        half = around[:, 0] < middle[0]
        for name, chosen, turn in (
            ("front", np.ones(near, dtype=bool), FRONT),
            ("right half, seen from the cut", half, SIDE),
        ):
            bodies = [Body(around[chosen], painted[chosen], size=3.0)]
            pictures.append(
                Picture(
                    studio.shoot(bodies, Camera(middle, tall, turn, 3.0), size),
                    key,
                    f"{int(chosen.sum()):,} near points by distance, {name}",
                )
            )
        blocks.append(
            ColourBar(
                charts.gradient(charts.SIGN),
                [f"−{limit_mm:g} mm", "0", f"+{limit_mm:g} mm"],
                "signed distance of the near points",
            )
        )
    return Section("points", "Points", lead, [_legend(dataset.parts), Sheet(pictures, 4, 200), *blocks])


def morph(page: Page) -> Section:
    """The stages from composites to the template, and the parts with their landmarks."""
    found, topology, scenes = page.found, page.topology, page.scenes
    lead = (
        "The morph from composites to the template, as stored for the model: registered skin points at every stage, joined here to a mesh. "
        "Tinted: parts that are already the template's."
    )
    title = "Template morph"
    dataset = found.dataset("composites")
    if dataset is None or topology is None or scenes is None or topology.region_map is None:
        return Section("morph", title, lead, [Text(found.missing("composites"), missing=True)])
    rows = found.stages["composites"].written
    shared, parts = dataset.shared, dataset.parts
    stage_vertices = np.asarray(shared["stage_vertices"], dtype=np.int64)
    skin = topology.region_map.skin_faces(topology.faces)
    mesh = join_stage_points(
        topology.template, skin, stage_vertices, topology.look.light, np.asarray(shared["stage_parts"])
    )

    def pictures(key: str, wanted: Sequence[tuple[int, str]], note: str = "") -> list[Picture]:
        stages, marks = (dataset.read(key, f"stage_{name}").astype(np.float64) for name in ("points", "landmarks"))
        # The template's part k is in place at stage k + 1.
        return [
            Picture(
                scenes.morph_stage(
                    stages[number], mesh, marks[number], tuple(range(1, min(number - 1, len(parts)) + 1)), LARGE
                ),
                caption,
                note if place == 0 else "",
            )
            for place, (number, caption) in enumerate(wanted)
        ]

    one = (composites_measured(rows, parts, 3)[-1:] or rows[:1])[0]["key"]
    captions = ["as scanned", "neutral", *(f"+ template's {name}" for name in parts), "template"]
    strip = pictures(one, [(number, f"{number}  {caption}") for number, caption in enumerate(captions)], one)
    said = f"{len(stage_vertices):,} points per stage. Stages 0 and 1 are the same where the item is neutral, as composites are."
    blocks: list[Block] = [_legend(parts), Sheet(strip, min(len(captions), 6), 130), Text(said)]
    same_host = composites_of_one_host(rows, parts, DONORS_SHOWN)
    if same_host:
        columns = [
            pictures(row["key"], list(enumerate(captions))[1 : len(parts) + 2], row["key"]) for row in same_host
        ]
        stages, marks = (
            dataset.read(same_host[0]["key"], f"stage_{name}")[1].astype(np.float64) for name in ("points", "landmarks")
        )
        pick = {parts.label(part.name): marks[list(part.landmarks)] for part in parts.entries}
        regions = Picture(scenes.marked_stage(stages, mesh, marks, pick, LARGE), "parts and their landmarks", same_host[0]["key"])
        said = (
            f"The parts with their landmarks, and composites with the remainder of {same_host[0]['recipient']} and the parts of another subject in "
            "each column; down the rows one part after another becomes the template's, until the columns are the same."
        )
        blocks += [
            Text(said),
            Sheet([regions], 3, 130),
            Sheet([column[row] for row in range(len(columns[0])) for column in columns], len(columns), 130),
        ]
    return Section("morph", title, lead, blocks)


def _legend(parts: Parts) -> Legend:
    return Legend(list(part_colours(parts).items()))


def _all(parts: Parts) -> tuple[int, ...]:
    """The labels of all parts."""
    return tuple(range(1, len(parts) + 1))


def _head(dataset: Dataset, key: str) -> dict[str, Floats]:
    return {name: dataset.read(key, name).astype(np.float64) for name in ("vertices", "landmarks")}


def _round_up(value: float) -> float:
    """The next of 1, 1.5, 2, 3, 4, 5, 6, 8 times a power of ten; 0 stays 0."""
    if value <= 0:
        return 0.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= value * (1 - 1e-9)) * power)


def _ticks(top: float) -> list[str]:
    return [f"{top * i / 4:g}" for i in range(5)]
