"""Stage ingest: head meshes, or a family of computed heads → heads.

Every head is read (or computed), checked to belong to the topology, converted to mm and checked to be an upright head that
faces forward. A head that fails is rejected with the reason, and the others are processed. Subjects are split into
training and test here, once, for all later stages.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo

from facegraft.arrays import Floats
from facegraft.engine import ItemOutput, ItemRejected, PlannedItem, StageContext, StagePlan
from facegraft.errors import FacegraftError
from facegraft.heads.alignment import (
    NEUTRALS,
    STABLE_LANDMARKS,
    Motion,
    expression_map,
    median_landmarks,
    motion,
    moved,
    neutral_map,
)
from facegraft.heads.errors import SourceError
from facegraft.heads.fingerprint import FileHash, combined, hash_files
from facegraft.heads.names import head_key, natural_key
from facegraft.heads.sanity import check_head
from facegraft.heads.source import KINDS, Head, HeadSource, SourcePlan, make_source
from facegraft.heads.split import TEST, read_subject_list, split_at_random, split_by_list, with_twins_together
from facegraft.heads.typical import FEWEST, TO_ALIGN, check_expression_pose, check_typical, typical_head
from facegraft.meshfiles.errors import MeshError
from facegraft.regions.regionmap import RegionMap
from facegraft.settings import as_name
from facegraft.stages.parameters import StageParameters
from facegraft.store import DatasetSchema, RemoteError
from facegraft.store.remote import Location, place
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
ROUNDING_MM = 0.01
"""Largest rounding error of a stored coordinate."""
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


class _OwnParameters(StageParameters):
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
    __base__=_OwnParameters,
    __doc__="Parameters of the ingest stage: its own, and the options of all sources.",
    kind=(_KIND, Field(description="where the heads come from")),
    **_options_of_all_kinds(),
)
Parameters = IngestParameters


def plan(inputs: Sequence[Path], parameters: _OwnParameters, seed: int) -> StagePlan:
    """See `plan_ingest`; `inputs` is the source, or nothing for synthetic heads."""
    return plan_ingest(inputs[0] if inputs else None, parameters, seed)


def plan_ingest(source: Location | None, parameters: _OwnParameters, seed: int) -> StagePlan:
    """Read the source, split its subjects, and plan one item per head; `source` is None for synthetic heads.

    Raises SourceError (no usable heads, or options that contradict the source), MeshError for a damaged file that all heads
    need, RegionMapError.
    """
    heads_source = make_source(parameters.kind, source, parameters.options(), seed)
    plan = heads_source.plan()
    root = _folder(source)
    hashes = hash_files(root, [*plan.files, *(head.source for head in plan.heads if head.source)]) if root else {}
    split = with_twins_together(_split(heads_source, plan, parameters, seed), _twins(plan.heads, hashes))
    heads = [head for head in plan.heads if head.subject in split]
    if not heads:
        raise SourceError(f"{source or parameters.kind}: the lists of subjects leave no heads")
    _warn_without_neutral(heads)
    aligned = heads_source.posed
    if aligned:
        heads = _with_neutral(heads)
    shared: dict[str, Any] = {"faces": np.ascontiguousarray(plan.faces, dtype=np.int32), **plan.shared}
    if aligned or any(head.source for head in heads):
        read = _read_neutrals(heads_source, plan, heads, needed=aligned)
        if aligned:
            shared[TARGET] = _target(heads_source, plan, read)
        if len(read) >= FEWEST:
            shared[TYPICAL] = typical_head(read, plan.region_map.landmarks68).astype(np.float32)
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
            "kind": parameters.kind, **plan.identity, **(combined({name: hashes[name] for name in known}) if root else {})
        },
    )


class IngestStage:
    """The item function of stage ingest; one per worker."""

    def __init__(self, context: StageContext) -> None:
        parameters = IngestParameters.parse(context.parameters)
        assert context.region_map is not None
        self.region_map = RegionMap.from_json(context.region_map)
        path = place(context.inputs[0]) if context.inputs else None
        source = make_source(parameters.kind, path, parameters.options(), context.seed)
        self.load = source.loader(context.shared, self.region_map)
        self.alignment, self.mm_per_unit = source.alignment, parameters.options().get("mm_per_unit") or self.region_map.mm_per_unit
        self.target = np.asarray(context.shared[TARGET]) if source.posed else None
        self.typical = np.asarray(context.shared[TYPICAL], dtype=np.float64) if TYPICAL in context.shared else None
        self.edges = unique_edges(np.asarray(context.shared["faces"], dtype=np.int64))
        skin = self.region_map.kept_skin()
        self.skin = skin if len(skin) else np.arange(self.region_map.vertex_count)  # a map without groups
        self._neutral = lru_cache(maxsize=4)(lambda spec: self.load(json.loads(spec)))
        self._sound_neutral = lru_cache(maxsize=4)(self._load_sound)

    def process(self, item: PlannedItem, rng: np.random.Generator) -> ItemOutput:
        """Read or compute one head: its vertices [V, 3] and 68 landmarks, float32 in mm."""
        row: dict[str, Any] = {}
        try:
            if self.target is not None:
                vertices, motion = self._aligned(item, self.target)
                row = dict(zip(ALIGNED_COLUMNS, motion, strict=True))
            elif self.typical is not None:
                vertices = self.load(item.spec["head"])
            else:
                vertices = self.load(item.spec)
            where = str(item.row["source"] or item.key)
            self._check(vertices, where)
            if self.target is None and self.typical is not None:
                self._check_expression(vertices, item, where)
        except RemoteError:
            raise
        except FacegraftError as error:
            raise ItemRejected(str(error)) from error
        stored = vertices.astype(np.float32)
        return ItemOutput(fields={"vertices": stored, "landmarks": stored[self.region_map.landmarks68]}, row=row)

    def _check(self, vertices: Floats, where: str) -> None:
        """Raise MeshError for a head that cannot be stored exactly, or is not like the others."""
        lost = float(np.abs(vertices.astype(np.float32) - vertices).max())
        if lost > ROUNDING_MM:
            raise MeshError(
                f"{where}: the head lies {np.abs(vertices).max() / 1000:,.0f} m from the origin, where numbers of 32 bits are off by {lost:.2g} mm; "
                f"move it to the origin, {TO_ALIGN}"
            )
        if self.typical is not None:
            marks, posed = self.region_map.landmarks68, self.target is not None
            check_typical(vertices, self.typical, self.edges, self.skin, marks, where, posed=posed)

    def _check_expression(self, vertices: Floats, item: PlannedItem, where: str) -> None:
        """Raise MeshError for an expression that is posed otherwise than its subject's neutral head."""
        neutral = item.spec["neutral"]
        if neutral is None or neutral == item.spec["head"]:
            return
        first = self._sound_neutral(json.dumps(neutral))
        if first is not None:
            check_expression_pose(vertices, first, self.skin, self.region_map.landmarks68, where)

    def _load_sound(self, spec: str) -> Floats | None:
        """A neutral head; None for one that is rejected itself, for which its expressions are not to blame."""
        try:
            vertices = self.load(json.loads(spec))
            self._check(vertices, spec)
        except MeshError:
            return None
        return vertices

    def _aligned(self, item: PlannedItem, target: Floats) -> tuple[Floats, Motion]:
        """A head without its pose, and what was done."""
        vertices, neutral = self.load(item.spec["head"]), item.spec["neutral"]
        similarity, stable = self.alignment == "similarity", self.region_map.landmarks68[list(STABLE_LANDMARKS)]
        first, matrix = vertices, np.eye(4)
        if neutral != item.spec["head"]:
            first = self._neutral(json.dumps(neutral))
            matrix = expression_map(vertices[self.skin], first[self.skin], similarity)
        matrix = neutral_map(first[stable], target, similarity) @ matrix
        result = moved(vertices, matrix)
        check_head(result, self.region_map.landmarks68, self.mm_per_unit, item.row["source"] or item.key)
        return result, motion(matrix, vertices[stable])


def _with_neutral(heads: list[Head]) -> list[Head]:
    """The heads of subjects with a neutral one, to which expressions are aligned; names the others. Raises SourceError where none is left."""
    neutral = {head.subject for head in heads if head.expression == NEUTRAL}
    if not neutral:
        raise SourceError("no neutral heads are among those chosen, and the others are aligned to them: add neutral to ingest.expressions, or give ingest.align=none")
    if without := sorted({head.subject for head in heads} - neutral):
        log.warning("left out: %d subjects without a neutral head, to which their expressions would be aligned: %s", len(without), ", ".join(without[:5]))
    return [head for head in heads if head.subject in neutral]


def _read_neutrals(source: HeadSource, plan: SourcePlan, heads: Sequence[Head], needed: bool) -> list[Floats]:
    """Vertices [V, 3] of up to NEUTRALS neutral heads, spread over the subjects; those that cannot be read will be rejected, with the reason.

    Raises SourceError where some are needed and none can be read.
    """
    load = source.loader({"faces": plan.faces, **plan.shared}, plan.region_map)
    neutral = [head for head in heads if head.expression == NEUTRAL]
    read, complaint = list[Floats](), None
    for head in neutral[:: math.ceil(len(neutral) / NEUTRALS) or 1]:
        try:
            read.append(load(head.spec))
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


def _twins(heads: Sequence[Head], hashes: Mapping[str, FileHash]) -> list[list[str]]:
    """Groups of subjects of whom each shares a mesh, byte for byte, with another of the group."""
    owners: dict[str, set[str]] = {}
    for head in heads:
        if head.source and (content := hashes[head.source].sha256) is not None:
            owners.setdefault(content, set()).add(head.subject)
    groups: list[set[str]] = []
    for subjects in owners.values():
        if len(subjects) > 1:
            joined = subjects.union(*(group for group in groups if group & subjects))
            groups = [group for group in groups if not group & subjects] + [joined]
    return sorted(sorted(group, key=natural_key) for group in groups)


def _split(source: HeadSource, plan: SourcePlan, parameters: _OwnParameters, seed: int) -> dict[str, str]:
    subjects = [head.subject for head in plan.heads]
    if parameters.split is not None:
        return source.split(parameters.split, subjects)
    if parameters.test_subjects is not None:
        train = None if parameters.train_subjects is None else read_subject_list(parameters.train_subjects)
        return split_by_list(subjects, read_subject_list(parameters.test_subjects), train)
    split = split_at_random(subjects, parameters.test_fraction, seed, _complaints(source, plan))
    if parameters.test_fraction > 0 and TEST not in split.values():
        log.warning("only %d subjects: all are for training (a test side needs 4 or more)", len(split))
    return split


def _complaints(source: HeadSource, plan: SourcePlan) -> Callable[[str], str | None]:
    """By subject, why its neutral head (where there is none, its first one) cannot be read; None where it can. Computed heads are not tried."""
    load = source.loader({"faces": plan.faces, **plan.shared}, plan.region_map)
    first: dict[str, Head] = {}
    for head in sorted(plan.heads, key=lambda head: head.expression != NEUTRAL):
        first.setdefault(head.subject, head)

    def complaint(subject: str) -> str | None:
        if first[subject].source is None:
            return None
        try:
            load(first[subject].spec)
        except RemoteError:
            raise
        except FacegraftError as error:
            return str(error)
        return None

    return complaint


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


def _folder(source: Location | None) -> Location | None:
    if source is None:
        return None
    return source if source.is_dir() else source.parent
