"""Batches for training and fitting: a pure function of the step, from memory or from the shards.

Every point set is stored shuffled, so a contiguous window of it is a uniform random subset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from facegraft.parts import Parts
from facegraft.store import OPTIONAL_SETS, AnyPath, Dataset, open_dataset
from facegraft.vocabulary import TRAIN
from facegraft_model.data.ids import DataError, IdTable
from facegraft_model.data.items import (
    POINT_SETS,
    WHOLE_FIELDS,
    check_finite,
    look_up_ids,
    neutral_expression,
    require_samples,
    select_rows,
    set_sizes,
)
from facegraft_model.data.resident import Report, ResidentSets
from facegraft_model.data.sampler import Sampler
from facegraft_model.data.stream import StreamedSets
from facegraft_model.data.topology import Topology, read_topology
from facegraft_model.devices import free_bytes, to_device, usable_device
from facegraft_model.errors import ModelError

__all__ = ["BatchSource"]

GB = 1e9
MOST_OPEN = 8192
"""Shards that stay open: each batch needs another few dozen of all shards. Each takes a memory map, of which Linux allows 65,530, and some 30 kB."""
TEMPLATE_TOLERANCE = 1e-5
"""Tolerance, in units of the ball, for the template, which is stored with every item in float32."""


Reserve = Callable[["BatchSource"], float]


class BatchSource:
    """Batches of items of a dataset of samples, for training and fitting.

    Each item has a window of `surface`, of `near`, of `free` and, if asked for, of `wide` and `poi` points, and `stage` of its registered points. A window that runs
    over the end of a set continues at its beginning. The items of a step and the starts of their windows depend only on (seed, step)
    (see `Sampler`), not on the back end or the number of processes: process `rank` of `world` gets the `rank`-th of `world` equal
    shares of a step's items.

    `batch(step)` is a dict of tensors on `device`. With b = items / world, and S = len(parts.stages), or 1 where the samples hold no
    template morph:

    | name | type and shape | |
    |---|---|---|
    | surface_points, surface_normals | f32 [b,surface,3] | in units of the unit ball, as all coordinates and distances |
    | surface_parts | u8 [b,surface] | labels |
    | near_points, near_normals; near_sdf; near_parts | f32 [b,near,3]; f32 [b,near]; u8 [b,near] | |
    | free_points, free_normals; free_sdf | f32 [b,free,3]; f32 [b,free] | |
    | the same as of near of wide, of poi | | only where asked for |
    | landmarks | f32 [b,S,68,3] | at each stage |
    | stage_points | f32 [b,S,stage,3] | at each stage; the same choice of points for all items of a step |
    | stage_part_labels, stage_rows | u8 [stage], int64 [stage] | labels of those points, and their numbers among all |
    | template_draws | f32 [template,3] | numbers in [0, 1) that choose places on the template's surface (`Topology.at`) |
    | to_mm | f64 [b,4,4] | from the unit ball to the mesh's mm |
    | item | int64 [b] | index into `keys` |
    | subject, recipient, each part's name, expression, head, shape, expression_name | int64 [b] | rows of the tables of id_table |
    | is_composite, is_neutral | bool [b] | a graft; a scan of the neutral expression |

    Arguments. split: train, test, or None for all. origins (scan, composite) and expressions: only items of these. keys: exactly these
    items, in this order. id_table: the model's; by default it is made from the chosen items. expect: the `coordinates` of the data
    that a model was trained on, which these samples must have too. backend: "resident" (everything in the device's memory), "stream"
    (read on demand), or "auto": resident if it fits into half the free memory; on a GPU, where `reserve` is given, into all of it but
    the bytes that this says, asked with this source (without `batch`), are needed for the work on a batch. verify: check the sha256 of each shard when it is first opened. report: told of each item that is
    read in advance, for the back end "resident".

    Attributes: parts, keys, rows (of the index), id_table, backend, device, mm_per_unit, frame, topology, coordinates, fingerprint
    (sha256 of dataset.json), neutral_expression, stages (S). On the device: stage_template f32 [M,3] and landmarks_template
    f32 [68,3] (the last stage, which is the same for all items; None if S is 1) and stage_parts u8 [M] (None if the samples lack them).
    On the CPU: template_topology (None for samples of an older version), stage_vertices (None where samples without one do not say).

    Raises DataError for an unusable dataset, on opening or while reading; ModelError for wrong arguments.
    """

    def __init__(
        self,
        path: AnyPath,
        *,
        items: int,
        surface: int,
        near: int,
        free: int,
        stage: int,
        wide: int = 0,
        poi: int = 0,
        template: int = 0,
        seed: int = 0,
        split: str | None = TRAIN,
        origins: Sequence[str] | None = None,
        expressions: Sequence[str] | None = None,
        keys: Sequence[str] | None = None,
        id_table: IdTable | None = None,
        expect: Mapping[str, Any] | None = None,
        device: str | torch.device = "cpu",
        backend: Literal["auto", "resident", "stream"] = "auto",
        rank: int = 0,
        world: int = 1,
        reserve: Reserve | None = None,
        verify: bool = True,
        report: Report | None = None,
    ) -> None:
        self.device = usable_device(device)
        windows = {"surface": surface, "near": near, "free": free, "wide": wide, "poi": poi}
        _check_counts(items, rank, world, {**windows, "stage": stage, "template": template, "seed": seed})
        # A set that samples need not have is only looked for where it is wanted.
        windows = {name: count for name, count in windows.items() if count > 0 or name not in OPTIONAL_SETS}
        if backend not in ("auto", "resident", "stream"):
            raise ModelError(f"backend must be auto, resident or stream, not {backend!r}")
        self.store = open_dataset(path, verify=verify, open_shards=MOST_OPEN)
        require_samples(self.store)
        self.fingerprint = self.store.fingerprint
        self.parts = self.store.parts
        self.mm_per_unit = self.store.mm_per_unit
        self.frame = self.store.schema.frame
        self.topology = dict(self.store.schema.topology)
        self.coordinates: dict[str, Any] = {
            "topology": self.topology,
            "mm_per_unit": self.mm_per_unit,
            "frame": self.frame,
            "parts": self.parts.to_json(),
        }
        check_coordinates(self.store, self.coordinates, {} if expect is None else expect)
        self.rows = select_rows(self.store, split, origins=origins, expressions=expressions, keys=keys)
        self.keys: list[str] = [row["key"] for row in self.rows]
        self.neutral_expression = neutral_expression(self.store)
        self.id_table = IdTable.from_rows(self.rows, self.parts) if id_table is None else id_table
        ids = look_up_ids(self.store, self.rows, self.id_table)
        self.ids = {name: tensor.to(self.device) for name, tensor in ids.items()}
        self.items, self.world = items, world
        # The shapes are in the shards' headers: reading those needs no checksum over a whole dataset.
        headers = open_dataset(path, verify=False) if verify else self.store
        sizes = set_sizes(headers, self.keys, windows)
        self._read_template(headers, stage)
        whole = {field: headers.shape(self.keys[0], field) for field in WHOLE_FIELDS}
        self._shapes = whole | {field: headers.shape(self.keys[0], field) for name in windows for field in POINT_SETS[name]}
        stage_points = headers.shape(self.keys[0], "stage_points")[1]
        self.windows = windows
        self.sampler = Sampler(sizes, items, stage, stage_points, seed, rank, world, template)
        self.backend = self._choose_backend(backend, item_bytes(headers, self.keys[0], sizes, windows).sum(), reserve)
        arguments = (self.store, self.keys, sizes, windows, self.device, self._check)
        self._resident = ResidentSets(*arguments, report) if self.backend == "resident" else None
        self._stream = StreamedSets(*arguments, self.sampler.draw, self._shapes) if self.backend == "stream" else None
        self._closed = False

    def _read_template(self, headers: Dataset, stage: int) -> None:
        """Set stages, stage_template, landmarks_template and stage_parts; all items must have as many stages and stage points."""
        shapes = {field: headers.shape(self.keys[0], field) for field in ("landmarks", "stage_points")}
        for key in self.keys:
            for field, shape in shapes.items():
                if headers.shape(key, field) != shape:
                    raise DataError(
                        f"{headers.path}: field {field} of item {key} has shape {list(headers.shape(key, field))}, of item {self.keys[0]} "
                        f"{list(shape)}; items with and without the template morph cannot be mixed: clean them into separate folders"
                    )
        self.stages, points = shapes["stage_points"][:2]
        if stage > points:
            raise DataError(
                f"{stage} stage points were asked for, but the items of {headers.path} have {points}; ask for at most {points}"
            )
        parts = self.store.shared.get("stage_parts")
        if parts is None and stage > 0:
            raise DataError(
                f"{headers.path} has no stage_parts, the part labels of its stage points; ask for 0 stage points, or sample anew"
            )
        if parts is not None and parts.shape != (points,):
            raise DataError(
                f"{headers.path}: stage_parts has shape {list(parts.shape)}, but the items have {points} stage points; sample anew"
            )
        self.stage_parts = None if parts is None else torch.from_numpy(parts.astype(np.uint8)).to(self.device)
        self.template_topology: Topology | None = None
        self.stage_vertices: torch.Tensor | None = None
        self.stage_template: torch.Tensor | None = None
        self.landmarks_template: torch.Tensor | None = None
        self._template: dict[str, NDArray[np.float32]] = {}
        if self.stages > 1:
            self._template = {field: self.store.read(self.keys[0], field)[-1] for field in shapes}
            self.template_topology = read_topology(self.store)
            self.stage_vertices = self._read_stage_vertices(points)
            self.stage_template = torch.from_numpy(self._template["stage_points"]).to(self.device)
            self.landmarks_template = torch.from_numpy(self._template["landmarks"]).to(self.device)

    def _read_stage_vertices(self, points: int) -> torch.Tensor | None:
        """Numbers int64 of the topology's vertices that the stage points are; samples without a topology need not say."""
        found = self.store.shared.get("stage_vertices")
        if found is None and self.template_topology is None:
            return None
        if found is None or found.shape != (points,):
            held = "none" if found is None else f"those of shape {list(found.shape)}"
            raise DataError(
                f"{self.store.path}: stage_vertices must name the vertex of each of the {points} stage points, but there are {held}; sample anew"
            )
        return torch.from_numpy(found.astype(np.int64))

    def _check(self, key: str, field: str, values: NDArray[Any]) -> None:
        """Raises DataError for NaN, and for an item whose last stage is not the template of the other items."""
        check_finite(self.store, key, field, values)
        template = self._template.get(field)
        if template is not None and np.abs(values[-1] - template).max(initial=0.0) > TEMPLATE_TOLERANCE:
            raise DataError(
                f"{self.store.path}: the last stage of {field} of item {key} is another template than that of item {self.keys[0]}; "
                "the items come from different templates: clean and sample them into separate folders"
            )

    def _choose_backend(self, backend: str, needed: float, reserve: Reserve | None) -> str:
        if backend == "stream":
            return backend
        free = free_bytes(self.device)
        if backend == "resident":
            if needed > free:
                raise DataError(
                    f"{self.store.path}: {len(self.keys)} items take {needed / GB:.1f} GB, and {self.device} has {free / GB:.1f} GB free; "
                    "use backend 'stream', or fewer items"
                )
            return backend
        room = free / 2 if reserve is None or self.device.type == "cpu" else free - reserve(self)
        return "resident" if needed <= room else "stream"

    # -- batches ------------------------------------------------------------------------------------------------------

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """The batch of a step, on the device. Raises DataError for damage found while reading, ModelError after close()."""
        if self._closed:
            raise ModelError(f"the batches of {self.store.path} are closed; open a new BatchSource")
        if step < 0:
            raise ModelError(f"step must not be negative, but is {step}")
        draw = self.sampler.draw(step)
        if self._resident is not None:
            batch = self._resident.batch(draw)
        else:
            assert self._stream is not None
            batch = self._stream.batch(step)
        items, stage = (to_device(array, self.device) for array in (draw.items, draw.stage))
        parts = (
            torch.empty(0, dtype=torch.uint8, device=self.device)
            if self.stage_parts is None
            else self.stage_parts[stage]
        )
        return {
            **batch,
            "stage_part_labels": parts,
            "stage_rows": stage,
            "template_draws": to_device(draw.template.astype(np.float32), self.device),
            "item": items,
            **{name: ids[items] for name, ids in self.ids.items()},
        }

    @property
    def points(self) -> int:
        """Points of an item in a batch."""
        return sum(self.windows.values()) + self.sampler.stage

    def blank(self, items: int) -> dict[str, torch.Tensor]:
        """A batch of so many items on torch's meta device: tensors of the types and shapes of `batch`, without contents."""

        def empty(field: str, rows: tuple[int, ...], own: int) -> torch.Tensor:
            dtype = getattr(torch, self.store.schema.fields[field].dtype)
            return torch.empty((items, *rows, *self._shapes[field][own:]), dtype=dtype, device="meta")

        draw = self.sampler.draw(0)
        stage = torch.from_numpy(draw.stage).to("meta")
        batch = {field: empty(field, (window,), 1) for name, window in self.windows.items() for field in POINT_SETS[name]}
        batch |= {"landmarks": empty("landmarks", (), 0), "to_mm": empty("to_mm", (), 0)}
        batch["stage_points"] = empty("stage_points", (self.stages, len(stage)), 2)
        batch["stage_part_labels"] = torch.empty(0 if self.stage_parts is None else len(stage), dtype=torch.uint8, device="meta")
        batch |= {"stage_rows": stage, "template_draws": torch.empty(len(draw.template), 3, device="meta")}
        rows = {name: torch.empty(items, dtype=ids.dtype, device="meta") for name, ids in self.ids.items()}
        return {**batch, "item": torch.empty(items, dtype=torch.int64, device="meta"), **rows}

    @property
    def items_per_epoch(self) -> int:
        return len(self.keys)

    @property
    def steps_per_epoch(self) -> float:
        """Number of steps in which every item is used once; fractional where `items` does not divide the number of items."""
        return len(self.keys) / self.items

    def epoch_of(self, step: int) -> int:
        """The epoch of the first item of a step."""
        return step * self.items // len(self.keys)

    def close(self) -> None:
        """Free the memory and stop the reading thread. May be called twice."""
        self._closed = True
        for sets in (self._resident, self._stream):
            if sets is not None:
                sets.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def check_coordinates(store: Dataset, coordinates: Mapping[str, Any], expect: Mapping[str, Any]) -> None:
    """Raises DataError, which names all differences of a dataset's topology, mm_per_unit, frame and parts from those expected."""
    unknown = set(expect) - set(coordinates)
    if unknown:
        raise ModelError(f"a model's coordinates have {', '.join(coordinates)}; {', '.join(sorted(unknown))} is unknown")
    have, want = _flat(coordinates), _flat(expect)
    # If only one side has a part, the names of the parts already show it: its landmarks need not be listed too.
    differing = [name for name in want if name in have and have[name] != want[name]]
    if differing:
        both = "; ".join(f"{name} {have[name]!r}, the model's {want[name]!r}" for name in differing)
        raise DataError(
            f"{store.path} has other coordinates than the model was trained in: {both}; make samples as for the model's data"
        )


def item_bytes(store: Dataset, key: str, sizes: NDArray[np.int64], sets: Iterable[str]) -> NDArray[np.int64]:
    """Bytes [I] that the items take in memory, from the sizes [I,sets] of these sets; fields read whole have the sizes of item `key`."""
    width = {field: np.dtype(spec.dtype).itemsize for field, spec in store.schema.fields.items()}
    row = [
        sum(width[field] * int(np.prod(store.shape(key, field)[1:])) for field in POINT_SETS[name]) for name in sets
    ]
    whole = sum(width[field] * int(np.prod(store.shape(key, field))) for field in WHOLE_FIELDS)
    total: NDArray[np.int64] = sizes @ np.array(row, dtype=np.int64) + whole
    return total


def _flat(coordinates: Mapping[str, Any]) -> dict[str, Any]:
    """Coordinates as a flat dict, with the fields of the topology and of the parts under names that read well before a value."""
    flat: dict[str, Any] = {}
    for name, value in coordinates.items():
        if name == "parts":
            parts = Parts.from_json(value)
            flat |= {"region set is": parts.region_set, "parts are": list(parts)}
            flat |= {f"landmarks of {part} are": list(parts.landmarks(part)) for part in parts}
        elif isinstance(value, Mapping):
            flat |= {f"{name}.{inner} is": each for inner, each in value.items()}
        else:
            flat[f"{name} is"] = value
    return flat


def _check_counts(items: int, rank: int, world: int, counts: Mapping[str, int]) -> None:
    if items < 1:
        raise ModelError(f"items must be at least 1, but is {items}")
    for name, count in counts.items():
        if count < 0:
            raise ModelError(f"{name} must not be negative, but is {count}")
    if world < 1 or not 0 <= rank < world:
        raise ModelError(f"rank must be 0 to world - 1, but rank is {rank} and world {world}")
    if items % world:
        raise ModelError(
            f"{items} items per step cannot be shared evenly by {world} processes; use a multiple of {world}"
        )
