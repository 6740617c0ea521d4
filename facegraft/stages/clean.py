"""Stage clean: composites and heads → surfaces.

Each registered head becomes one watertight mesh in the unit ball, with part labels, its landmarks and its skin points
at every stage of the template morph.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from facegraft.engine import Evidence, ItemOutput, ItemRejected, PlannedItem, StageContext, StagePlan
from facegraft.errors import FacegraftError
from facegraft.geometry.clipping import BallClipper
from facegraft.geometry.frame import frontal_origin, head_origin, head_radius, to_mm_matrix, to_unit
from facegraft.geometry.visibility import visible_sheet
from facegraft.heads.extent import one_decides
from facegraft.parts import Parts
from facegraft.regions.closer import make_closer
from facegraft.regions.regionmap import RegionMap
from facegraft.stages.morph import choose_stage_vertices
from facegraft.stages.neutral import neutral_keys
from facegraft.stages.parameters import StageParameters
from facegraft.store import Dataset, DatasetSchema, open_dataset
from facegraft.store.remote import Location
from facegraft.store.schema import surfaces_fields
from facegraft.surfaces.normals import face_areas
from facegraft.surfaces.topology import is_watertight
from facegraft.vocabulary import COMPOSITE, DEFAULT_REGION_SET, SCAN

log = logging.getLogger("facegraft")

SCALE_MARGIN = 1.05
"""Margin of the automatic scale of whole heads around the largest neutral head, for expressions and grafts."""

FRAMES = {
    "head": "unit ball around a point 35 mm below and 90 mm behind the mean of the canthi of the subject's neutral head; +y up, +z out of the face",
    "frontal": "unit ball around a point behind the nose tip of the subject's neutral head (the tip is at z = +tip_depth); +y up, +z out of the face",
}
OWN_FRAME = "; a scan itself, not the later stages of its template morph: around such a point of its own"
"""What `clean.frame=own` adds to a frame."""


class CleanError(FacegraftError):
    """Datasets that cannot be cleaned together."""


class CleanParameters(StageParameters):
    """Parameters of the clean stage."""

    STAGE: ClassVar[str] = "clean"
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "facegraft": {},
        "paper": {"mode": "frontal", "height_field": True, "frame": "own"},
    }

    preset: str = Field(
        "facegraft",
        description="named defaults: facegraft, or paper (frontal height field as published for ImFace, each scan about its own nose tip)",
    )
    mode: Literal["head", "frontal"] = Field(
        "head", description="whole closed head, or intersection of the closed head with a ball around the face"
    )
    height_field: bool = Field(
        False, description="frontal only: keep the sheet visible from +z instead of a solid (not watertight)"
    )
    frame: Literal["recipient", "own"] = Field(
        "recipient",
        description="head whose landmarks define the origin: the subject's neutral head, or, of a scan, the scan itself (the neutral and "
        "later stages of its template morph keep the neutral head's)",
    )
    radius_mm: float = Field(100.0, gt=0, description="frontal only: radius of the ball; it is also the unit")
    tip_depth: float = Field(40.0, description="frontal only: distance in mm of the ball's centre behind the nose tip")
    mm_per_unit: float | None = Field(
        None, gt=0, description="head only: the scale; default: largest neutral head + 5 %, rounded up to 5 mm"
    )
    region_set: str = Field(
        DEFAULT_REGION_SET, description="region set for the labels if all inputs are heads; composites have their own"
    )
    stage_points: int = Field(
        4096, ge=16, description="number of skin points to keep if all inputs are heads; composites have their own"
    )
    shard_items: int = Field(32, ge=1, description="surfaces per shard")


Parameters = CleanParameters


def plan(inputs: Sequence[Location], parameters: CleanParameters, seed: int) -> StagePlan:
    """See `plan_clean`; `inputs` are folders of composites and heads."""
    return plan_clean([open_dataset(path) for path in inputs], parameters, seed)


def plan_clean(inputs: Sequence[Dataset], parameters: CleanParameters, seed: int) -> StagePlan:
    """Plan one surface for every item of the inputs (datasets of composites and heads of one topology).

    Raises CleanError for inputs of other kinds or topologies, shared keys, or subjects whose frame is unknown.
    """
    first = _check_inputs(inputs)
    assert first.region_map is not None
    region_map = RegionMap.from_json(first.region_map)
    composites = [dataset for dataset in inputs if dataset.kind == "composites"]
    parts = _parts_of(composites, region_map, parameters)
    references, morphs = _references(inputs)
    if parameters.height_field and parameters.mode != "frontal":
        raise CleanError("clean.height_field=true needs clean.mode=frontal")
    items: dict[str, PlannedItem] = {}
    for number, dataset in enumerate(inputs):
        for row in dataset.index.to_pylist():
            if row["status"] != "written":
                continue
            if row["key"] in items:
                raise CleanError(f"two inputs hold an item {row['key']!r}; clean them into separate folders")
            items[row["key"]] = _planned(number, dataset.kind, row, parts, references, morphs, bool(composites))
    if not items:
        raise CleanError("the inputs hold no items")
    shared = _shared_arrays(inputs, composites, region_map, parts, parameters)
    mm_per_unit = (
        parameters.radius_mm
        if parameters.mode == "frontal"
        else parameters.mm_per_unit or _automatic_scale(inputs, references, region_map)
    )
    shared["mm_per_unit"] = np.array([mm_per_unit])
    columns = dict.fromkeys(("subject", "expression", "split", *parts.head_columns, "origin"), "string")
    columns |= {"closed": "bool", "vertex_count": "int64", "face_count": "int64", "area_mm2": "float64"}
    schema = DatasetSchema(
        kind="surfaces",
        topology=first.schema.topology,
        mm_per_unit=mm_per_unit,
        frame=FRAMES[parameters.mode] + (OWN_FRAME if parameters.frame == "own" else ""),
        fields=surfaces_fields(parts),
        columns=columns,
        parts=parts,
    )
    return StagePlan(
        schema=schema,
        items=list(items.values()),
        shared=shared,
        region_map=first.region_map,
        shard_items=parameters.shard_items,
        input_fingerprint={f"input {i}": dataset.fingerprint for i, dataset in enumerate(inputs)},
        evidence=Evidence(datasets=[dataset.fingerprint for dataset in inputs]),
    )


def _check_inputs(inputs: Sequence[Dataset]) -> Dataset:
    if not inputs:
        raise CleanError("clean needs at least one dataset of composites or heads")
    for dataset in inputs:
        if dataset.kind not in ("composites", "heads"):
            raise CleanError(f"clean takes datasets of kind 'composites' and 'heads', not {dataset.kind!r}")
        if dataset.region_map is None or dataset.region_map != inputs[0].region_map:
            raise CleanError("the inputs have different region maps: clean each topology into a folder of its own")
    return inputs[0]


def _parts_of(composites: Sequence[Dataset], region_map: RegionMap, parameters: CleanParameters) -> Parts:
    """The parts of the composites, or of `region_set` if all inputs are heads. Raises CleanError, RegionMapError."""
    if not composites:
        return region_map.region_set(parameters.region_set).parts
    if any(other.parts != composites[0].parts for other in composites[1:]):
        raise CleanError("the composites were made with different region sets: clean them into separate folders")
    return composites[0].parts


def _references(inputs: Sequence[Dataset]) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """For each subject, [input, key] of its neutral head, and of the self-graft that has its template morph."""
    references: dict[str, list[Any]] = {}
    morphs: dict[str, list[Any]] = {}
    for number, dataset in enumerate(inputs):
        if dataset.kind == "heads":
            references |= {subject: [number, key] for subject, (key, _) in neutral_keys(dataset).items()}
        else:
            for row in dataset.index.to_pylist():
                if row["status"] == "written" and dataset.parts.is_self_graft(row):
                    morphs[row["recipient"]] = [number, row["key"]]
    # A self-graft is the neutral head itself, so composites alone are enough.
    return {**morphs, **references}, morphs


def _planned(
    number: int,
    kind: str,
    row: Mapping[str, Any],
    parts: Parts,
    references: Mapping[str, list[Any]],
    morphs: Mapping[str, list[Any]],
    with_morph: bool,
) -> PlannedItem:
    subject = row["recipient"] if kind == "composites" else row["subject"]
    reference, morph = references.get(subject), None
    if with_morph:
        morph = [number, row["key"]] if kind == "composites" else morphs.get(subject)
    people = {column: row.get(column, subject) for column in parts.head_columns}
    origin = COMPOSITE if kind == "composites" else SCAN
    columns = {"subject": subject, "expression": row["expression"], "split": row["split"], **people, "origin": origin}
    return PlannedItem(
        key=row["key"],
        row=columns,
        spec={"source": [number, row["key"]], "reference": reference, "morph": morph, "with_morph": with_morph},
    )


def _shared_arrays(
    inputs: Sequence[Dataset],
    composites: Sequence[Dataset],
    region_map: RegionMap,
    parts: Parts,
    parameters: CleanParameters,
) -> dict[str, NDArray[Any]]:
    """faces, template, stage_vertices, stage_parts and vertex labels: from the composites, or computed here if all inputs are heads."""
    if not composites:
        heads = inputs[0]
        stage_vertices = choose_stage_vertices(region_map, parameters.stage_points)
        keys = sorted(key for key, _ in neutral_keys(heads).values())
        template = np.mean([heads[key]["vertices"].astype(np.float64) for key in keys], axis=0)
    else:
        stage_vertices = np.asarray(composites[0].shared["stage_vertices"], dtype=np.int64)
        template = np.asarray(composites[0].shared["template"], dtype=np.float64)
        for other in composites[1:]:
            if not all(
                np.array_equal(other.shared[name], composites[0].shared[name])
                for name in ("template", "stage_vertices", "stage_parts")
            ):
                raise CleanError(
                    "the composites were made with different templates or regions: clean them into separate folders"
                )
    labels = region_map.vertex_labels(parts.region_set)
    if composites and not np.array_equal(labels[stage_vertices], composites[0].shared["stage_parts"]):
        raise CleanError(
            f"the composites' part labels are not those of region set {parts.region_set} in their region map"
        )
    return {
        "faces": np.asarray(inputs[0].faces, dtype=np.int32),
        "template": template,
        "stage_vertices": stage_vertices.astype(np.int32),
        "stage_parts": labels[stage_vertices],
        "vertex_labels": labels,
    }


def _automatic_scale(inputs: Sequence[Dataset], references: Mapping[str, list[Any]], region_map: RegionMap) -> float:
    """mm per unit: the largest neutral head's radius plus 5 %, rounded up to 5 mm."""
    skin = region_map.kept_skin()
    radii = dict[str, float]()
    for subject, (number, key) in references.items():
        head = inputs[number][key]
        radii[subject] = head_radius(head["vertices"][skin], head["landmarks"].astype(np.float64))
    if said := one_decides(radii):
        log.warning("%s, or give the scale as clean.mm_per_unit", said)
    return float(5.0 * np.ceil(SCALE_MARGIN * max(radii.values(), default=0.0) / 5.0))


@dataclass(frozen=True)
class Surface:
    """A cleaned head: vertices [v, 3] in unit coordinates, faces [f, 3], part labels [v], mask [f] of faces made by cutting."""

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    labels: NDArray[np.uint8]
    cut: NDArray[np.bool_]
    closed: bool = True


class CleanStage:
    """The item function of stage clean; one per worker."""

    def __init__(self, context: StageContext) -> None:
        self.parameters = CleanParameters.parse(context.parameters)
        self.inputs = [open_dataset(path) for path in context.inputs]
        assert context.region_map is not None
        self.region_map = RegionMap.from_json(context.region_map)
        self.mm_per_unit = float(context.shared["mm_per_unit"][0])
        self.stage_vertices = np.asarray(context.shared["stage_vertices"], dtype=np.int64)
        self.closer = make_closer(
            np.asarray(context.shared["template"], dtype=np.float64),
            np.asarray(context.shared["faces"], dtype=np.int64),
            self.region_map,
            np.asarray(context.shared["vertex_labels"]),
        )
        self.cut = self.closer.neck_faces
        self.clipper = BallClipper(1.0)
        self._landmarks = lru_cache(maxsize=1024)(self._read_landmarks)

    def _read_landmarks(self, number: int, key: str) -> NDArray[np.float64]:
        return self.inputs[number].read(key, "landmarks").astype(np.float64)

    def origin(self, landmarks: NDArray[np.float64]) -> NDArray[np.float64]:
        """The origin of the item's frame, from 68 landmarks in mm."""
        if self.parameters.mode == "head":
            return head_origin(landmarks)
        return frontal_origin(landmarks, self.parameters.tip_depth)

    def process(self, item: PlannedItem, rng: np.random.Generator) -> ItemOutput:
        """Close one head, transform it to its frame, and check that it fits into the unit ball."""
        subject = item.row["subject"]
        if item.spec["reference"] is None:
            raise ItemRejected(f"the inputs hold no neutral head of subject {subject}, which defines its frame")
        if item.spec["with_morph"] and item.spec["morph"] is None:
            raise ItemRejected(
                f"the composites hold no graft of subject {subject} onto itself, which holds its template morph"
            )
        number, key = item.spec["source"]
        source = self.inputs[number][key]
        origin = neutral = self.origin(self._landmarks(*item.spec["reference"]))
        if self.parameters.frame == "own" and item.row["origin"] == SCAN:
            origin = self.origin(source["landmarks"].astype(np.float64))
        landmarks, points = self._stages(item, source)
        try:
            mesh = self._surface(to_unit(source["vertices"].astype(np.float64), origin, self.mm_per_unit))
        except FacegraftError as error:
            raise ItemRejected(str(error)) from error
        radius = float(np.linalg.norm(mesh.vertices, axis=1).max())
        if self.parameters.mode == "head" and radius > 1.0:
            raise ItemRejected(
                f"the head leaves the unit ball (radius {radius:.3f}); use a larger clean.mm_per_unit (now {self.mm_per_unit:g}, "
                f"needed {np.ceil(radius * self.mm_per_unit):g})"
            )
        # The codes of the parts are shared by all heads of a subject, so its neutral stages must be the same for all of them.
        origins = np.repeat(neutral[None], len(landmarks), axis=0)
        origins[0] = origin
        if len(landmarks) > 1:  # the last stage is the template, in its own frame
            origins[-1] = self.origin(landmarks[-1])
        fields: dict[str, NDArray[Any]] = {
            "vertices": mesh.vertices.astype(np.float32),
            "faces": mesh.faces.astype(np.int32),
            "vertex_parts": mesh.labels,
            "face_cut": mesh.cut.astype(np.uint8),
            "landmarks": to_unit(landmarks, origins[:, None], self.mm_per_unit).astype(np.float32),
            "stage_points": to_unit(points, origins[:, None], self.mm_per_unit).astype(np.float32),
            "to_mm": to_mm_matrix(origin, self.mm_per_unit),
        }
        area = float(face_areas(mesh.vertices, mesh.faces).sum()) * self.mm_per_unit**2
        row = {
            "closed": mesh.closed,
            "vertex_count": len(mesh.vertices),
            "face_count": len(mesh.faces),
            "area_mm2": area,
        }
        return ItemOutput(fields=fields, row=row)

    def _surface(self, vertices: NDArray[np.float64]) -> Surface:
        """Close one head [V, 3] in unit coordinates, and cut it to the ball in mode `frontal`."""
        head = self.closer.close(vertices)
        if self.parameters.mode == "head":
            surface = Surface(head.vertices, head.faces, head.vertex_labels, self.cut)
        elif self.parameters.height_field:
            sheet = visible_sheet(head.vertices, head.faces, head.vertex_labels, 1.0)
            surface = Surface(
                sheet.vertices, sheet.faces, sheet.vertex_labels, np.zeros(len(sheet.faces), dtype=bool), closed=False
            )
        else:
            solid = self.clipper.clip(head.vertices, head.faces, head.vertex_labels)
            made = solid.face_source < 0
            cut = made | self.cut[np.where(made, 0, solid.face_source)]
            surface = Surface(solid.vertices, solid.faces, solid.vertex_labels, cut)
        if surface.closed and not is_watertight(surface.faces):
            raise CleanError("the closed surface has open edges")
        return surface

    def _stages(
        self, item: PlannedItem, source: Mapping[str, NDArray[Any]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Landmarks [S, 68, 3] and skin points [S, M, 3] in mm at the stages of the template morph; without a morph, of the scan only."""
        landmarks = source["landmarks"][None].astype(np.float64)
        points = source["vertices"][self.stage_vertices][None].astype(np.float64)
        if item.spec["morph"] is None:
            return landmarks, points
        number, key = item.spec["morph"]
        later = [
            self.inputs[number].read(key, name)[1:].astype(np.float64) for name in ("stage_landmarks", "stage_points")
        ]
        return np.concatenate([landmarks, later[0]]), np.concatenate([points, later[1]])
