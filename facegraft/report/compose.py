"""From a folder to the page: gather, measure, draw, put together."""

from __future__ import annotations

from pathlib import Path

from facegraft.report import galleries, sections
from facegraft.report.choose import composites_measured
from facegraft.report.gather import Gathered, gather
from facegraft.report.modelpage import model_section
from facegraft.report.page import render_page
from facegraft.report.seams import seam_map
from facegraft.report.studio import Studio, start_probe


def compose_page(folder: Path) -> str:
    """The HTML of the report about a folder. Raises ReportError, StoreError."""
    found = gather(folder)
    # The probe starts a process that takes seconds; what needs no picture is computed meanwhile.
    with start_probe() as probe:
        try:
            topology = galleries.Topology(found) if found.dataset("heads") or found.dataset("composites") else None
            measured = None
            if topology is not None and topology.region_map is not None and found.dataset("composites") is not None:
                rows = composites_measured(found.stages["composites"].written, galleries.COMPOSITES_MEASURED)
                measured = seam_map(found, topology.region_map, topology.faces, rows)
            plain = {
                part.name: part
                for part in (
                    maker(found)
                    for maker in (
                        sections.summary,
                        sections.quality,
                        sections.distances,
                        sections.rejects,
                        sections.timings,
                    )
                )
            }
            with Studio(probe) as studio:
                scenes = topology.scenes(studio) if topology is not None else None
                drawn = {
                    part.name: part
                    for part in (
                        galleries.heads(found, scenes),
                        galleries.composites(found, scenes),
                        galleries.seams(found, topology, scenes, measured),
                        galleries.surfaces(found, studio),
                        galleries.points(found, studio),
                        galleries.morph(found, topology, scenes),
                    )
                }
        finally:
            if probe.poll() is None:
                probe.kill()
    made = plain | drawn
    learnt = model_section(folder)
    if learnt is not None:
        made[learnt.name] = learnt
    order = (
        "summary",
        "heads",
        "composites",
        "seams",
        "surfaces",
        "sdf",
        "points",
        "morph",
        "model",
        "quality",
        "rejects",
        "timings",
    )
    return render_page(
        f"facegraft report: {folder.resolve().name}", subtitle(found), [made[name] for name in order if name in made]
    )


def subtitle(found: Gathered) -> str:
    """One line on what the folder holds."""
    held = [f"{len(facts.written):,} {facts.kind}" for facts in found.stages.values() if facts.dataset is not None]
    topology = found.region_map.name if found.region_map else "unnamed"
    return f"{', '.join(held)}; topology {topology}."
