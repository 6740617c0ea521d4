"""Stage sample: surfaces → samples.

Points on the surface with normals, and points near it and free in the unit ball with exact signed distances; each point has
a part label. Two further sets near the surface, as other methods were published with, are there if asked for. Each set is shuffled: any contiguous window is a uniform random subset, so a training read is one slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from facegraft.engine import Evidence, ItemOutput, ItemRejected, PlannedItem, StageContext, StagePlan
from facegraft.errors import FacegraftError, nearest
from facegraft.geometry.frame import to_unit
from facegraft.regions.closer import make_closer
from facegraft.regions.regionmap import RegionMap
from facegraft.stages.parameters import StageParameters
from facegraft.store import OPTIONAL_SETS, Dataset, DatasetSchema, open_dataset
from facegraft.store.remote import Location
from facegraft.store.schema import samples_fields
from facegraft.surfaces.distance import BACKENDS, check_backend, signed_distance
from facegraft.surfaces.errors import DistanceError
from facegraft.surfaces.labels import face_labels
from facegraft.surfaces.normals import face_areas
from facegraft.surfaces.sampling import SurfaceSamples, free_points, near_points, sample_around, sample_surface

AUTO = "auto"
FRAME_TOLERANCE = 1e-5
"""Largest difference, in units, of the last stage from the template: both are rounded to float32."""


class SampleParameters(StageParameters):
    """Parameters of the sample stage. Counts are points per item."""

    STAGE: ClassVar[str] = "sample"
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "facegraft": {},
        "paper": {"surface": 235_000, "near": 0, "free": 15_000, "balanced": 0.0},
    }

    preset: str = Field(
        "facegraft",
        description="named defaults: facegraft, or paper (235,000 on the surface, 15,000 free, no near band)",
    )
    surface: int = Field(150_000, ge=1, description="points on the surface")
    near: int = Field(62_500, ge=0, description="points near the surface")
    free: int = Field(37_500, ge=0, description="points uniform in the unit ball")
    near_sigmas: tuple[float, ...] = Field(
        (1.0, 5.0), description="standard deviations of the near points in mm, in equal shares"
    )
    wide: int = Field(0, ge=0, description="points in the wide bands around the surface that DeepSDF was published with, a set of its own")
    wide_sigmas: tuple[float, ...] = Field(
        (0.0707, 0.0224),
        description="standard deviations of the wide points as shares of the ball's radius, in equal shares (DeepSDF: variances 0.005, 0.0005)",
    )
    poi: int = Field(
        0, ge=0, description="points near the surface, most of them around eyes, nose tip and mouth, as i3DMM was published with; a set of its own"
    )
    poi_share: float = Field(0.8, ge=0, le=1, description="share of the poi points that lie around those four points of interest")
    poi_mm: float = Field(41.0, gt=0, description="how far from a point of interest in mm (i3DMM: 0.15 of its unit, which is 274 mm)")
    poi_sigmas: tuple[float, ...] = Field(
        (13.7, 1.37), description="standard deviations of the poi points in mm, in equal shares (i3DMM: 0.05 and 0.005 of its unit)"
    )
    balanced: float = Field(
        0.5, ge=0, le=1, description="share of surface points spread equally over the parts and the remainder"
    )
    cut_share: float = Field(
        0.1, ge=0, le=1, description="largest share of surface points on faces made by cutting"
    )
    backend: str = Field(
        AUTO,
        description=f"how the signed distance is found: {AUTO} (by whether the surface is closed), {', '.join(BACKENDS)}",
    )
    shard_items: int = Field(16, ge=1, description="items per shard")

    @field_validator("near_sigmas", "wide_sigmas", "poi_sigmas")
    @classmethod
    def _positive(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values or min(values) <= 0:
            raise ValueError("needs at least one standard deviation, all above 0")
        return values

    @field_validator("backend")
    @classmethod
    def _known_backend(cls, name: str) -> str:
        known = (AUTO, *BACKENDS)
        if name not in known:
            raise ValueError(f"there is no distance backend {name!r}{nearest(name, known)}")
        if name != AUTO:
            try:
                check_backend(name)  # before the stages that come first in a run, not after them
            except DistanceError as error:
                raise ValueError(str(error)) from error
        return name

    @property
    def optional_sets(self) -> tuple[str, ...]:
        """The sets beside surface, near and free that are asked for."""
        return tuple(name for name in OPTIONAL_SETS if getattr(self, name) > 0)

    def as_json(self) -> dict[str, Any]:
        """Without the parameters of a set that is not asked for: its samples are, byte for byte, those of versions that lack it."""
        absent = [name for name in OPTIONAL_SETS if name not in self.optional_sets]
        return {
            name: value for name, value in super().as_json().items() if not any(name == each or name.startswith(f"{each}_") for each in absent)
        }


Parameters = SampleParameters


class SampleError(FacegraftError):
    """A dataset that cannot be sampled."""


def plan(inputs: Sequence[Location], parameters: SampleParameters, seed: int) -> StagePlan:
    """See `plan_sample`; `inputs` is one folder of surfaces."""
    return plan_sample(open_dataset(inputs[0]), parameters, seed)


def plan_sample(surfaces: Dataset, parameters: SampleParameters, seed: int) -> StagePlan:
    """Plan one item of samples for every surface. Raises SampleError for a dataset of another kind, or with closed surfaces for a backend
    of open sheets."""
    if surfaces.kind != "surfaces":
        raise SampleError(
            f"sample needs a dataset of kind 'surfaces', not {surfaces.kind!r}; make one with `facegraft clean`"
        )
    if parameters.backend != AUTO and not BACKENDS[parameters.backend].closed:
        closed = [row["key"] for row in surfaces.index.to_pylist() if row["status"] == "written" and row.get("closed", True)]
        if closed:
            raise SampleError(
                f"sample.backend={parameters.backend} is for open sheets, but {closed[0]} and {len(closed) - 1} others are closed; "
                f"leave it at {AUTO}"
            )
    names = [name for name in surfaces.schema.columns if name not in ("vertex_count", "face_count", "area_mm2")]
    items = [
        PlannedItem(key=row["key"], row={name: row[name] for name in names}, spec={})
        for row in surfaces.index.to_pylist()
        if row["status"] == "written"
    ]
    schema = DatasetSchema(
        kind="samples",
        topology=surfaces.schema.topology,
        mm_per_unit=surfaces.mm_per_unit,
        frame=surfaces.schema.frame,
        fields=samples_fields(surfaces.parts, parameters.optional_sets),
        columns={name: surfaces.schema.columns[name] for name in names},
        parts=surfaces.parts,
    )
    return StagePlan(
        schema=schema,
        items=items,
        shared={
            **{
                name: np.asarray(array)
                for name, array in surfaces.shared.items()
                if name in ("stage_vertices", "stage_parts")
            },
            **template_topology(surfaces),
        },
        region_map=surfaces.region_map,
        shard_items=parameters.shard_items,
        input_fingerprint={"surfaces": surfaces.fingerprint},
        evidence=Evidence(datasets=[surfaces.fingerprint]),
    )


def template_topology(surfaces: Dataset) -> dict[str, NDArray[Any]]:
    """The template on the topology's own vertices and triangles, for models that give heads in correspondence; {} without a morph.

    template_vertices f32 [n,3] in the unit-ball frame of the last stage, template_faces i32 [m,3] (indices into these), template_parts
    u8 [n], template_ids i32 [n] (vertex of the topology, ascending): the skin that cleaning keeps, and of that the triangles
    inside the unit ball, outside of which there are no samples. template_cap_vertices f32 [k,3], template_cap_faces i32 [c,3]: what
    cleaning adds to it there; the faces' indices are into template_vertices followed by these. Raises SampleError where the last stage is not the template.
    """
    written = (row["key"] for row in surfaces.index.to_pylist() if row["status"] == "written")
    key = next((key for key in written if surfaces.shape(key, "stage_points")[0] > 1), None)
    if key is None or surfaces.region_map is None:
        return {}
    template = np.asarray(surfaces.shared["template"], dtype=np.float64)
    labels = np.asarray(surfaces.shared["vertex_labels"])
    stage = surfaces.read(key, "stage_points")[-1].astype(np.float64)
    # The stage points carry the frame of the template, which the dataset does not state: the origin is what they leave over.
    left_over = template[np.asarray(surfaces.shared["stage_vertices"])] - stage * surfaces.mm_per_unit
    origin = left_over.mean(axis=0)
    unit = to_unit(template, origin, surfaces.mm_per_unit)
    if np.abs(left_over - origin).max() > FRAME_TOLERANCE * surfaces.mm_per_unit:
        raise SampleError(
            f"{surfaces.path}: the last stage of item {key} is not the dataset's template; clean composites and heads anew"
        )
    closer = make_closer(template, surfaces.shared["faces"], RegionMap.from_json(surfaces.region_map), labels)
    faces = closer.skin_faces
    faces = faces[(np.linalg.norm(unit, axis=1) <= 1.0)[faces].all(axis=1)]
    ids, corners = np.unique(faces, return_inverse=True)
    closed = to_unit(closer.close(template).vertices, origin, surfaces.mm_per_unit)
    # Vertices of the closed template: first those of the topology, then the caps' own, and -1 for those outside the ball.
    place = np.full(len(closed), -1)
    own = np.flatnonzero(np.isin(closer.source, ids))
    place[own] = np.searchsorted(ids, closer.source[own])
    added = closer.faces[closer.added_faces]
    new = np.setdiff1d(np.unique(added), np.flatnonzero(closer.source >= 0))
    new = new[np.linalg.norm(closed[new], axis=1) <= 1.0]
    place[new] = len(ids) + np.arange(len(new))
    caps = place[added]
    return {
        "template_vertices": unit[ids].astype(np.float32),
        "template_faces": corners.reshape(-1, 3).astype(np.int32),
        "template_parts": labels[ids].astype(np.uint8),
        "template_ids": ids.astype(np.int32),
        "template_cap_vertices": closed[new].astype(np.float32),
        "template_cap_faces": caps[(caps >= 0).all(axis=1)].astype(np.int32),
    }


class SampleStage:
    """The item function of stage sample; one per worker."""

    def __init__(self, context: StageContext) -> None:
        self.parameters = SampleParameters.parse(context.parameters)
        self.surfaces = open_dataset(context.inputs[0])

    def process(self, item: PlannedItem, rng: np.random.Generator) -> ItemOutput:
        """Sample one surface."""
        surface = self.surfaces[item.key]
        try:
            fields = sample_item(
                surface, self.parameters, self.surfaces.mm_per_unit, bool(item.row.get("closed", True)), rng
            )
        except FacegraftError as error:
            raise ItemRejected(str(error)) from error
        return ItemOutput(fields=fields, row={})


def sample_item(
    surface: Mapping[str, NDArray[Any]],
    parameters: SampleParameters,
    mm_per_unit: float,
    closed: bool,
    rng: np.random.Generator,
) -> dict[str, NDArray[Any]]:
    """All point sets of one surface (an item of a `surfaces` dataset), as the fields of a `samples` item."""
    vertices = surface["vertices"].astype(np.float64)
    faces = surface["faces"].astype(np.int64)
    backend = parameters.backend
    if backend == AUTO:
        backend = "winding" if closed else "height_field"
    labels = face_labels(surface["vertex_parts"], faces)
    cut = surface["face_cut"].astype(bool)
    points = sample_shared(vertices, faces, labels, cut, parameters, parameters.surface, rng)
    fields: dict[str, NDArray[Any]] = {
        "surface_points": points.points.astype(np.float32),
        "surface_normals": points.normals.astype(np.float32),
        "surface_parts": points.parts,
    }
    seeds = sample_shared(vertices, faces, labels, cut, parameters, parameters.near, rng)
    off = {"near": near_points(seeds.points, np.array(parameters.near_sigmas) / mm_per_unit, rng)[0]}
    off["free"] = free_points(parameters.free, rng)
    # The further sets are drawn last, so that the others are the same with and without them.
    if parameters.wide:
        by_area = parameters.model_copy(update={"balanced": 0.0})
        seeds = sample_shared(vertices, faces, labels, cut, by_area, parameters.wide, rng)
        off["wide"] = near_points(seeds.points, parameters.wide_sigmas, rng)[0]
    if parameters.poi:
        seeds = sample_interesting(vertices, faces, ~cut, surface["landmarks"][0], parameters, mm_per_unit, rng)
        off["poi"] = near_points(seeds.points, np.array(parameters.poi_sigmas) / mm_per_unit, rng)[0]
    stored = {name: points.astype(np.float32) for name, points in off.items()}
    # Distances are computed at the stored float32 positions, so that rounding costs no accuracy.
    together = np.concatenate(list(stored.values())).astype(np.float64)
    found = signed_distance(vertices, faces, together, backend=backend)
    first = 0
    for name, points32 in stored.items():
        rows = slice(first, first := first + len(points32))
        fields[f"{name}_points"] = points32
        fields[f"{name}_sdf"] = found.sdf[rows].astype(np.float32)
        fields[f"{name}_normals"] = found.gradient[rows].astype(np.float32)
        if name != "free":
            fields[f"{name}_parts"] = labels[found.face_index[rows]]
    fields |= {name: surface[name] for name in ("landmarks", "stage_points", "to_mm")}
    return fields


def points_of_interest(landmarks: NDArray[Any]) -> NDArray[np.float64]:
    """The middles of the right eye, of the left eye and of the mouth, and the nose tip [4, 3], from the landmarks [68, 3] (iBUG)."""
    marks = np.asarray(landmarks, dtype=np.float64)
    return np.stack([marks[[36, 39]].mean(0), marks[[42, 45]].mean(0), marks[30], marks[[48, 54]].mean(0)])


def sample_interesting(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int64],
    skin: NDArray[np.bool_],
    landmarks: NDArray[Any],
    parameters: SampleParameters,
    mm_per_unit: float,
    rng: np.random.Generator,
) -> SurfaceSamples:
    """`poi` points on the skin in random order: `poi_share` of them within `poi_mm` of a point of interest, the rest elsewhere
    (Yenamandra et al. 2021, i3DMM)."""
    around = round(parameters.poi * parameters.poi_share)
    centres, radius = points_of_interest(landmarks), parameters.poi_mm / mm_per_unit
    both = SurfaceSamples.concatenated(
        [
            sample_around(vertices, faces, count, rng, centres, radius, inside=inside, face_mask=skin)
            for inside, count in ((True, around), (False, parameters.poi - around))
        ]
    )
    return both.take(rng.permutation(parameters.poi))


def sample_shared(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int64],
    labels: NDArray[np.uint8],
    cut: NDArray[np.bool_],
    parameters: SampleParameters,
    count: int,
    rng: np.random.Generator,
) -> SurfaceSamples:
    """Points on the surface in random order: at most `cut_share` of them on faces made by cutting, the rest on the skin.

    Cut faces (a frontal solid's ball, a neck's cap) close the solid but are not part of the face; where their share of the
    area is below `cut_share`, they get that share of the points.
    """
    areas = face_areas(vertices, faces)
    on_cut = round(count * min(parameters.cut_share, float(areas[cut].sum() / areas.sum())))
    skin = sample_surface(
        vertices, faces, count - on_cut, rng, labels=labels, balanced=parameters.balanced, face_mask=~cut
    )
    if on_cut == 0:
        return skin
    rest = sample_surface(vertices, faces, on_cut, rng, labels=labels, face_mask=cut)
    order = rng.permutation(count)
    together = (
        np.concatenate([getattr(skin, name), getattr(rest, name)])[order]
        for name in ("points", "normals", "parts", "face_index")
    )
    return SurfaceSamples(*together)
