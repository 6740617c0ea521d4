"""What looks odd in a set of heads, as a table: the same measures before ingest (the page of `--check`) and after it (the report)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from facegraft.arrays import Floats
from facegraft.heads.alignment import NEUTRALS, Motion
from facegraft.heads.oddities import Measured, Measurer, Statistic, duplicated, listed, missing_neutrals, statistics
from facegraft.heads.ready import Ready
from facegraft.heads.typical import FEWEST, typical_head
from facegraft.regions.regionmap import RegionMap
from facegraft.report.blocks import Block, Section, Table, Text
from facegraft.report.choose import spread
from facegraft.report.gather import Gathered
from facegraft.stages.ingest import ALIGNED_COLUMNS, TYPICAL
from facegraft.store import Dataset
from facegraft.surfaces.topology import unique_edges
from facegraft.vocabulary import NEUTRAL

NAMED = 20
EXPRESSIONS_MEASURED = 600


def odd_section(found: Gathered) -> Section:
    """The heads of a dataset beside each other."""
    title = "What looks odd"
    lead = "Each measure of the heads beside the bound that ingest judges by. Pose and shape are measured against the median of the neutral heads."
    dataset, region_map = found.dataset("heads"), found.region_map
    if dataset is None or region_map is None:
        return Section("odd", title, lead, [Text(found.missing("heads") if dataset is None else "The heads have no region map.", missing=True)])
    facts = found.stages["heads"]
    measured, left = _measure(dataset, region_map, facts.written)
    files = Counter(row.get("source") for row in facts.written)
    own = {row["key"]: row.get("source_sha256") for row in facts.written if files[row.get("source")] == 1}
    twins = duplicated(measured, own, lambda key: dataset.read(key, "vertices").astype(np.float64))
    blocks = odd_blocks([missing_neutrals((row["subject"], row["expression"]) for row in facts.written), *statistics(measured, twins)], facts.rejects)
    if left:
        blocks.append(Text(f"{left:,} expressions are not measured here: all neutral heads and {EXPRESSIONS_MEASURED} others, evenly spread, are."))
    return Section("odd", title, lead, blocks)


def _measure(dataset: Dataset, region_map: RegionMap, rows: Sequence[Mapping[str, Any]]) -> tuple[list[Measured], int]:
    """The measures of a dataset's neutral heads and of some others, and how many are left out."""

    def vertices(row: Mapping[str, Any]) -> Floats:
        return dataset.read(row["key"], "vertices").astype(np.float64)

    neutral = {row["subject"]: row for row in rows if row["expression"] == NEUTRAL}
    others = [row for row in rows if row["expression"] != NEUTRAL]
    if TYPICAL in dataset.shared:
        typical: Floats | None = np.asarray(dataset.shared[TYPICAL], dtype=np.float64)
    else:
        some = [vertices(row) for row in spread(list(neutral.values()), NEUTRALS)]
        typical = typical_head(some, np.asarray(region_map.landmarks68)) if len(some) >= FEWEST else None
    measurer = Measurer(region_map, unique_edges(np.asarray(dataset.faces, dtype=np.int64)), typical)
    chosen = [*neutral.values(), *spread(others, EXPRESSIONS_MEASURED)]
    found = list[Measured]()
    first: tuple[str, Floats | None] = ("", None)  # a subject and its neutral head: its expressions follow each other
    for row in chosen:
        subject, own = row["subject"], None
        if row["expression"] != NEUTRAL and subject in neutral:
            first = first if first[0] == subject else (subject, vertices(neutral[subject]))
            own = first[1]
        points = vertices(row)
        aligned = Motion(*(row[name] for name in ALIGNED_COLUMNS)) if ALIGNED_COLUMNS[0] in row else None
        found.append(measurer.measure(row["key"], subject, row["expression"], points, own, Ready(points, aligned)))
    return found, len(others) - (len(chosen) - len(neutral))


def odd_blocks(found: Sequence[Statistic], rejects: Mapping[str, Sequence[str]]) -> list[Block]:
    """Each measure with its bound and the heads beyond it; rejects: keys by reason."""
    table = [[one.what, one.found, one.bound, f"✗ {listed(one.odd, NAMED)}" if one.odd else "✓ none" if one.bound != "–" else "–"] for one in found]
    blocks: list[Block] = [Table(["measure", "found", "bound", "odd"], table)]
    if rejects:
        told = [[str(len(keys)), reason, listed(list(keys), NAMED)] for reason, keys in rejects.items()]
        blocks += [Text("Rejected heads."), Table(["heads", "reason", "keys"], told, numeric=(0,))]
    if not rejects and not any(one.odd for one in found):
        blocks.insert(0, Text("Nothing looks odd."))
    return blocks
