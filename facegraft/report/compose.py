"""Make the page from a folder: gather, measure, draw, assemble."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from facegraft.report import galleries, modelpage, sections
from facegraft.report.blocks import Section
from facegraft.report.gather import Gathered, gather
from facegraft.report.materials import Page
from facegraft.report.odd import odd_section
from facegraft.report.page import render_page
from facegraft.report.studio import Studio, start_probe
from facegraft.store.remote import Location


@dataclass(frozen=True)
class SectionMaker:
    """One section of the page: a function of the page's materials (None: the section is left out), and whether it draws pictures."""

    make: Callable[[Page], Section | None]
    draws: bool = False


SECTIONS = (
    SectionMaker(lambda page: sections.summary(page.found)),
    SectionMaker(lambda page: odd_section(page.found)),
    SectionMaker(galleries.heads, draws=True),
    SectionMaker(galleries.composites, draws=True),
    SectionMaker(galleries.seams, draws=True),
    SectionMaker(galleries.surfaces, draws=True),
    SectionMaker(lambda page: sections.distances(page.found)),
    SectionMaker(galleries.points, draws=True),
    SectionMaker(galleries.morph, draws=True),
    SectionMaker(lambda page: modelpage.model_section(page.found.root)),
    SectionMaker(lambda page: sections.quality(page.found)),
    SectionMaker(lambda page: sections.rejects(page.found)),
    SectionMaker(lambda page: sections.timings(page.found)),
)
"""The sections in the order of the page. A new section is a function and an entry here."""


def compose_page(folder: Location) -> str:
    """The HTML of the report about a folder. Raises ReportError, StoreError."""
    page = Page(gather(folder))
    made = made_sections(page, SECTIONS)
    shown = [section for section in made if section is not None]
    return render_page(f"facegraft report: {folder.resolve().name}", subtitle(page.found), shown)


def made_sections(page: Page, makers: Sequence[SectionMaker]) -> list[Section | None]:
    """What the makers made of a page's materials, in their order. Raises ReportError where this machine cannot draw."""
    made: dict[SectionMaker, Section | None] = {}
    # The probe starts a process that takes seconds; meanwhile compute everything that needs no picture.
    with start_probe() as probe:
        try:
            _ = page.measured
            made |= {maker: maker.make(page) for maker in makers if not maker.draws}
            with Studio(probe) as page.opened:
                made |= {maker: maker.make(page) for maker in makers if maker.draws}
        finally:
            if probe.poll() is None:
                probe.kill()
    return [made[maker] for maker in makers]


def subtitle(found: Gathered) -> str:
    """One line about the content of the folder."""
    held = [f"{len(facts.written):,} {facts.kind}" for facts in found.stages.values() if facts.dataset is not None]
    topology = found.region_map.name if found.region_map else "unnamed"
    return f"{', '.join(held)}; topology {topology}."
