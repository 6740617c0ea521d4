"""Stage graft: heads → composites.

Each item moves the parts of one donor (or of a donor per part) onto a recipient; all are neutral and of one split. It then
follows the composite through the template morph: the neutral composite, the composite with the template's parts grafted on
one after another, and the template. Landmarks and a fixed set of skin points are kept at every stage, to supervise the model.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from facegraft.engine import Evidence, ItemOutput, ItemRejected, PlannedItem, StageContext, StagePlan
from facegraft.errors import FacegraftError
from facegraft.geometry.graft import Graft, Grafter, PartQuality
from facegraft.parts import Parts
from facegraft.regions.regionmap import RegionMap
from facegraft.seeds import item_rng
from facegraft.stages.morph import choose_stage_vertices
from facegraft.stages.neutral import neutral_keys
from facegraft.stages.pairs import Pairing, plan_pairings
from facegraft.stages.parameters import StageParameters
from facegraft.store import Dataset, DatasetSchema, open_dataset
from facegraft.store.remote import Location
from facegraft.store.schema import composites_fields
from facegraft.vocabulary import DEFAULT_REGION_SET, NEUTRAL

log = logging.getLogger("facegraft")

QUALITY_COLUMNS = ("residual_mm", "sv_min", "sv_max", "det", "seam_excess_rms_deg", "seam_excess_max_deg", "flips")


class GraftError(FacegraftError):
    """A heads dataset that cannot be grafted."""


class GraftParameters(StageParameters):
    """Parameters of the graft stage."""

    STAGE: ClassVar[str] = "graft"
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "facegraft": {},
        "paper": {"stiffness": 0.0, "seam": "hard", "rings": 0},
        "similarity": {"stiffness": float("inf")},
    }

    preset: str = Field(
        "facegraft", description="named defaults: facegraft, paper (plain affine, hard switch) or similarity"
    )
    region_set: str = Field(
        DEFAULT_REGION_SET,
        description="region set of the topology's map, which defines the parts; a wrong name lists those that the map has",
    )
    donors: int = Field(16, ge=0, description="donors for every recipient, besides itself")
    independent: float = Field(
        0.0, ge=0, le=1, description="share of composites whose parts come from different donors"
    )
    stiffness: float = Field(
        0.1, ge=0, description="pull of the affine map towards the similarity: 0 plain affine, inf similarity"
    )
    rings: int = Field(2, ge=0, le=4, description="rings of skin on each side of the loop that join the fit")
    seam: Literal["blend", "harmonic", "hard"] = Field("blend", description="how the part is joined to the host")
    seam_width: float = Field(8.0, gt=0, description="width in mm of the rim of the part that is blended with the host")
    seam_length: float = Field(4.0, gt=0, description="length in mm over which the rim's residual decays")
    stage_points: int = Field(4096, ge=16, description="skin points followed through the template morph")
    shard_items: int = Field(64, ge=1, description="composites per shard")


Parameters = GraftParameters


def plan(inputs: Sequence[Location], parameters: GraftParameters, seed: int) -> StagePlan:
    """See `plan_graft`; `inputs` is one folder of heads."""
    return plan_graft(open_dataset(inputs[0]), parameters, seed)


def plan_graft(heads: Dataset, parameters: GraftParameters, seed: int) -> StagePlan:
    """Pair the subjects of each split and plan the composites.

    Raises GraftError for a dataset that is not of kind `heads` and disks that overlap, NeutralError for heads without a neutral one, RegionMapError
    for a region set that the topology does not have.
    """
    if heads.kind != "heads" or heads.region_map is None:
        raise GraftError(f"graft needs a dataset of kind 'heads', not {heads.kind!r}; make one with `facegraft ingest`")
    region_map = RegionMap.from_json(heads.region_map)
    regions = region_map.region_set(parameters.region_set)
    parts = regions.parts
    for (a, b), count in regions.overlaps().items():
        raise GraftError(
            f"region set {regions.name!r} of topology {region_map.name}: disks {a} and {b} share {count} vertices, so one graft would "
            "overwrite the other; move one of them, and see `facegraft regions check`"
        )
    neutral = neutral_keys(heads)
    splits: dict[str, list[str]] = {}
    for subject, (_, split) in sorted(neutral.items()):
        splits.setdefault(split, []).append(subject)
    items: list[PlannedItem] = []
    for split, subjects in sorted(splits.items()):
        donors = min(parameters.donors, len(subjects) - 1)
        if donors < parameters.donors:
            log.warning(
                "split %s has %d subjects: each gets %d donors instead of %d",
                split,
                len(subjects),
                donors,
                parameters.donors,
            )
        rng = item_rng(seed, "graft-plan", split)
        pairings = plan_pairings(subjects, len(parts), donors, parameters.independent, rng)
        items.extend(_planned(pairing, parts, split, neutral) for pairing in pairings)
    template = _mean_head(heads, neutral)
    columns = dict.fromkeys(("subject", "expression", "split", *parts.head_columns, "flags"), "string")
    for disk in regions.disks:
        columns |= {f"{disk}_{figure}": "int64" if figure == "flips" else "float64" for figure in QUALITY_COLUMNS}
    stage_vertices = choose_stage_vertices(region_map, parameters.stage_points)
    schema = DatasetSchema(
        kind="composites",
        topology=heads.schema.topology,
        mm_per_unit=1.0,
        frame=heads.schema.frame,
        fields=composites_fields(parts),
        columns=columns,
        parts=parts,
    )
    shared: dict[str, NDArray[Any]] = {
        "faces": np.asarray(heads.faces, dtype=np.int32),
        "template": template,
        "stage_vertices": stage_vertices.astype(np.int32),
        "stage_parts": region_map.vertex_labels(parameters.region_set)[stage_vertices],
    }
    return StagePlan(
        schema=schema,
        items=items,
        shared=shared,
        region_map=heads.region_map,
        shard_items=parameters.shard_items,
        input_fingerprint={"heads": heads.fingerprint},
        evidence=Evidence(datasets=[heads.fingerprint]),
    )


def make_grafter(
    template: NDArray[np.float64],
    faces: NDArray[np.int64],
    region_map: RegionMap,
    parameters: GraftParameters,
) -> Grafter:
    """The grafter of a topology, with its template and these parameters."""
    disks = region_map.region_set(parameters.region_set).disks
    groups = region_map.groups
    return Grafter(
        template,
        faces,
        region_map.mask_of("surface"),
        {name: (disk.loop, disk.interior) for name, disk in disks.items()},
        {
            name: np.concatenate([groups[group].vertices for group in disk.followers])
            for name, disk in disks.items()
            if disk.followers
        },
        stiffness=parameters.stiffness,
        rings=parameters.rings,
        seam=parameters.seam,
        width=parameters.seam_width,
        length=parameters.seam_length,
    )


class GraftStage:
    """The item function of stage graft; one per worker."""

    def __init__(self, context: StageContext) -> None:
        self.parameters = GraftParameters.parse(context.parameters)
        self.heads = open_dataset(context.inputs[0])
        assert context.region_map is not None
        self.region_map = RegionMap.from_json(context.region_map)
        self.template = np.asarray(context.shared["template"], dtype=np.float64)
        faces = np.asarray(context.shared["faces"], dtype=np.int64)
        self.grafter = make_grafter(self.template, faces, self.region_map, self.parameters)
        regions = self.region_map.region_set(self.parameters.region_set)
        self.parts, self.part_of = regions.parts, regions.part_of
        labels = self.region_map.vertex_labels(self.parameters.region_set)
        self.followed = np.concatenate(
            [self.region_map.landmarks68, np.asarray(context.shared["stage_vertices"], dtype=np.int64)]
        )
        self.followed_labels = labels[self.followed]
        self._head = lru_cache(maxsize=256)(self._read_head)

    def _read_head(self, key: str) -> NDArray[np.float32]:
        return self.heads[key]["vertices"]

    def process(self, item: PlannedItem, rng: np.random.Generator) -> ItemOutput:
        """Make one composite; see `composites_fields` for its fields."""
        host32 = self._head(item.spec["recipient"])
        host = host32.astype(np.float64)
        own = {
            disk: self._head(item.spec["donors"][self.part_of[disk]]).astype(np.float64) for disk in self.grafter.disks
        }
        try:
            graft = self.grafter.graft(own, host)
            quality = self.grafter.quality(graft, own, host)
            stages = self._template_morph(graft)
        except FacegraftError as error:
            raise ItemRejected(str(error)) from error
        mad = [name for name, figures in quality.items() if not figures.sane]
        if mad:
            worst = quality[mad[0]]
            raise ItemRejected(
                f"{mad[0]}: the fit is degenerate (singular values {worst.singular_values.round(2).tolist()}, determinant {worst.determinant:.2f})"
            )
        landmarks = stages[:, :68]
        fields = {
            "vertices": graft.vertices.astype(np.float32),
            "landmarks": landmarks[0],
            "stage_landmarks": landmarks,
            "stage_points": stages[:, 68:],
            "transforms": np.stack([graft.fits[name].matrix() for name in self.grafter.disks]),
        }
        return ItemOutput(fields=fields, row=_quality_row(quality))

    def _template_morph(self, composite: Graft) -> NDArray[np.float32]:
        """Positions [S, 68 + M, 3] of the followed vertices at the stages of the template morph (`Parts.stages`)."""
        start = composite.vertices
        swapped = self.grafter.graft(self.template, start).vertices
        stages = [start[self.followed]] * 2
        for part in self.parts:
            moved = (self.followed_labels == self.parts.label(part))[:, None]
            stages.append(np.where(moved, swapped[self.followed], stages[-1]))
        stages.append(self.template[self.followed])
        return np.stack(stages).astype(np.float32)


def _planned(pairing: Pairing, parts: Parts, split: str, neutral: Mapping[str, tuple[str, str]]) -> PlannedItem:
    donors = dict(zip(parts, pairing.donors, strict=True))
    row = {"subject": pairing.recipient, "expression": NEUTRAL, "split": split, "recipient": pairing.recipient}
    row |= {parts.donor_columns[part]: subject for part, subject in donors.items()}
    spec = {"recipient": neutral[pairing.recipient][0], "donors": {part: neutral[s][0] for part, s in donors.items()}}
    return PlannedItem(key=pairing.key, row=dict(row), spec=spec)


def _mean_head(heads: Dataset, neutral: Mapping[str, tuple[str, str]]) -> NDArray[np.float64]:
    """Mean [V, 3] of the neutral training heads (of all, where no subject is for training)."""
    keys = sorted(key for key, split in neutral.values() if split == "train") or sorted(
        key for key, _ in neutral.values()
    )
    total = np.zeros(heads[keys[0]]["vertices"].shape)
    for key in keys:
        total += heads[key]["vertices"]
    return total / len(keys)


def _quality_row(quality: Mapping[str, PartQuality]) -> dict[str, object]:
    row: dict[str, object] = {"flags": ",".join(name for name, figures in quality.items() if figures.flagged)}
    for name, q in quality.items():
        values = (
            q.loop_residual,
            q.singular_values[-1],
            q.singular_values[0],
            q.determinant,
            q.seam_excess_rms,
            q.seam_excess_max,
        )
        row |= {f"{name}_{figure}": float(value) for figure, value in zip(QUALITY_COLUMNS, values, strict=False)}
        row[f"{name}_flips"] = q.flips
    return row
