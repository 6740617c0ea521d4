"""What is in a source of heads: everything is read and judged as ingest does it, and nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from facegraft.arrays import Floats, Ints32
from facegraft.engine import PlannedItem, StageContext
from facegraft.engine.plan import shard_plan
from facegraft.engine.stage import process_item, stage_name
from facegraft.errors import FacegraftError, shown_name
from facegraft.heads.alignment import NEUTRALS
from facegraft.heads.errors import HeadError, SourceError
from facegraft.heads.oddities import Measured, Measurer, Statistic, duplicated, listed, missing_neutrals, statistics
from facegraft.heads.ready import Ready
from facegraft.heads.typical import FEWEST, typical_head
from facegraft.seeds import item_rng
from facegraft.stages import INGEST
from facegraft.stages.ingest import IngestStage, OwnParameters, Preparation, prepare, stage_plan
from facegraft.store import RemoteError
from facegraft.store.remote import Location, recordable
from facegraft.vocabulary import NEUTRAL, SPLITS, TEST


@dataclass(frozen=True)
class Census:
    """What ingest would make of a source.

    rejected: reasons by key, in the order of the items. measured: of each head that could be read. statistics: of them all.
    """

    where: str
    kind: str
    prepared: Preparation
    items: Sequence[PlannedItem]
    rejected: dict[str, str]
    measured: list[Measured]
    statistics: list[Statistic]
    stage: _Watching
    faces: Ints32
    typical: Floats | None

    @property
    def odd(self) -> list[str]:
        """Keys of heads that a statistic names, in the order of the items."""
        named = {name for statistic in self.statistics for name in statistic.about}
        return [item.key for item in self.items if item.key in named or (item.row["subject"] in named and item.row["expression"] == NEUTRAL)]

    def vertices(self, key: str) -> Floats | None:
        """The vertices [V, 3] of a head in mm, also where ingest would reject it; None for one that cannot be read."""
        return self.stage.look_at(next(item for item in self.items if item.key == key))[0]


class _Watching(IngestStage):
    """Ingest's own item function, which keeps what it saw."""

    seen: Ready | None
    judged: Floats | None

    def ready(self, item: PlannedItem) -> Ready:
        """See `IngestStage.ready`."""
        self.seen, self.judged = None, None
        try:
            self.seen = super().ready(item)
        except HeadError as error:
            self.judged = error.vertices
            raise
        self.judged = self.seen.vertices
        return self.seen

    def look_at(self, item: PlannedItem) -> tuple[Floats | None, Ready | None]:
        """The vertices of a head that could be read, and what was measured on a good one."""
        try:
            self.ready(item)
        except RemoteError:
            raise
        except FacegraftError:
            return self.judged, None
        return self.judged, self.seen


def take_census(
    source: Location | None, parameters: OwnParameters, seed: int = 0, tick: Callable[[int, int], None] = lambda done, of: None
) -> Census:
    """Read every head of a source and judge it as ingest would with these parameters. tick: called with the heads done, and of how many.

    Raises what `ingest.plan_ingest` raises where ingest would refuse the source, and SourceError for a store that does not answer.
    """
    prepared = prepare(source, parameters, seed)
    plan = stage_plan(prepared, parameters)
    items = shard_plan(plan).items
    inputs = [str(recordable(source.resolve()))] if source is not None else []
    stage = _Watching(StageContext(Path(), inputs, parameters.as_json(), plan.shared, plan.region_map, seed))
    typical = stage.reader.typical
    if typical is None:
        typical = _typical(stage, items)
    measurer = Measurer(stage.region_map, stage.reader.edges, typical)
    neutral = {item.row["subject"]: item for item in items if item.row["expression"] == NEUTRAL}
    rejected, measured = dict[str, str](), list[Measured]()
    first: tuple[str, Ready | None] = ("", None)  # a subject and its sound neutral head: its expressions follow each other
    for number, item in enumerate(items):
        tick(number, len(items))
        result = process_item(stage, item, item_rng(seed, stage_name(INGEST.path), item.key))
        if result.unreachable:
            raise SourceError(f"{result.reason}; try again")
        if result.reason is not None:
            rejected[item.key] = result.reason
        seen, vertices = stage.seen, stage.judged
        if vertices is None:
            continue
        subject, expression = item.row["subject"], item.row["expression"]
        own = None
        if expression != NEUTRAL and subject in neutral and not prepared.source.posed and (seen is None or seen.pose is None):
            if first[0] != subject:
                first = (subject, stage.look_at(neutral[subject])[1])
            own = None if first[1] is None else first[1].vertices
        measured.append(measurer.measure(item.key, subject, expression, vertices, own, seen, rejected=result.reason is not None))
    tick(len(items), len(items))
    files = Counter(item.row["source"] for item in items)
    sha256 = {item.key: item.row["source_sha256"] for item in items if files[item.row["source"]] == 1}
    by_key = {item.key: item for item in items}
    twins = duplicated(measured, sha256, lambda key: _sound(stage, by_key[key]))
    where = "computed heads" if source is None else shown_name(str(source))
    written = [(item.row["subject"], item.row["expression"]) for item in items if item.key not in rejected]
    found = [missing_neutrals(written), *statistics(measured, twins)]
    return Census(where, parameters.kind, prepared, items, rejected, measured, found, stage, plan.shared["faces"], typical)


def rows(census: Census) -> list[tuple[str, str]]:
    """The table of a census, as (what, what was found)."""
    prepared, region_map = census.prepared, census.prepared.plan.region_map
    heads = [(item.row["subject"], item.row["expression"]) for item in census.items]
    subjects, expressions = Counter(subject for subject, _ in heads), Counter(name for _, name in heads)
    order = sorted(expressions, key=lambda name: name != NEUTRAL)
    sides = Counter(prepared.split[subject] for subject in subjects)
    test = [subject for subject in subjects if prepared.split[subject] == TEST]
    scale = census.stage.reader.mm_per_unit
    holes = len(subjects) * len(expressions) - len(heads)
    pose = "in the source's pose" if not prepared.source.posed else f"pose taken out ({prepared.source.alignment}), to that of the median neutral head"
    return [
        ("heads", f"{len(heads):,}, of which ingest would write {len(heads) - len(census.rejected):,} and reject {len(census.rejected):,}"),
        ("subjects", f"{len(subjects):,}: {listed(list(subjects))}"),
        ("expressions", listed([f"{name} ({expressions[name]:,})" for name in order], 12) + (f"; {holes:,} of subjects × expressions are not there" if holes else "")),
        ("topology", f"{region_map.name}: {region_map.vertex_count:,} vertices, {region_map.face_count:,} triangles, as in its region map"),
        ("unit", f"{scale:g} mm per unit{'' if scale != region_map.mm_per_unit else ', as the region map says'}"),
        ("frame", f"+y up, +z out of the face, +x the subject's left; {pose}"),
        ("split", f"{' and '.join(f'{sides.get(side, 0):,} {side}' for side in SPLITS)} subjects{f'; test: {listed(test)}' if test else ''}"),
    ]


def _typical(stage: IngestStage, items: Sequence[PlannedItem]) -> Floats | None:
    """The typical head of computed heads, which ingest does not need."""
    neutral = [item for item in items if item.row["expression"] == NEUTRAL]
    found = list[Floats]()
    for item in neutral[:: -(-len(neutral) // NEUTRALS) or 1]:
        try:
            found.append(stage.ready(item).vertices)
        except FacegraftError:  # it is counted as rejected
            continue
    return typical_head(found, stage.reader.landmarks) if len(found) >= FEWEST else None


def _sound(stage: IngestStage, item: PlannedItem) -> Floats:
    return stage.ready(item).vertices
