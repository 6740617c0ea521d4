"""Batches are a pure function of the step: the same from memory and from the shards, for one process and for two."""

from __future__ import annotations

import json
import struct
import threading
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facegraft_model.data.batches import BatchSource
from facegraft_model.data.ids import DataError, IdTable
from facegraft_model.data.items import POINT_SETS
from facegraft_model.data.sampler import Sampler, draw_epoch
from facegraft_model.devices import free_bytes
from facegraft_model.errors import ModelError
from facegraft_model.method import SHARED, sampled_points
from toy_parts import EYES

from facegraft.parts import RESERVED, Part, Parts
from facegraft.store import (
    DamagedError,
    DatasetSchema,
    RejectedItem,
    ShardItem,
    finish_dataset,
    open_dataset,
    reader,
    samples_fields,
    shard_name,
    write_shard,
    write_shared,
)

COLUMNS = ("subject", "expression", "split", "recipient", "donor_nose", "donor_eyes", "donor_mouth", "origin")
WINDOWS = {"surface": 16, "near": 8, "free": 4}
FURTHER = {"wide": 6, "poi": 5}
"""Windows into the sets that samples need not have."""
POINTS = 7
PARTS = np.array([0, 0, 1, 2, 3, 0, 1], dtype=np.uint8)


def scan(subject: str, expression: str, split: str = "train") -> dict[str, Any]:
    people = dict.fromkeys(("subject", "recipient", "donor_nose", "donor_eyes", "donor_mouth"), subject)
    return {**people, "expression": expression, "split": split, "origin": "scan"}


def composite(recipient: str, donor: str, expression: str = "neutral") -> dict[str, Any]:
    donors = dict.fromkeys(("donor_nose", "donor_eyes", "donor_mouth"), donor)
    row = {"subject": recipient, "recipient": recipient, **donors}
    return {**row, "expression": expression, "split": "train", "origin": "composite"}


ROWS = {
    "anna--bert": composite("anna", "bert"),
    "anna_e1": scan("anna", "neutral"),
    "anna_e2": scan("anna", "smile"),
    "bert--anna": composite("bert", "anna"),
    "bert_e1": scan("bert", "neutral"),
    "cleo_e1": scan("cleo", "neutral", "test"),
    "cleo_e2": scan("cleo", "smile", "test"),
}
TRAIN = list(ROWS)[:5]
REJECTED = "zoe_e1"


def arrays_of(
    number: int, stages: int = 6, template: float = 0.0, scale: int = 1, further: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """Item `number`, with sets of its own sizes; coordinate 0 is the item, coordinate 1 the row."""
    arrays: dict[str, np.ndarray] = {}
    sizes = {"surface": 40 + number, "near": 20 + 2 * number, "free": 10 + 3 * number, **dict.fromkeys(further, 9 + number)}
    for name, size in sizes.items():
        rows = np.arange(size * scale, dtype=np.float32)
        points = np.stack([np.full_like(rows, number), rows, np.zeros_like(rows)], axis=1)
        arrays |= {f"{name}_points": points, f"{name}_normals": points + 100}
        if name != "free":
            arrays[f"{name}_parts"] = (rows % 4).astype(np.uint8)
        if name != "surface":
            arrays[f"{name}_sdf"] = rows + np.float32(0.5)
    arrays["landmarks"] = np.full((stages, 68, 3), number, np.float32)
    arrays["stage_points"] = number + np.arange(stages * POINTS * 3, dtype=np.float32).reshape(stages, POINTS, 3)
    if stages > 1:
        arrays["landmarks"][-1] = template
        arrays["stage_points"][-1] = template + np.arange(POINTS * 3, dtype=np.float32).reshape(POINTS, 3)
    arrays["to_mm"] = np.diag([100.0 + number, 100.0, 100.0, 1.0])
    return arrays


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a samples dataset of two items a shard; the arrays of an item and what the dataset says of itself can be changed."""

    def write(
        rows: dict[str, dict[str, Any]] | None = None,
        arrays: Callable[[int], dict[str, np.ndarray]] = arrays_of,
        parts: np.ndarray | None = PARTS,
        mm_per_unit: float = 100.0,
        vertex_count: int | None = 12,
    ) -> Path:
        rows = ROWS if rows is None else rows
        folder = tmp_path / f"samples{len(list(tmp_path.iterdir()))}"
        topology = {"name": "toy", "vertex_count": vertex_count, "faces_sha256": None}
        columns = dict.fromkeys(COLUMNS, "string")
        held = [name for name in FURTHER if f"{name}_points" in arrays(0)]
        schema = DatasetSchema("samples", topology, mm_per_unit, "unit ball", samples_fields(EYES, held), columns, EYES)
        keys = sorted([*rows, REJECTED])
        shards = [keys[start : start + 2] for start in range(0, len(keys), 2)]
        plan = {shard_name(number, len(shards)): part for number, part in enumerate(shards)}
        for shard, part in plan.items():
            items = [ShardItem(key, arrays(keys.index(key)), rows[key]) for key in part if key != REJECTED]
            refused = [RejectedItem(REJECTED, "poison", {}) for key in part if key == REJECTED]
            write_shard(folder, shard, items, refused, schema, "c" * 64)
        if parts is not None:
            write_shared(folder, {"stage_parts": parts})
        finish_dataset(folder, schema, plan, "c" * 64)
        return folder

    return write


@pytest.fixture
def samples(write: Callable[..., Path]) -> Path:
    """Five training items, two test items and one that was rejected."""
    return write()


def source(path: Path, **changes: Any) -> BatchSource:
    return BatchSource(path, **{**WINDOWS, "items": 2, "stage": 3, "backend": "resident", **changes})


def assert_same(batch: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert batch.keys() == other.keys()
    for name in batch:
        assert batch[name].dtype == other[name].dtype
        torch.testing.assert_close(batch[name], other[name], rtol=0, atol=0, msg=name)


def poison(folder: Path, key: str, field: str, row: int) -> None:
    """Write a NaN into a finished shard; only a reader that does not compare checksums gets as far as seeing it."""
    path = folder / "shards" / open_dataset(folder).row(key)["shard"]
    data = bytearray(path.read_bytes())
    length = struct.unpack("<Q", data[:8])[0]
    entry = json.loads(data[8 : 8 + length])[f"{key}/{field}"]
    width = int(np.prod(entry["shape"][1:], dtype=int)) * 4
    start = 8 + length + entry["data_offsets"][0] + row * width
    data[start : start + 4] = struct.pack("<f", float("nan"))
    path.write_bytes(data)


# -- what a batch holds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["resident", "stream"])
def test_a_batch_has_windows_whole_fields_and_ids(samples: Path, backend: str) -> None:
    with source(samples, backend=backend) as data:
        batch = data.batch(0)
        assert data.backend == backend
    shapes = {name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for name, tensor in batch.items()}
    names = ["item", "subject", "recipient", "nose", "eyes", "mouth", "expression", "head", "shape", "expression_name"]
    assert shapes == {
        "surface_points": ("float32", (2, 16, 3)),
        "surface_normals": ("float32", (2, 16, 3)),
        "surface_parts": ("uint8", (2, 16)),
        "near_points": ("float32", (2, 8, 3)),
        "near_sdf": ("float32", (2, 8)),
        "near_normals": ("float32", (2, 8, 3)),
        "near_parts": ("uint8", (2, 8)),
        "free_points": ("float32", (2, 4, 3)),
        "free_sdf": ("float32", (2, 4)),
        "free_normals": ("float32", (2, 4, 3)),
        "landmarks": ("float32", (2, 6, 68, 3)),
        "stage_points": ("float32", (2, 6, 3, 3)),
        "stage_part_labels": ("uint8", (3,)),
        "stage_rows": ("int64", (3,)),
        "template_draws": ("float32", (0, 3)),
        "to_mm": ("float64", (2, 4, 4)),
        "is_composite": ("bool", (2,)),
        "is_neutral": ("bool", (2,)),
        **dict.fromkeys(names, ("int64", (2,))),
    }


@pytest.mark.parametrize("further", [{}, {"poi": 5}, FURTHER], ids=["plain", "poi", "wide-poi"])
@pytest.mark.parametrize("backend", ["resident", "stream"])
def test_every_row_is_the_right_one(write: Callable[..., Path], backend: str, further: dict[str, int]) -> None:
    """Items of different sizes, windows that wrap around, and the stage points of the step: compared with the dataset itself."""
    samples = write(arrays=partial(arrays_of, further=tuple(FURTHER)))
    store = open_dataset(samples)
    wrapped, windows = 0, {**WINDOWS, **further}
    with source(samples, backend=backend, items=3, **further) as data:
        for step in range(10):
            batch = data.batch(step)
            draw = data.sampler.draw(step)
            assert (data.stage_parts is not None) and torch.equal(
                batch["stage_part_labels"], data.stage_parts[draw.stage]
            )
            assert len(set(draw.stage.tolist())) == 3 and batch["stage_rows"].tolist() == draw.stage.tolist()
            for number, item in enumerate(batch["item"].tolist()):
                whole = store[data.keys[item]]
                assert {name for name in POINT_SETS if f"{name}_points" in batch} == set(windows)
                for column, (name, window) in enumerate(windows.items()):
                    size = len(whole[f"{name}_points"])
                    rows = (draw.starts[number, column] + np.arange(window)) % size
                    wrapped += rows[-1] < rows[0]
                    for field in POINT_SETS[name]:
                        np.testing.assert_array_equal(batch[field][number], whole[field][rows])
                np.testing.assert_array_equal(batch["landmarks"][number], whole["landmarks"])
                np.testing.assert_array_equal(batch["to_mm"][number], whole["to_mm"])
                np.testing.assert_array_equal(batch["stage_points"][number], whole["stage_points"][:, draw.stage])
    assert wrapped > 5


def test_ids_and_flags(samples: Path) -> None:
    with source(samples, items=5) as data:
        batch = data.batch(0)
        order = batch["item"].argsort()
        columns = {name: batch[name][order].tolist() for name in data.ids}
    assert data.keys == TRAIN
    assert columns == {
        "subject": [0, 0, 0, 1, 1],
        "recipient": [0, 0, 0, 1, 1],
        "nose": [1, 0, 0, 0, 1],
        "eyes": [1, 0, 0, 0, 1],
        "mouth": [1, 0, 0, 0, 1],
        "expression": [0, 0, 1, 2, 2],
        "head": [1, 0, 0, 2, 3],
        "shape": [2, 0, 1, 3, 4],
        "expression_name": [0, 0, 1, 0, 0],
        "is_composite": [True, False, False, True, False],
        "is_neutral": [False, True, False, False, True],
    }


def test_the_composites_say_which_expression_is_neutral(write: Callable[..., Path]) -> None:
    rows = {"a--b": composite("a", "b", "rest"), "a_1": scan("a", "neutral"), "a_2": scan("a", "rest")}
    with source(write(rows), items=3) as data:
        batch = data.batch(0)
        neutral = {data.keys[item]: bool(flag) for item, flag in zip(batch["item"], batch["is_neutral"], strict=True)}
    assert data.neutral_expression == "rest"
    assert neutral == {"a--b": False, "a_1": False, "a_2": True}
    with source(write({"a_1": scan("a", "neutral"), "a_2": scan("a", "rest")})) as data:
        assert data.neutral_expression == "neutral"
    with pytest.raises(DataError, match=r"composites of the expressions neutral, rest; composites must all be neutral"):
        source(write({**rows, "b--a": composite("b", "a")}))


# -- a pure function of the step -----------------------------------------------------------------------------------------


def test_memory_and_shards_give_the_same(samples: Path) -> None:
    with source(samples, items=4, seed=5) as resident, source(samples, items=4, seed=5, backend="stream") as stream:
        for step in (0, 1, 2, 9, 3, 1000, 1001, 0):
            assert_same(resident.batch(step), stream.batch(step))


def test_two_processes_share_the_work_of_one(samples: Path) -> None:
    whole = source(samples, items=12, stage=2)
    shares = [
        source(samples, items=12, stage=2, rank=rank, world=3, backend=backend)
        for rank, backend in enumerate(("resident", "stream", "resident"))
    ]
    for step in range(4):
        batch, parts = whole.batch(step), [share.batch(step) for share in shares]
        assert all(part["item"].shape == (4,) for part in parts)
        together = {
            name: parts[0][name] if name in SHARED else torch.cat([part[name] for part in parts])
            for name in batch
        }
        assert_same(together, batch)
    for data in (whole, *shares):
        data.close()


def test_epochs_are_complete_and_differ(samples: Path) -> None:
    with source(samples, items=3) as data:
        assert (data.items_per_epoch, data.steps_per_epoch) == (5, 5 / 3)
        items = torch.cat([data.batch(step)["item"] for step in range(20)]).reshape(12, 5)
        assert [data.epoch_of(step) for step in range(6)] == [0, 0, 1, 1, 2, 3]
    assert (items.sort(dim=1).values == torch.arange(5)).all()
    assert len({tuple(epoch.tolist()) for epoch in items}) > 6


def test_a_batch_may_be_larger_than_the_set(samples: Path) -> None:
    with source(samples, items=12, keys=TRAIN[:2]) as data:
        assert data.batch(0)["item"].sort().values.tolist() == [0] * 6 + [1] * 6
        assert len({tuple(points[0].tolist()) for points in data.batch(0)["surface_points"]}) > 6


def test_another_seed_is_other_data(samples: Path) -> None:
    draws = []
    for seed in (0, 1):
        with source(samples, items=5, seed=seed, stage=4) as data:
            draws.append([data.sampler.draw(step) for step in range(8)])
    for name in ("items", "starts", "stage"):
        first, second = (np.stack([getattr(draw, name) for draw in each]) for each in draws)
        assert not np.array_equal(first, second)
        assert not np.array_equal(first[0], first[1]) or not np.array_equal(first[1], first[2])


def test_draws_are_uniform() -> None:
    sizes = np.array([[50, 20, 1]] * 40)
    sampler = Sampler(sizes, items=40, stage=5, stage_points=16, seed=2)
    draws = [sampler.draw(step) for step in range(500)]
    starts = np.concatenate([draw.starts for draw in draws])
    first = np.array([draw.items[0] for draw in draws])
    stage = np.concatenate([draw.stage for draw in draws])
    for values, count in ((starts[:, 0], 50), (starts[:, 1], 20), (starts[:, 2], 1), (first, 40), (stage, 16)):
        observed, expected = np.bincount(values, minlength=count), len(values) / count
        assert len(observed) == count
        # Of chi-squared with count - 1 degrees of freedom, less than one in 10^5 lies this far above the mean.
        assert ((observed - expected) ** 2 / expected).sum() < count - 1 + 6 * np.sqrt(2 * count)


def test_the_order_is_the_same_on_every_machine() -> None:
    """A run that is resumed elsewhere, with another numpy, must go on with the data it would have seen."""
    epoch = draw_epoch(7, 2, 6)
    assert epoch.order.tolist() == [0, 3, 1, 4, 5, 2]
    np.testing.assert_allclose(
        epoch.fractions[0], [0.5544941966824665, 0.1720114022282213, 0.7599365688679309], rtol=0, atol=1e-15
    )
    assert Sampler(np.ones((6, 3), dtype=np.int64), 2, 3, 9, seed=7).draw(11).stage.tolist() == [2, 4, 6]


def test_sets_that_samples_need_not_have(write: Callable[..., Path], samples: Path) -> None:
    """They change nothing of the other sets' batches; where they are missing, the message says what makes them."""
    more = write(arrays=partial(arrays_of, further=("wide",)))
    with source(samples) as one, source(more) as other:
        assert_same(one.batch(3), other.batch(3))
    with source(more, wide=6) as data:
        points, distances, normals = sampled_points(batch := data.batch(0))
    assert points.shape == (2, 16 + 8 + 6 + 4, 3) and distances.shape == points.shape[:2] == normals.shape[:2]
    assert torch.equal(points[:, 24:30], batch["wide_points"]) and torch.equal(distances[:, 24:30], batch["wide_sdf"])
    assert torch.equal(normals[:, 30:], batch["free_normals"])
    for path, name in ((samples, "wide"), (more, "poi")):
        with pytest.raises(DataError, match=rf"has no {name} points, of which 7 .* \(facegraft sample --set {name}=N\)"):
            source(path, **{name: 7})
    with pytest.raises(DataError, match=r"a window of 99 wide points is larger than the 9 of item"):
        source(more, wide=99)


# -- which items -----------------------------------------------------------------------------------------------------------


def test_filters(samples: Path) -> None:
    def keys(**filters: Any) -> list[str]:
        with source(samples, **filters) as data:
            assert [row["key"] for row in data.rows] == data.keys
            return data.keys

    assert keys(split="test") == ["cleo_e1", "cleo_e2"]
    assert keys(split=None) == list(ROWS)
    assert keys(origins=("scan",)) == ["anna_e1", "anna_e2", "bert_e1"]
    assert keys(origins=("scan",), expressions=("neutral",)) == ["anna_e1", "bert_e1"]
    assert keys(keys=["cleo_e2", "anna_e1"], split=None) == ["cleo_e2", "anna_e1"]


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ({"split": "tset"}, r"has no items of split 'tset'; its splits are None, test, train"),
        ({"split": "test", "origins": ["composite"]}, "has no items of split 'test' with origin composite"),
        ({"origins": ["dream"]}, "has no items of origin 'dream'; there are scan, composite"),
        ({"origins": "scan"}, "origins must be a list of names, not the text 'scan'"),
        ({"expressions": ["frown"]}, "has no items of expression 'frown'; there are neutral, smile"),
        ({"keys": ["ana_e1"]}, r"has no item 'ana_e1' \(did you mean 'anna_e1'\?\)"),
        ({"keys": ["nobody at all"]}, "has no item 'nobody at all'$"),
        ({"keys": [REJECTED], "split": None}, "item 'zoe_e1' was rejected: poison"),
        ({"keys": ["cleo_e1"]}, "item cleo_e1 has split 'test', and only train was asked for"),
        ({"keys": ["anna_e1", "anna_e2", "anna_e1"]}, "keys names item 'anna_e1' twice"),
        ({"keys": []}, "keys must be a list of at least one item key"),
        ({"keys": "anna_e1"}, "keys must be a list of at least one item key, not 'anna_e1'"),
        (
            {"surface": 41},
            "a window of 41 surface points is larger than the 40 of item anna--bert in .*; ask for at most 40",
        ),
        ({"free": 14}, "a window of 14 free points is larger than the 10 of item anna--bert"),
        ({"stage": 8}, "8 stage points were asked for, but the items of .* have 7; ask for at most 7"),
    ],
)
def test_what_cannot_be_had_is_named(samples: Path, filters: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        source(samples, **filters)


def test_the_id_table_of_a_model_decides_the_rows(samples: Path) -> None:
    table = IdTable.from_index(open_dataset(samples).index, EYES)
    with source(samples, split="test", id_table=table) as data:
        assert data.batch(0)["subject"].tolist() == [2, 2]
    with pytest.raises(DataError, match="item cleo_e1: subject 'cleo' is not in the id table of 2 subjects"):
        source(samples, split="test", id_table=IdTable.from_index(open_dataset(samples).index, EYES, "train"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"items": 0}, "items must be at least 1, but is 0"),
        ({"near": -1}, "near must not be negative, but is -1"),
        ({"seed": -1}, "seed must not be negative"),
        ({"rank": 2, "world": 2}, "rank must be 0 to world - 1, but rank is 2 and world 2"),
        ({"items": 3, "world": 2}, "3 items per step cannot be shared evenly by 2 processes; use a multiple of 2"),
        ({"backend": "disk"}, "backend must be auto, resident or stream, not 'disk'"),
        ({"device": "gpu"}, "no device 'gpu'"),
        ({"expect": {"unit": 1}}, "a model's coordinates have topology, mm_per_unit, frame, parts; unit is unknown"),
    ],
)
def test_wrong_arguments_are_named(samples: Path, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        source(samples, **arguments)


# -- the dataset as a whole ------------------------------------------------------------------------------------------------


def test_the_template_and_the_coordinates(samples: Path) -> None:
    store, data = open_dataset(samples), source(samples)
    assert data.stages == 6
    assert data.stage_template is not None and data.landmarks_template is not None
    np.testing.assert_array_equal(data.stage_template, store["bert_e1"]["stage_points"][-1])
    np.testing.assert_array_equal(data.landmarks_template, np.zeros((68, 3)))
    np.testing.assert_array_equal(data.stage_parts, PARTS)
    assert (data.mm_per_unit, data.frame, data.fingerprint) == (100.0, "unit ball", store.fingerprint)
    assert data.coordinates["topology"]["name"] == "toy"


def test_other_coordinates_than_the_models_are_refused(samples: Path, write: Callable[..., Path]) -> None:
    with source(samples) as data:
        expect = json.loads(json.dumps(data.coordinates))
    with source(samples, expect=expect):
        pass
    words = "topology.vertex_count is 13, the model's 12; mm_per_unit is 110.0, the model's 100.0; make samples"
    with pytest.raises(DataError, match=words):
        source(write(mm_per_unit=110.0, vertex_count=13), expect=expect)
    with pytest.raises(DataError, match="frame is 'unit ball', the model's 'other'"):
        source(samples, expect={"frame": "other"})


def test_no_part_can_be_called_as_something_else_in_a_batch(samples: Path) -> None:
    """A batch holds ids under the names of the parts: what else is in it no part may be called."""
    with source(samples) as data:
        others = set(data.batch(0)) - set(EYES.names)
    assert {"near_points", "stage_part_labels", "item"} <= others <= RESERVED


@pytest.mark.parametrize(
    ("region_set", "change", "words"),
    [
        ("goggles", {}, "in: region set is 'eyes', the model's 'goggles'; make"),
        (
            "eyes",
            {"eyes": (36, 39, 42, 45, 28)},
            r"in: landmarks of eyes are \[36, 39, 42, 45, 27\], the model's \[36, 39, 42, 45, 28\]; make",
        ),
        ("eyes", {"nose": None}, r"in: parts are \['nose', 'eyes', 'mouth'\], the model's \['eyes', 'mouth'\]; make"),
    ],
)
def test_samples_of_other_parts_than_the_models_are_refused(
    samples: Path, region_set: str, change: dict[str, tuple[int, ...] | None], words: str
) -> None:
    entries = (Part(part.name, change.get(part.name, part.landmarks) or ()) for part in EYES.entries)
    others = Parts(region_set, tuple(part for part in entries if part.landmarks))
    with source(samples, expect={"parts": EYES.to_json()}):
        pass
    with pytest.raises(DataError, match=words):
        source(samples, expect={"parts": others.to_json()})


def test_heads_without_a_template_morph(write: Callable[..., Path]) -> None:
    folder = write(arrays=lambda number: arrays_of(number, stages=1))
    with source(folder) as data, source(folder, backend="stream") as stream:
        assert (data.stages, data.stage_template, data.landmarks_template) == (1, None, None)
        batch = data.batch(0)
        assert batch["stage_points"].shape == (2, 1, 3, 3)
        assert_same(batch, stream.batch(0))
    mixed = write(arrays=lambda number: arrays_of(number, stages=6 if number else 1))
    with pytest.raises(
        DataError,
        match=r"landmarks of item anna_e1 has shape \[6, 68, 3\], of item anna--bert \[1, 68, 3\]; items with and",
    ):
        source(mixed)


@pytest.mark.parametrize("backend", ["resident", "stream"])
def test_no_stage_points_and_empty_windows(write: Callable[..., Path], backend: str) -> None:
    with source(write(), backend=backend, stage=0, near=0, free=0) as data:
        batch = data.batch(0)
        assert batch["stage_points"].shape == (2, 6, 0, 3)
        assert batch["stage_part_labels"].shape == (0,)
        assert batch["near_sdf"].shape == (2, 0)
    unlabelled = write(parts=None)
    with source(unlabelled, backend=backend, stage=0) as data:
        assert data.stage_parts is None
        assert data.batch(0)["stage_part_labels"].shape == (0,)
    with pytest.raises(DataError, match="has no stage_parts, the part labels of its stage points"):
        source(unlabelled)
    with pytest.raises(DataError, match=r"stage_parts has shape \[6\], but the items have 7 stage points"):
        source(write(parts=PARTS[:6]))


def test_two_templates_are_refused(write: Callable[..., Path]) -> None:
    folder = write(arrays=lambda number: arrays_of(number, template=1.0 if number == 3 else 0.0))
    words = "last stage of landmarks of item bert--anna is another template than that of item anna--bert"
    with pytest.raises(DataError, match=words):
        source(folder)
    with source(folder, backend="stream") as data, pytest.raises(DataError, match=words):
        for step in range(3):
            data.batch(step)


# -- damage ----------------------------------------------------------------------------------------------------------------


def test_nan_is_found_when_it_is_read(samples: Path) -> None:
    poison(samples, "bert_e1", "near_sdf", 9)
    words = r"item bert_e1, field near_sdf: 1 of \d+ values are NaN or infinite; check with `facegraft verify"
    with pytest.raises(DamagedError, match="sha256 differs"):
        source(samples)
    with pytest.raises(DataError, match=words):
        source(samples, verify=False)
    with source(samples, verify=False, backend="stream", items=1) as data:
        clean, bad = [], []
        for step in range(40):
            draw = data.sampler.draw(step)
            rows = (draw.starts[0, 1] + np.arange(WINDOWS["near"])) % data.sampler.sizes[draw.items[0], 1]
            (bad if data.keys[draw.items[0]] == "bert_e1" and 9 in rows else clean).append(step)
        assert bad and clean
        for step in range(40):
            if step in bad:
                with pytest.raises(DataError, match=words):
                    data.batch(step)
            else:
                data.batch(step)


def test_an_exception_of_the_reading_thread_reaches_the_step_that_needs_it(samples: Path) -> None:
    with source(samples, backend="stream", items=1) as data:
        keys = [data.keys[data.sampler.draw(step).items[0]] for step in range(5)]
        last = keys.index("bert_e1")
        shard = samples / "shards" / open_dataset(samples).row("bert_e1")["shard"]
        content = bytearray(shard.read_bytes())
        content[-1] ^= 1
        shard.write_bytes(content)
        for step, key in enumerate(keys[:last]):
            if open_dataset(samples).row(key)["shard"] != shard.name:
                data.batch(step)
        for _ in range(2):
            with pytest.raises(DamagedError, match="is damaged"):
                data.batch(last)


def streaming() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("facegraft-stream")]


def test_closing_stops_the_thread(samples: Path) -> None:
    before = len(streaming())
    data = source(samples, backend="stream")
    data.batch(0)
    assert len(streaming()) == before + 1
    data.close()
    data.close()
    assert len(streaming()) == before
    with pytest.raises(ModelError, match="are closed; open a new BatchSource"):
        data.batch(1)
    with pytest.raises(ModelError, match="step must not be negative, but is -1"), source(samples) as other:
        other.batch(-1)


# -- memory ----------------------------------------------------------------------------------------------------------------


def test_building_takes_one_item_beside_the_set(write: Callable[..., Path]) -> None:
    """The set itself is torch's memory, which tracemalloc does not see; what it sees are the items on their way there."""
    folder = write(arrays=lambda number: arrays_of(number, scale=1000))
    largest = max(sum(array.nbytes for array in item.values()) for item in map(open_dataset(folder).__getitem__, TRAIN))
    tracemalloc.start()
    with source(folder) as data:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert data._resident is not None
        held = sum(tensor.nbytes for tensor in (*data._resident.flat.values(), *data._resident.whole.values()))
    assert held > 4 * largest
    assert peak < 2 * largest


def test_streamed_batches_open_each_shard_once(samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch comes back to all of them: opened anew each time, a thousand shards cost more than their reading."""
    opened: list[str] = []
    original = reader.safe_open
    monkeypatch.setattr(reader, "OPEN_SHARDS", 1)
    monkeypatch.setattr(reader, "safe_open", lambda path, framework: opened.append(path.name) or original(path, framework=framework))
    with source(samples, backend="stream", verify=False) as data:
        for step in range(8):
            data.batch(step)
    assert len(opened) == len(set(opened)) > 1


def test_auto_chooses_by_what_fits(samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = sum(sum(array.nbytes for array in open_dataset(samples)[key].values()) for key in TRAIN)
    for free, backend in ((2 * needed, "resident"), (2 * needed - 2, "stream")):
        monkeypatch.setattr("facegraft_model.data.batches.free_bytes", lambda device, free=free: free)
        with source(samples, backend="auto") as data:
            assert data.backend == backend
    monkeypatch.setattr("facegraft_model.data.batches.free_bytes", lambda device: needed - 1)
    with pytest.raises(
        DataError, match=r"5 items take 0\.0 GB, and cpu has 0\.0 GB free; use backend 'stream', or fewer items"
    ):
        source(samples)


def test_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert free_bytes(cpu) > 0
    (tmp_path / "meminfo").write_text("MemTotal: 4000 kB\nMemAvailable:    3000 kB\n")
    monkeypatch.setattr("facegraft_model.devices.MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr("facegraft_model.devices.CGROUP", tmp_path)
    assert free_bytes(cpu) == 3000 * 1024
    for name, text in {
        "memory.max": "2000000\n",
        "memory.current": "1500000\n",
        "memory.stat": "anon 5\ninactive_file 300000\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert free_bytes(cpu) == 800_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(cpu) == 3000 * 1024


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_device_gets_the_same(samples: Path) -> None:
    with source(samples, items=4) as host:
        for backend in ("resident", "stream"):
            with source(samples, items=4, device="cuda", backend=backend) as data:
                for step in (0, 1, 2, 3, 9):
                    batch = data.batch(step)
                    assert all(tensor.device.type == "cuda" for tensor in batch.values())
                    assert_same({name: tensor.cpu() for name, tensor in batch.items()}, host.batch(step))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_a_missing_device_is_named(samples: Path) -> None:
    with pytest.raises(ModelError, match=r"device cuda was asked for, but torch .* sees no CUDA device; use cpu"):
        source(samples, device="cuda")
