"""The index of many items: written as its rows come, with the same bytes, and opened without holding it."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from facegraft.store import (
    DatasetSchema,
    ShardItem,
    StoreError,
    UnknownKeyError,
    finish_dataset,
    open_dataset,
    shard_name,
    write_shard,
)
from facegraft.store import index as index_module
from facegraft.store.index import IndexWriter, Places, index_table, opened_table, table_to_bytes
from facegraft.store.schema import FieldSpec

COLUMNS = {"subject": "string", "count": "int64", "score": "float64", "good": "bool"}


def rows_of(count: int) -> list[dict[str, object]]:
    rng = random.Random(3)
    return [
        {
            "key": f"k{i:07d}",
            "shard": None if i % 9 == 4 else shard_name(i // 64, 5000),
            "status": "rejected" if i % 9 == 4 else "written",
            "reason": "too few faces" if i % 9 == 4 else None,
            "subject": "é" * (i % 7),
            "count": None if i % 5 == 0 else i,
            "score": rng.random(),
            "good": i % 3 == 0,
        }
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [0, 1, 4096, 65535, 65536, 65537, 140_000])
def test_an_index_written_as_its_rows_come_has_the_same_bytes(count: int) -> None:
    rows = rows_of(count)
    writer = IndexWriter(COLUMNS)
    for first in range(0, count, 1000):
        writer.add(rows[first : first + 1000])
    assert bytes(writer.finish()) == table_to_bytes(index_table(rows, COLUMNS))
    assert writer.distinct == count


@pytest.mark.parametrize("late", [1, 5, 12, 39])
def test_rows_that_come_too_late_are_sorted(late: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_ROW_GROUP", 12)
    monkeypatch.setattr(index_module, "_ROWS_AT_ONCE", 4)
    rows = rows_of(40)
    moved = [*rows[:late], *rows[late + 1 :], rows[late]] if late < 39 else rows[::-1]
    writer = IndexWriter(COLUMNS)
    writer.add(moved)
    assert bytes(writer.finish()) == table_to_bytes(index_table(rows, COLUMNS))
    assert writer.distinct == 40
    twice = IndexWriter(COLUMNS)
    twice.add([*moved, rows[7]])
    twice.finish()
    assert twice.distinct == 40


def test_batches_are_the_table(tmp_path: Path) -> None:
    table = index_table(rows_of(70_000), COLUMNS)
    data = table_to_bytes(table)
    (tmp_path / "index.parquet").write_bytes(data)
    for source in (data, tmp_path / "index.parquet"):
        with opened_table(source, "it") as file:
            batches, some = list(file.batches(table.column_names)), list(file.batches(["key", "count"]))
        assert max(batch.num_rows for batch in batches) <= 4096
        assert pa.Table.from_batches(batches).equals(table)
        assert pa.Table.from_batches(some).equals(table.select(["key", "count"]))


def test_a_cut_file_is_refused_batch_by_batch(tmp_path: Path) -> None:
    data = table_to_bytes(index_table(rows_of(9000), COLUMNS))
    path = tmp_path / "index.parquet"
    for at in range(0, len(data), len(data) // 40):
        path.write_bytes(data[:at])
        with pytest.raises(StoreError, match="it is not a readable parquet table"), opened_table(path, "it") as file:
            file.check(file.schema.names)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 200])
def test_places_find_what_a_dictionary_finds(count: int) -> None:
    rng = random.Random(count)
    keys = sorted({f"{rng.choice('Aa_-9z')}{rng.randrange(500)}" for _ in range(count)})
    names = ["one", "two"]
    shards = [rng.choice([-1, 0, 1]) for _ in keys]
    places = Places(pa.array(keys, pa.string()), pa.array(shards, pa.int32()).to_numpy(), names)
    for asked in [*keys, "", "zzz", "A", "é", "a" * 300, 3, None]:
        assert places.row(asked) == (keys.index(asked) if asked in keys else None)
        assert places.shard(asked) == (names[shards[keys.index(asked)]] if asked in keys and shards[keys.index(asked)] >= 0 else None)
    assert places.keys() == [key for key, shard in zip(keys, shards, strict=True) if shard >= 0]
    assert places.keys(written=False) == keys and places.written == len(places.keys())


def test_shards_whose_keys_interleave(tmp_path: Path) -> None:
    """The engine cuts shards of sorted keys, but the format does not ask for it."""
    schema = DatasetSchema(
        kind="heads", topology={"name": "toy", "vertex_count": 4, "faces_sha256": None}, mm_per_unit=1.0, frame="none",
        fields={"note": FieldSpec("int64", ("n",), "", "", "a number")}, columns={},
    )  # fmt: skip
    plan = {shard_name(n, 2): [f"k{i}" for i in range(10) if i % 2 == n] for n in range(2)}
    for name, keys in plan.items():
        write_shard(tmp_path, name, [ShardItem(key, {"note": index_array(key)}, {}) for key in keys], [], schema, "p")
    finish_dataset(tmp_path, schema, plan, "p")
    dataset = open_dataset(tmp_path)
    assert dataset.keys() == [f"k{i}" for i in range(10)]
    assert all(dataset.read(key, "note").tolist() == [int(key[1:])] for key in dataset.keys())  # noqa: SIM118 (a dataset is no dict)
    with pytest.raises(UnknownKeyError, match="k55"):
        dataset.read("k55", "note")


def index_array(key: str) -> np.ndarray:
    return np.array([int(key[1:])])


MEASURED = """
import resource, sys
from pathlib import Path
from facegraft.store import DatasetSchema, finish_dataset, open_dataset, shard_name
from facegraft.store.atomic import arrays_to_bytes, sha256_bytes
from facegraft.store.document import seal
from facegraft.store.schema import commit_name, heads_fields

folder, count, step = Path(sys.argv[1]), 200_000, sys.argv[2]
shards = count // 1000
columns = {"subject": "string", **{f"x{i}": "float64" for i in range(20)}}
topology = {"name": "toy", "vertex_count": 4, "faces_sha256": None}
schema = DatasetSchema("heads", topology, 1.0, "none", heads_fields(), columns)
keys = {shard_name(n, shards): [f"s{n:04d}--s{i:04d}" for i in range(1000)] for n in range(shards)}
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
if step == "make":
    (folder / "shards").mkdir(parents=True)
    empty = arrays_to_bytes({})
    for name, planned in keys.items():
        rows = [
            {"key": key, "shard": name, "status": "written", "reason": None, "subject": key[:5], **{f"x{i}": 0.1 * i * n for i in range(20)}}
            for n, key in enumerate(planned)
        ]
        record = {"shard": name, "planned": planned, "rows": rows, "bytes": len(empty), "sha256": sha256_bytes(empty), "plan": "p"}
        (folder / "shards" / name).write_bytes(empty)
        (folder / "shards" / commit_name(name)).write_bytes(seal(record))
else:
    before = peak()
    if step == "finish":
        finish_dataset(folder, schema, keys, "p")
    else:
        assert len(open_dataset(folder)) == count
    print(peak() - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_items(tmp_path: Path) -> None:
    """Held as Python objects, 200,000 rows took 600 MB to finish and 250 MB to open."""

    def measured(step: str) -> str:
        command = [sys.executable, "-c", MEASURED, str(tmp_path / "many"), step]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    measured("make")
    assert float(measured("finish")) < 250
    assert float(measured("open")) < 90
