"""What goes in comes out, and the same in gives the same bytes: properties of the store."""

from __future__ import annotations

import pickle
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from facegraft.store import (
    DatasetSchema,
    FieldSpec,
    RejectedItem,
    ShardItem,
    finish_dataset,
    open_dataset,
    shard_name,
    verify_dataset,
    write_shard,
)
from facegraft.store.index import index_table, table_to_bytes
from facegraft.store.schema import DTYPES

PLAN = "a" * 64
KEYS = st.text("abcXYZ019_-", min_size=1, max_size=6)
TOPOLOGY = {"name": None, "vertex_count": None, "faces_sha256": None}


def arrays_of(dtype: str) -> st.SearchStrategy[np.ndarray]:
    elements = {"allow_nan": False, "allow_infinity": False} if dtype.startswith("float") else None
    return hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4), elements=elements)


@st.composite
def datasets(
    draw: st.DrawFn,
) -> tuple[DatasetSchema, dict[str, dict[str, np.ndarray]], dict[str, str], dict[str, list[str]]]:
    """A schema, items that fit it, rejected items, and a division into shards."""
    dtypes = draw(st.lists(st.sampled_from(DTYPES), min_size=1, max_size=3))
    ranks = [draw(st.integers(0, 3)) for _ in dtypes]
    fields = {
        f"field{number}": FieldSpec(dtype, tuple(f"d{number}_{axis}" for axis in range(rank)), "u", "f", "m")
        for number, (dtype, rank) in enumerate(zip(dtypes, ranks, strict=True))
    }
    keys = sorted(draw(st.sets(KEYS, max_size=6)))
    rejected = {key: draw(st.text("abc é", min_size=1).filter(str.strip)) for key in keys if draw(st.booleans())}
    items = {}
    for key in keys:
        if key not in rejected:
            items[key] = {}
            for name, spec in fields.items():
                elements = {"allow_nan": False, "allow_infinity": False} if spec.dtype.startswith("float") else None
                shape = draw(st.tuples(*[st.integers(0, 4)] * len(spec.shape)))
                items[key][name] = draw(hnp.arrays(spec.dtype, shape, elements=elements))
    size = draw(st.integers(1, 3))
    count = -(-len(keys) // size)
    plan = {shard_name(number, count): keys[number * size : (number + 1) * size] for number in range(count)}
    schema = DatasetSchema("surfaces", TOPOLOGY, draw(st.floats(0.1, 1e3)), draw(st.text()), fields, {"note": "string"})
    return schema, items, rejected, plan


@settings(max_examples=40, deadline=None)
@given(datasets(), st.randoms(use_true_random=False))
def test_any_dataset_comes_back_and_is_spelled_one_way(dataset: tuple, shuffler: random.Random) -> None:
    schema, items, rejected, plan = dataset
    spellings = []
    for attempt in range(2):
        with tempfile.TemporaryDirectory() as folder:
            shards = list(plan)
            if attempt:
                shuffler.shuffle(shards)
            for shard in shards:
                keys = list(plan[shard])
                if attempt:
                    shuffler.shuffle(keys)
                written = [
                    ShardItem(key, dict(sorted(items[key].items(), reverse=bool(attempt))), {"note": key})
                    for key in keys
                    if key in items
                ]
                refused = [RejectedItem(key, rejected[key], {}) for key in keys if key in rejected]
                write_shard(folder, shard, written, refused, schema, PLAN)
            finish_dataset(folder, schema, plan, PLAN)
            assert verify_dataset(folder) == []
            ds = open_dataset(folder)
            assert ds.schema == schema
            assert ds.keys() == sorted(items)
            assert len(ds.index) == len(items) + len(rejected)
            for key, arrays in items.items():
                assert set(ds[key]) == set(arrays)
                for name, array in arrays.items():
                    back = ds[key][name]
                    assert (back.dtype, back.shape) == (array.dtype, array.shape)
                    np.testing.assert_array_equal(back, array)
                    assert ds.shape(key, name) == array.shape
                assert ds.row(key)["note"] == key
            for key, reason in rejected.items():
                assert ds.row(key) == {
                    "key": key,
                    "shard": None,
                    "status": "rejected",
                    "reason": " ".join(reason.split()),
                    "note": None,
                }
            spellings.append(
                {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
            )
    assert spellings[0] == spellings[1]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_window_is_the_slice(data: st.DataObject) -> None:
    array = data.draw(
        hnp.arrays(
            "float32",
            st.tuples(st.integers(0, 9), st.integers(0, 3)),
            elements={"allow_nan": False, "allow_infinity": False},
        )
    )
    start = data.draw(st.integers(0, len(array)))
    stop = data.draw(st.integers(start, len(array)))
    schema = DatasetSchema("surfaces", TOPOLOGY, 1.0, "", {"x": FieldSpec("float32", ("n", "m"), "", "", "")}, {})
    with tempfile.TemporaryDirectory() as folder:
        write_shard(folder, shard_name(0, 1), [ShardItem("k", {"x": array}, {})], [], schema, PLAN)
        finish_dataset(folder, schema, {shard_name(0, 1): ["k"]}, PLAN)
        window = open_dataset(folder).window("k", "x", start, stop)
    assert window.dtype == np.float32
    assert window.shape == array[start:stop].shape
    np.testing.assert_array_equal(window, array[start:stop])


def test_a_dataset_survives_pickling(toy) -> None:
    ds = toy.open()
    first = ds["s0a"]
    again = pickle.loads(pickle.dumps(ds))
    assert again.keys() == ds.keys()
    np.testing.assert_array_equal(again["s0a"]["vertices"], first["vertices"])


def test_the_index_has_the_same_bytes_in_any_order_and_chunking() -> None:
    rows = [
        {
            "key": f"k{number:03d}",
            "shard": None,
            "status": "rejected",
            "reason": "x",
            "score": number / 7,
            "note": None if number % 3 else "ä",
        }
        for number in range(100)
    ]
    columns = {"score": "float64", "note": "string"}
    whole = index_table(rows, columns)
    shuffled = index_table(random.Random(1).sample(rows, len(rows)), columns)
    chunked = pa.concat_tables([whole.slice(0, 30), whole.slice(30)])
    assert table_to_bytes(whole) == table_to_bytes(shuffled) == table_to_bytes(chunked)


def test_an_empty_dataset_and_a_shard_of_rejects(new_toy: Callable) -> None:
    toy = new_toy("rejects")
    toy.items = {}
    toy.write()
    ds = toy.open()
    assert (len(ds), ds.keys(), len(ds.index), len(ds.shards)) == (0, [], 6, 2)
    assert verify_dataset(toy.folder) == []
    none = new_toy("none")
    none.plan = {}
    none.write()
    assert (len(none.open()), len(none.open().index)) == (0, 0)
    assert verify_dataset(none.folder) == []
