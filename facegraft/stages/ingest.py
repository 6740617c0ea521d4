"""Stage ingest: head meshes, or a family of computed heads → heads.

Every head is read (or computed), checked to belong to the topology, converted to mm and checked to be an upright head that
faces forward. A head that fails is rejected with the reason, and the others are processed. Subjects are split into
training and test here, once, for all later stages.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from pydantic import BeforeValidator, Field, ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo

from facegraft.arrays import Floats
from facegraft.engine import Evidence, ItemOutput, ItemRejected, PlannedItem, StageContext, StagePlan
from facegraft.engine.evidence import evidence_of_source, names_in, source_folder
from facegraft.errors import FacegraftError
from facegraft.geometry.frame import head_radius
from facegraft.heads.alignment import NEUTRALS, Motion, median_landmarks
from facegraft.heads.errors import SourceError
from facegraft.heads.extent import one_decides
from facegraft.heads.names import head_key
from facegraft.heads.ready import HeadReader, Ready
from facegraft.heads.source import KINDS, Head, HeadSource, Loader, SourcePlan, make_source
from facegraft.heads.split import TEST, read_subject_list, split_at_random, split_by_list, with_twins_together
from facegraft.heads.twins import Twins, near_heads, others_of, signature, subjects_with_one_file, together
from facegraft.heads.typical import FEWEST, typical_head
from facegraft.regions.regionmap import RegionMap, map_files
from facegraft.settings import as_name
from facegraft.stages.parameters import StageParameters
from facegraft.store import DatasetSchema, RemoteError
from facegraft.store.fingerprint import FileHash, combined, hash_files
from facegraft.store.remote import Location, each, place
from facegraft.store.schema import heads_fields
from facegraft.surfaces.topology import unique_edges
from facegraft.vocabulary import NEUTRAL

log = logging.getLogger("facegraft")

FRAME = "right-handed, +y up, +z out of the face, +x the subject's left; origin and pose as in the source"
ALIGNED_FRAME = "right-handed, +y up, +z out of the face, +x the subject's left; origin and pose of the median neutral head of the source"
TARGET = "aligned_landmarks"
"""Shared array [n, 3] of aligned heads: the stable landmarks of their median, in mm."""
TYPICAL = "typical_vertices"
"""Shared array [V, 3] of heads from files: their median, in mm, beside which a head may look odd."""
ALIGNED_COLUMNS = tuple(f"aligned_{name}" for name in Motion._fields)
"""Columns of the index for what alignment did to each head."""


def _names_or_file(value: Any) -> Any:
    """Names as they were written, or the path of a file of them. Raises ValueError, in words."""
    if isinstance(value, list | tuple):
        return tuple(map(as_name, value))
    if isinstance(value, int | float):
        raise ValueError(
            f"write a list of names, [{value}], or the path of a text file of them; a share of the subjects is test_fraction"
        )
    return value if value is None else as_name(value)


class OwnParameters(StageParameters):
    """The parameters of ingest that apply to every source."""

    STAGE: ClassVar[str] = "ingest"

    kind: str = Field(description="where the heads come from")
    test_fraction: float = Field(
        0.1, ge=0, lt=1, description="share of subjects for testing: at least 2 where there are 4 or more"
    )
    test_subjects: Annotated[tuple[str, ...] | str | None, BeforeValidator(_names_or_file)] = Field(
        None, description="test subjects by name, or a text file of them"
    )
    train_subjects: Annotated[tuple[str, ...] | str | None, BeforeValidator(_names_or_file)] = Field(
        None, description="training subjects, in addition to test_subjects: subjects on neither list are left out"
    )
    split: str | None = Field(
        None,
        description="a published split: imface (its 355/10 subjects of FaceScape, others left out)",
    )
    shard_items: int = Field(64, ge=1, description="heads per shard")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, kinds in OPTION_KINDS.items():
            if self.kind not in kinds and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is for kind {', '.join(kinds)}, not {self.kind}; leave it out")
        if self.train_subjects is not None and self.test_subjects is None:
            raise ValueError("train_subjects needs test_subjects too")
        if getattr(self, "draw", None) is not None and (self.split is not None or self.test_subjects is not None):
            raise ValueError("draw takes subjects at random, of whom a list or a published split may hold few; give one of them")
        if self.split is not None and self.test_subjects is not None:
            raise ValueError("give either split or test_subjects")
        if self.split is not None and self.split not in KINDS[self.kind].splits:
            where = ", ".join(kind for kind, known in KINDS.items() if self.split in known.splits)
            there = (
                f"split={self.split} is for kind {where}, not {self.kind}"
                if where
                else f"there is no split {self.split!r}"
            )
            raise ValueError(there)
        self.options()
        return self

    def options(self) -> dict[str, Any]:
        """The options of the source itself. Raises ValueError for options that its own checks refuse."""
        chosen = KINDS[self.kind].source.Options
        values = {name: getattr(self, name) for name in chosen.model_fields}
        try:
            chosen(**values)
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
        return values


def _options_of_all_kinds() -> dict[str, Any]:
    """By name, the (type, field) of every option that some source takes."""
    fields: dict[str, FieldInfo] = {}
    for known in KINDS.values():
        fields |= known.source.Options.model_fields
    return {name: (field.annotation, field) for name, field in fields.items()}


OPTION_KINDS = {
    name: tuple(kind for kind, known in KINDS.items() if name in known.source.Options.model_fields)
    for name in _options_of_all_kinds()
}
"""By option, the kinds that take it."""

_KIND: Any = Literal.__getitem__(tuple(KINDS))
IngestParameters = create_model(
    "IngestParameters",
    __base__=OwnParameters,
    __doc__="Parameters of the ingest stage: its own, and the options of all sources.",
    kind=(_KIND, Field(description="where the heads come from")),
    **_options_of_all_kinds(),
)
Parameters = IngestParameters


def plan(inputs: Sequence[Path], parameters: OwnParameters, seed: int) -> StagePlan:
    """See `plan_ingest`; `inputs` is the source, or nothing for synthetic heads."""
    return plan_ingest(inputs[0] if inputs else None, parameters, seed)


def plan_ingest(source: Location | None, parameters: OwnParameters, seed: int) -> StagePlan:
    """Read the source, split its subjects, and plan one item per head; `source` is None for synthetic heads.

    Raises SourceError (no usable heads, or options that contradict the source), MeshError for a damaged file that all heads
    need, RegionMapError.
    """
    return stage_plan(prepare(source, parameters, seed), parameters)


@dataclass(frozen=True)
class Preparation:
    """What ingest knows of a source before the first head is written.

    heads: those that were chosen. split: the side of each of their subjects. hashes: of the files, by name (empty without files). shared: the
    arrays that workers need. twins: subjects that are one. evidence: of a plan of all this, see `StagePlan`. faults: of subjects whose neutral (else first) head will be rejected, the reason; radii: of
    the others, in mm. Both are empty for computed heads, which are not tried.
    """

    source: HeadSource
    plan: SourcePlan
    heads: list[Head]
    split: dict[str, str]
    hashes: dict[str, FileHash]
    shared: dict[str, Any]
    twins: list[Twins]
    evidence: Evidence | None
    faults: dict[str, str]
    radii: dict[str, float]


def prepare(source: Location | None, parameters: OwnParameters, seed: int) -> Preparation:
    """Read the source and its neutral heads, and split the subjects; says what is odd. Raises as `plan_ingest` does."""
    heads_source = make_source(parameters.kind, source, parameters.options(), seed)
    names = names_in(source) if KINDS[parameters.kind].reads_files else None
    plan = heads_source.plan()
    root = None if source is None else source_folder(source)
    hashes = hash_files(root, [*plan.files, *(head.source for head in plan.heads if head.source)]) if root else {}
    listed = _listed_split(heads_source, plan, parameters)
    heads = [head for head in plan.heads if listed is None or head.subject in listed]
    if not heads:
        raise SourceError(f"{source or parameters.kind}: the lists of subjects leave no heads")
    _warn_without_neutral(heads)
    aligned = heads_source.posed
    if aligned:
        heads = _with_neutral(heads)
    shared: dict[str, Any] = {"faces": np.ascontiguousarray(plan.faces, dtype=np.int32), **plan.shared}
    tried = dict[str, "_Tried"]()
    if aligned or any(head.source for head in heads):
        read = _read_neutrals(heads_source, plan, heads, needed=aligned)
        if aligned:
            shared[TARGET] = _target(heads_source, plan, list(read.values()))
        if len(read) >= FEWEST:
            shared[TYPICAL] = typical_head(list(read.values()), plan.region_map.landmarks68).astype(np.float32)
        load = heads_source.loader(shared, plan.region_map)

        def kept(spec: Mapping[str, Any]) -> Floats:  # a head that was read already is not read again
            found = read.get(json.dumps(spec))
            return load(spec) if found is None else found

        reader = _reader(kept, heads_source, parameters, plan.region_map, shared)
        tried = _try_subjects(reader, heads, root)
    faults = {subject: found.fault for subject, found in tried.items() if found.fault is not None}
    signatures = {subject: found.signature for subject, found in tried.items() if found.signature is not None}
    near = near_heads(signatures, lambda subject: _made_again(reader, heads, subject))
    twins = together([*subjects_with_one_file(heads, hashes), *near])
    split = with_twins_together(listed or _random_split(heads, parameters, seed, faults), twins)
    radii = {subject: found.radius_mm for subject, found in tried.items() if found.radius_mm is not None}
    again = others_of(twins)
    if said := one_decides({subject: radius for subject, radius in radii.items() if subject not in again}):
        log.warning("%s", said)
    evidence = evidence_of_source(source, names, hashes, plan.beside, _may_be_files(parameters, plan.region_map))
    return Preparation(heads_source, plan, heads, split, hashes, shared, twins, evidence, faults, radii)


def stage_plan(prepared: Preparation, parameters: OwnParameters) -> StagePlan:
    """One item per head of what was prepared. Raises SourceError for two heads of one key."""
    plan, heads, hashes, shared, split = prepared.plan, prepared.heads, prepared.hashes, prepared.shared, prepared.split
    aligned = prepared.source.posed
    known = [*plan.files, *(head.source for head in heads if head.source)]
    neutral = {head.subject: head.spec for head in heads if head.expression == NEUTRAL}
    items = []
    for head in heads:
        row = {
            "subject": head.subject,
            "expression": head.expression,
            "split": split[head.subject],
            "source": head.source,
            "source_sha256": hashes[head.source].sha256 if head.source else None,
            **head.row,
        }
        spec = {"head": head.spec, "neutral": neutral.get(head.subject)} if TYPICAL in shared or aligned else head.spec
        items.append(PlannedItem(head_key(head.subject, head.number, head.expression), row, spec))
    _check_keys(items)
    columns = dict.fromkeys(("subject", "expression", "split", "source", "source_sha256"), "string") | plan.columns
    if aligned:
        columns |= dict.fromkeys(ALIGNED_COLUMNS, "float64")
    region_map = plan.region_map
    schema = DatasetSchema(
        kind="heads",
        topology={
            "name": region_map.name,
            "vertex_count": region_map.vertex_count,
            "faces_sha256": region_map.faces_sha256,
        },
        mm_per_unit=1.0,
        frame=ALIGNED_FRAME if aligned else FRAME,
        fields=heads_fields(),
        columns=columns,
    )
    return StagePlan(
        schema=schema,
        items=items,
        shared=shared,
        region_map=region_map.to_json(),
        shard_items=parameters.shard_items,
        input_fingerprint={
            "kind": parameters.kind, **plan.identity, **(combined({name: hashes[name] for name in known}) if hashes else {})
        },
        evidence=prepared.evidence,
    )


def _may_be_files(parameters: OwnParameters, region_map: RegionMap) -> list[str]:
    """Whatever parameters may name as a file: every text, and the region map by its name, which may be that of a folder here too."""
    texts = [value for value in parameters.as_json().values() if isinstance(value, str)]
    return [file for text in (*texts, region_map.name) for file in map_files(text)]


class IngestStage:
    """The item function of stage ingest; one per worker."""

    def __init__(self, context: StageContext) -> None:
        parameters = IngestParameters.parse(context.parameters)
        assert context.region_map is not None
        self.region_map = RegionMap.from_json(context.region_map)
        path = place(context.inputs[0]) if context.inputs else None
        source = make_source(parameters.kind, path, parameters.options(), context.seed)
        self.reader = _reader(source.loader(context.shared, self.region_map), source, parameters, self.region_map, context.shared)

    def process(self, item: PlannedItem, rng: np.random.Generator) -> ItemOutput:
        """Read or compute one head: its vertices [V, 3] and 68 landmarks, float32 in mm."""
        try:
            head = self.ready(item)
        except RemoteError:
            raise
        except FacegraftError as error:
            raise ItemRejected(str(error)) from error
        stored = head.vertices.astype(np.float32)
        row = {} if head.aligned is None else dict(zip(ALIGNED_COLUMNS, head.aligned, strict=True))
        return ItemOutput(fields={"vertices": stored, "landmarks": stored[self.region_map.landmarks68]}, row=row)

    def ready(self, item: PlannedItem) -> Ready:
        """The head of an item. Raises MeshError, or another FacegraftError, where it has to be rejected."""
        paired = self.reader.target is not None or self.reader.typical is not None
        head, neutral = (item.spec["head"], item.spec["neutral"]) if paired else (item.spec, None)
        return self.reader.ready(head, neutral, str(item.row["source"] or item.key))


def _reader(
    load: Loader, source: HeadSource, parameters: OwnParameters, region_map: RegionMap, shared: Mapping[str, Any]
) -> HeadReader:
    """What makes the heads of a source ready, by the arrays of its plan."""
    return HeadReader(
        load,
        region_map,
        unique_edges(np.asarray(shared["faces"], dtype=np.int64)),
        source.alignment,
        parameters.options().get("mm_per_unit") or region_map.mm_per_unit,
        np.asarray(shared[TARGET]) if source.posed else None,
        np.asarray(shared[TYPICAL], dtype=np.float64) if TYPICAL in shared else None,
    )


class _Tried(NamedTuple):
    """A subject's first head, made ready: why that fails, or its signature and radius in mm."""

    fault: str | None
    signature: Floats | None = None
    radius_mm: float | None = None


def _first_heads(heads: Sequence[Head]) -> dict[str, Head]:
    """By subject, its neutral head, or the first where there is none."""
    first: dict[str, Head] = {}
    for head in sorted(heads, key=lambda head: head.expression != NEUTRAL):
        first.setdefault(head.subject, head)
    return first


def _ready_first(reader: HeadReader, head: Head) -> Floats:
    return reader.ready(head.spec, head.spec if head.expression == NEUTRAL else None, head.source or head.subject).vertices


def _made_again(reader: HeadReader, heads: Sequence[Head], subject: str) -> Floats:
    return _ready_first(reader, _first_heads(heads)[subject])


def _try_subjects(reader: HeadReader, heads: Sequence[Head], root: Location | None) -> dict[str, _Tried]:
    """What becomes of the first head of each subject that has a file."""

    def tried(head: Head) -> _Tried:
        try:
            vertices = _ready_first(reader, head)
        except RemoteError:
            raise
        except FacegraftError as error:
            return _Tried(str(error))
        return _Tried(None, signature(vertices), head_radius(vertices[reader.skin], vertices[reader.landmarks]))

    first = {subject: head for subject, head in _first_heads(heads).items() if head.source}
    return dict(zip(first, each(root, tried, first.values()), strict=True)) if root else {}


def _with_neutral(heads: list[Head]) -> list[Head]:
    """The heads of subjects with a neutral one, to which expressions are aligned; names the others. Raises SourceError where none is left."""
    neutral = {head.subject for head in heads if head.expression == NEUTRAL}
    if not neutral:
        raise SourceError("no neutral heads are among those chosen, and the others are aligned to them: add neutral to ingest.expressions, or give ingest.align=none")
    if without := sorted({head.subject for head in heads} - neutral):
        log.warning("left out: %d subjects without a neutral head, to which their expressions would be aligned: %s", len(without), ", ".join(without[:5]))
    return [head for head in heads if head.subject in neutral]


def _read_neutrals(source: HeadSource, plan: SourcePlan, heads: Sequence[Head], needed: bool) -> dict[str, Floats]:
    """By spec, vertices [V, 3] of up to NEUTRALS neutral heads, spread over the subjects; those that cannot be read will be rejected, with the reason.

    Raises SourceError where some are needed and none can be read.
    """
    load = source.loader({"faces": plan.faces, **plan.shared}, plan.region_map)
    neutral = [head for head in heads if head.expression == NEUTRAL]
    read, complaint = dict[str, Floats](), None
    for head in neutral[:: math.ceil(len(neutral) / NEUTRALS) or 1]:
        try:
            read[json.dumps(head.spec)] = load(head.spec)
        except RemoteError:
            raise
        except FacegraftError as error:
            complaint = error
    if needed and not read:
        raise SourceError(f"no neutral head can be read, so none can be aligned: {complaint or 'there are none'}")
    return read


def _target(source: HeadSource, plan: SourcePlan, read: Sequence[Floats]) -> Floats:
    """The stable landmarks of the median neutral head."""
    log.warning(
        "the pose of the heads is taken out (%s, to the median of %d neutral heads); `--set ingest.align=none` leaves it", source.alignment, len(read)
    )
    return median_landmarks([head[plan.region_map.landmarks68] for head in read], source.alignment == "similarity")


def _listed_split(source: HeadSource, plan: SourcePlan, parameters: OwnParameters) -> dict[str, str] | None:
    """The side of each subject by a published split or by lists; None where it is drawn at random."""
    subjects = [head.subject for head in plan.heads]
    if parameters.split is not None:
        return source.split(parameters.split, subjects)
    if parameters.test_subjects is None:
        return None
    train = None if parameters.train_subjects is None else read_subject_list(parameters.train_subjects)
    return split_by_list(subjects, read_subject_list(parameters.test_subjects), train)


def _random_split(heads: Sequence[Head], parameters: OwnParameters, seed: int, faults: Mapping[str, str]) -> dict[str, str]:
    split = split_at_random({head.subject for head in heads}, parameters.test_fraction, seed, faults.get)
    if parameters.test_fraction > 0 and TEST not in split.values():
        log.warning("only %d subjects: all are for training (a test side needs 4 or more)", len(split))
    return split


def _warn_without_neutral(heads: list[Head]) -> None:
    without = sorted({head.subject for head in heads} - {head.subject for head in heads if head.expression == NEUTRAL})
    if without:
        more = ", …" if len(without) > 3 else ""
        log.warning(
            "%d subjects have no neutral head and cannot be grafted: %s%s", len(without), ", ".join(without[:3]), more
        )


def _check_keys(items: list[PlannedItem]) -> None:
    seen: dict[str, PlannedItem] = {}
    for item in items:
        other = seen.setdefault(item.key, item)
        if other is not item:
            first, second = (f"{i.row['source'] or i.row['subject']}" for i in (other, item))
            raise SourceError(f"{first} and {second} would both be called {item.key}; rename one of them")
