"""One page with the paper's tables and figures in the paper's order, each with the command that makes it and the paper's own numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from facegraft_model.evaluation.comparison import shown_heads
from facegraft_model.evaluation.records import Scores, regions_of
from PIL import Image

from facegraft.errors import FacegraftError
from facegraft.paper.making import COMPARED_FOLDER, COMPONENTS, GENERATED, INTERPOLATED, Made, Plan, Shown, make, told
from facegraft.paper.numbers import BY_KIND, Published, Row
from facegraft.report import PAGE, galleries
from facegraft.report.blocks import Block, Code, Picture, Section, Sheet, Table, Text
from facegraft.report.comparisonsheets import write_comparison_sheet
from facegraft.report.compose import SectionMaker, made_sections, subtitle
from facegraft.report.gather import gather
from facegraft.report.materials import Page
from facegraft.report.page import render_page
from facegraft.store import write_bytes_atomic
from facegraft.store.remote import place
from facegraft.store.writer import RUN_FILE

WIDTH = 1200
"""Least width of a sheet of pictures on the page, in CSS pixels."""
ABSENT = "–"
METHODS_PICTURE, LANDMARKS_PICTURE = "methods.png", "landmarks.png"


class FailedMethodsError(FacegraftError):
    """Some methods have no scores."""


def write_paper(folder: Path, plan: Plan) -> Path:
    """Make all that a run's folder allows, and write OUTPUT/index.html; returns its path. Finished trainings, fits and scores are kept.

    Raises FailedMethodsError after the page is written where a method failed, and the errors of the comparison, of the edits and of the
    report.
    """
    page = Page(gather(place(folder)))
    made = make(plan)
    plan.announce("drawing")
    (morph,) = made_sections(page, [SectionMaker(galleries.morph, draws=True)])
    assert morph is not None
    published = published_for(folder)
    sections = [
        _edit("figure-1", "Figure 1: control of each part", "Each part's code is moved along its principal components.", made, COMPONENTS),
        _edit(
            "figure-2-8",
            "Figures 2 and 8: interpolation by parts",
            "From one held-out head to another, one part after another; below, the distance to the first shape of each group.",
            made,
            INTERPOLATED,
        ),
        replace(
            morph,
            name="figure-4",
            title="Figure 4: parts, landmarks, and the way to the template",
            blocks=[Code(told("facegraft", "report", folder)), *morph.blocks],
        ),
        _reconstruction(plan, made, published),
        _edit("figure-7", "Figure 7: random parts", "Held-out heads, and the same with one part's code drawn at random.", made, GENERATED),
        _landmarks(plan, made, published),
    ]
    path = plan.output / PAGE
    title = 'The tables and figures of "Parts-Based Implicit 3D Face Modeling" (Gu & Pears 2024)'
    write_bytes_atomic(path, render_page(title, subtitle(page.found), sections).encode())
    if made.comparison.failed:
        count = len(made.main) + len(made.ablated)
        raise FailedMethodsError(f"{path} is written, but {len(made.comparison.failed)} of {count} methods failed; see its tables for the reasons")
    return path


def published_for(folder: Path) -> Published | None:
    """The paper's numbers for the heads that a run was made of; None where it has none."""
    path = folder / "heads" / RUN_FILE
    if not path.is_file():
        return None
    return BY_KIND.get(str(json.loads(path.read_bytes())["input_fingerprint"].get("kind", "")))


def _edit(name: str, title: str, lead: str, made: Made, edit: str) -> Section:
    shown = made.edits.get(edit, Shown("", None, "No method with codes of parts was trained."))
    if shown.picture is None:
        return Section(name, title, lead, [Text(shown.why, missing=True)])
    return Section(name, title, f"{lead} Model: {made.model}.", [Code(shown.command), _sheet(shown.picture, title)])


def _sheet(path: Path, caption: str) -> Sheet:
    with Image.open(path) as image:
        return Sheet([Picture(image.convert("RGB"), caption)], 1, WIDTH)


def _reconstruction(plan: Plan, made: Made, published: Published | None) -> Section:
    number = f"Table {published.reconstruction_table} and Figure {published.reconstruction_figure}" if published else "Tables 1 and 2, Figures 5 and 6"
    lead = "Held-out scans, fitted by each method and scored by part."
    if published is None:
        lead += " The paper has no numbers for these heads."
    blocks: list[Block] = [
        Code(made.command),
        *_scores(made, made.main, {} if published is None else published.reconstruction),
        *_compared(plan, made, made.main, METHODS_PICTURE),
        Text("The distances are in mm. Heads, scans and points differ from the paper's, so its numbers are a yardstick, not a target."),
    ]
    return Section("reconstruction", f"{number}: reconstruction", lead, blocks)


def _landmarks(plan: Plan, made: Made, published: Published | None) -> Section:
    number = f"Table {published.landmarks_table}" if published else "Tables 3 and 4"
    title = f"{number} and Figure 9: landmarks"
    lead = "The paper's five landmarks of each part (Ours), and the five landmarks of the whole face for all parts (Five)."
    if not made.ablated:
        why = "None of the methods blends its parts by landmarks; add paper or paper-small to --methods."
        return Section("landmarks", title, lead, [Text(why, missing=True)])
    names = [name for pair in made.ablated for name in pair]
    blocks: list[Block] = [
        Code(made.command),
        *_scores(made, names, {} if published is None else published.landmarks),
        *_compared(plan, made, names, LANDMARKS_PICTURE),
    ]
    return Section("landmarks", title, lead, blocks)


def _scores(made: Made, names: Sequence[str], printed: Mapping[str, Row]) -> list[Block]:
    """A row for each method, also for one that failed, and the paper's rows below; then the reasons of the failures."""
    scored: dict[str, Scores] = {result.method: result for result in made.comparison.scores}
    regions = next(iter(scored.values())).regions if scored else regions_of(())
    columns = {"SCD": "scd_mm", "F": "f_1mm", "p2s": "p2s_mm"}
    rows = [[name, *_measured(scored.get(name), regions, columns.values())] for name in names]
    for name, row in printed.items():
        values = [*_printed(row.scd_mm, regions, 3), *_printed(row.f_percent, regions, 1), *[ABSENT] * len(regions)]
        rows.append([f"Gu & Pears: {name}", *values])
    head = ["method", *(f"{region} {column}" for column in columns for region in regions)]
    blocks: list[Block] = [Table(head, rows, numeric=tuple(range(1, len(head))))]
    return blocks + [Text(why, missing=True) for name in names if (why := _failure(name, scored.get(name), made.comparison.failed))]


def _failure(name: str, scores: Scores | None, failed: Mapping[str, str]) -> str:
    """Why a method has no scores, or not those of all heads; "" where it has."""
    if scores is None:
        return f"{name} failed: {failed[name]}"
    if not scores.failures:
        return ""
    first = scores.failures[0]
    return f"{name}: {len(scores.failures)} of {len(scores.failures) + len(scores.heads)} heads failed and are left out ({first.key}: {first.reason})."


def _measured(scores: Scores | None, regions: Sequence[str], metrics: Iterable[str]) -> list[str]:
    if scores is None or not scores.heads:
        return ["✗", *[ABSENT] * (len(regions) * len(tuple(metrics)) - 1)]
    summary = scores.summary()
    return [f"{summary[region][metric].mean:.{1 if metric == 'f_1mm' else 3}f}" for metric in metrics for region in regions]


def _printed(values: Mapping[str, float], regions: Sequence[str], digits: int) -> list[str]:
    return [f"{values[region]:.{digits}f}" if region in values else ABSENT for region in regions]


def _compared(plan: Plan, made: Made, names: Sequence[str], file: str) -> list[Block]:
    """The picture of held-out heads by these methods, drawn to OUTPUT/FILE; nothing where no head was reconstructed by all of them."""
    chosen = [result for result in made.comparison.scores if result.method in names and result.heads]
    heads = shown_heads(replace(made.comparison, scores=chosen), plan.output / COMPARED_FOLDER, plan.task) if chosen else []
    if not heads:
        return [Text("No held-out head was reconstructed by all of these methods, so there is no picture.", missing=True)]
    return [_sheet(write_comparison_sheet(plan.output / file, heads), "truth and reconstructions, with their distances")]
