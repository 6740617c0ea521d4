"""Stage ingest: head meshes, or a family of computed heads → heads.

Every head is read (or computed), checked to belong to the topology, converted to mm and checked to be an upright head that
faces forward. A head that fails is rejected with the reason, and the others go on. Subjects are split into training
and test here, once, for everything that follows.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from facegraft.engine import ItemOutput, ItemRejected, PlannedItem, StageContext, StagePlan
from facegraft.errors import FacegraftError
from facegraft.heads.errors import SourceError
from facegraft.heads.fingerprint import combined, hash_files
from facegraft.heads.names import head_key
from facegraft.heads.source import Head, SourceOptions, make_source
from facegraft.heads.split import TEST, read_subject_list, split_at_random, split_by_list, split_imface
from facegraft.regions.regionmap import RegionMap
from facegraft.stages.parameters import StageParameters
from facegraft.store import DatasetSchema, RemoteError
from facegraft.store.remote import place
from facegraft.store.schema import heads_fields
from facegraft.vocabulary import NEUTRAL

log = logging.getLogger("facegraft")

FRAME = "right-handed, +y up, +z out of the face, +x the subject's left; origin and pose as in the source"

_COMPUTED = ("synthetic", "ict")
_ONLY_FOR = {
    "first_subject": _COMPUTED,
    "sigma": _COMPUTED,
    "clip": ("ict",),
    "symmetrise": _COMPUTED,
    "region_map": ("ict", "facescape", "flame", "meshes"),
    "mm_per_unit": ("ict", "facescape", "flame", "meshes"),
    "template": ("facescape", "flame", "meshes"),
}


class IngestParameters(StageParameters):
    """Parameters of the ingest stage."""

    STAGE: ClassVar[str] = "ingest"

    kind: Literal["synthetic", "ict", "facescape", "flame", "meshes"] = Field(description="where the heads come from")
    subjects: int | None = Field(
        None, ge=1, description="how many subjects (default: 40 of a computed family, all of a folder)"
    )
    expressions: int | tuple[str, ...] | None = Field(
        None,
        description="the first so many expressions, or their names (default: 3 of a computed family, all of a folder)",
    )
    first_subject: int = Field(
        1, ge=1, description="number of the first subject of a computed family; other numbers, other heads"
    )
    test_fraction: float = Field(
        0.1, ge=0, lt=1, description="share of subjects for testing: at least 2 where there are 4 or more"
    )
    test_subjects: tuple[str | int, ...] | str | None = Field(
        None, description="test subjects by name, or a text file of them"
    )
    train_subjects: tuple[str | int, ...] | str | None = Field(
        None, description="training subjects, beside test_subjects: those on neither list are left out"
    )
    split: Literal["imface"] | None = Field(
        None, description="imface: its published 355/10 subjects of FaceScape, others left out"
    )
    sigma: float = Field(
        1.0, ge=0, description="spread of the identity coefficients, in standard deviations of the family"
    )
    clip: float = Field(2.5, gt=0, description="largest identity coefficient, in the same unit")
    symmetrise: float = Field(
        0.0, ge=0, le=1, description="pull of computed heads to mirror symmetry: 0 as drawn, 1 symmetric"
    )
    region_map: str | None = Field(
        None, description="region map of the meshes: a file, or the name of a shipped topology"
    )
    mm_per_unit: float | None = Field(None, gt=0, description="unit of the meshes, where it is not the region map's")
    template: str | None = Field(None, description="a mesh that shows the topology's triangles, where the heads do not")
    shard_items: int = Field(64, ge=1, description="heads a shard")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (isinstance(self.expressions, int) and self.expressions < 1) or self.expressions == ():
            raise ValueError("expressions must be 1 or more, or a list of names")
        for name, kinds in _ONLY_FOR.items():
            if self.kind not in kinds and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is for kind {', '.join(kinds)}, not {self.kind}; leave it out")
        if self.train_subjects is not None and self.test_subjects is None:
            raise ValueError("train_subjects needs test_subjects beside it")
        if self.split is not None and self.test_subjects is not None:
            raise ValueError("give either split or test_subjects")
        if self.split == "imface" and self.kind != "facescape":
            raise ValueError(f"split=imface is for kind facescape, not {self.kind}")
        return self

    def options(self) -> SourceOptions:
        """What concerns the source itself."""
        chosen = {name: getattr(self, name) for name in SourceOptions.__dataclass_fields__}
        return SourceOptions(**chosen)


Parameters = IngestParameters


def plan(inputs: Sequence[Path], parameters: IngestParameters, seed: int) -> StagePlan:
    """See `plan_ingest`; `inputs` is the source, or nothing for synthetic heads."""
    return plan_ingest(inputs[0] if inputs else None, parameters, seed)


def plan_ingest(source: Path | None, parameters: IngestParameters, seed: int) -> StagePlan:
    """Look at the source, split its subjects, and lay out one item a head; `source` is None for synthetic heads.

    Raises SourceError (nothing usable, or options that contradict the source), MeshError for a damaged file that all heads
    need, RegionMapError.
    """
    plan = make_source(parameters.kind, source, parameters.options(), seed).plan()
    split = _split(plan.heads, parameters, seed)
    heads = [head for head in plan.heads if head.subject in split]
    if not heads:
        raise SourceError(f"{source or parameters.kind}: the lists of subjects leave no heads")
    _warn_without_neutral(heads)
    root = _folder(source)
    hashes = hash_files(root, [*plan.files, *(head.source for head in heads if head.source)]) if root else {}
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
        items.append(PlannedItem(head_key(head.subject, head.number, head.expression), row, head.spec))
    _check_keys(items)
    columns = dict.fromkeys(("subject", "expression", "split", "source", "source_sha256"), "string") | plan.columns
    region_map = plan.region_map
    schema = DatasetSchema(
        kind="heads",
        topology={
            "name": region_map.name,
            "vertex_count": region_map.vertex_count,
            "faces_sha256": region_map.faces_sha256,
        },
        mm_per_unit=1.0,
        frame=FRAME,
        fields=heads_fields(),
        columns=columns,
    )
    return StagePlan(
        schema=schema,
        items=items,
        shared={"faces": np.ascontiguousarray(plan.faces, dtype=np.int32), **plan.shared},
        region_map=region_map.to_json(),
        shard_items=parameters.shard_items,
        input_fingerprint={"kind": parameters.kind, **plan.identity, **(combined(hashes) if root else {})},
    )


class IngestStage:
    """The item function of stage ingest; one a worker."""

    def __init__(self, context: StageContext) -> None:
        parameters = IngestParameters.parse(context.parameters)
        assert context.region_map is not None
        self.region_map = RegionMap.from_json(context.region_map)
        path = place(context.inputs[0]) if context.inputs else None
        source = make_source(parameters.kind, path, parameters.options(), context.seed)
        self.load = source.loader(context.shared, self.region_map)

    def process(self, item: PlannedItem, rng: np.random.Generator) -> ItemOutput:
        """Read or compute one head: its vertices [V, 3] and 68 landmarks, float32 in mm."""
        try:
            vertices = self.load(item.spec).astype(np.float32)
        except RemoteError:
            raise
        except FacegraftError as error:
            raise ItemRejected(str(error)) from error
        return ItemOutput(fields={"vertices": vertices, "landmarks": vertices[self.region_map.landmarks68]})


def _split(heads: list[Head], parameters: IngestParameters, seed: int) -> dict[str, str]:
    subjects = [head.subject for head in heads]
    if parameters.split == "imface":
        return split_imface(subjects)
    if parameters.test_subjects is not None:
        train = None if parameters.train_subjects is None else read_subject_list(parameters.train_subjects)
        return split_by_list(subjects, read_subject_list(parameters.test_subjects), train)
    split = split_at_random(subjects, parameters.test_fraction, seed)
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


def _folder(source: Path | None) -> Path | None:
    if source is None:
        return None
    return source if source.is_dir() else source.parent
