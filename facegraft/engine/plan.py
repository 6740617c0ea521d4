"""The plan: the items to make, and their shards.

Shards are cut from the sorted keys by the shard size, so that the same plan always gives the same shards. On disk the plan is
`plan.parquet`, with one row group per shard, so that a task reads only its own rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from facegraft.engine.errors import EngineError
from facegraft.engine.evidence import Evidence
from facegraft.engine.stage import PlannedItem
from facegraft.errors import printable
from facegraft.store import DatasetSchema, FieldError, StoreError, check_key, shard_name, write_bytes_atomic
from facegraft.store.atomic import read_bytes, sha256_bytes, sha256_file
from facegraft.store.cache import RemoteFile, default_cache
from facegraft.store.parquet_limits import read_flat_table
from facegraft.store.remote import Location, RemotePath
from facegraft.store.schema import check_row

PLAN_FILE = "plan.parquet"
_ARROW = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}


@dataclass(frozen=True)
class StagePlan:
    """A stage's plan for the engine. `items` are in any order; `shard_items` is the number of items per shard;
    `input_fingerprint` identifies the content of the inputs in plain JSON (checksums, not paths). `evidence`: all that the plan was made
    from; None where only planning tells whether the plan would be the same."""

    schema: DatasetSchema
    items: list[PlannedItem]
    shared: dict[str, np.ndarray]
    region_map: dict[str, Any] | None
    shard_items: int
    input_fingerprint: dict[str, Any]
    evidence: Evidence | None = None


@dataclass(frozen=True)
class ShardedPlan:
    """The items in the order of their keys, `shard_items` to a shard; `columns`: the index columns known at plan time."""

    items: tuple[PlannedItem, ...]
    shard_items: int
    columns: dict[str, str]

    @property
    def shard_count(self) -> int:
        return -(-len(self.items) // self.shard_items)

    def shard_name(self, shard: int) -> str:
        return shard_name(shard, self.shard_count)

    def shard(self, shard: int) -> tuple[PlannedItem, ...]:
        """The items of one shard."""
        return self.items[shard * self.shard_items : (shard + 1) * self.shard_items]

    def keys_by_shard(self) -> dict[str, list[str]]:
        """Shard name -> planned keys."""
        return {self.shard_name(i): [item.key for item in self.shard(i)] for i in range(self.shard_count)}

    def sha256(self) -> str:
        """Checksum of the plan's content (not of the parquet bytes, which change with pyarrow)."""
        digest = hashlib.sha256(_line({"shard_items": self.shard_items, "columns": list(self.columns.items())}))
        for item in self.items:
            digest.update(_line([item.key, item.row, item.spec]))
        return digest.hexdigest()


def shard_plan(plan: StagePlan) -> ShardedPlan:
    """Sort and check a plan. Raises EngineError for an empty plan, a repeated key, and a row or spec that cannot be stored."""
    if plan.shard_items < 1:
        raise EngineError(f"a shard must have at least 1 item, not {plan.shard_items}")
    if not plan.items:
        raise EngineError(
            "nothing to do: the plan has no items; check the inputs and the parameters that select from them"
        )
    if {"spec"} & set(plan.schema.columns):
        raise EngineError("an index column must not be called 'spec': plan.parquet has a column of that name")
    known = {name for item in plan.items for name in item.row}
    columns = {name: kind for name, kind in plan.schema.columns.items() if name in known}
    items: list[PlannedItem] = []
    for item in sorted(plan.items, key=lambda item: item.key):
        if items and items[-1].key == item.key:
            raise EngineError(f"item {item.key} is planned twice; keys must be unique")
        try:
            check_key(item.key)
            row = check_row(item.key, item.row, plan.schema.columns)
        except (StoreError, FieldError) as error:
            raise EngineError(f"the plan is not usable: {error}") from error
        items.append(PlannedItem(item.key, {name: row[name] for name in columns}, _as_json(item)))
    return ShardedPlan(tuple(items), plan.shard_items, columns)


def write_plan(folder: Location, plan: ShardedPlan) -> str:
    """plan.parquet, atomically: key, shard, the planned columns, spec (JSON text); a row group per shard. Returns the file's sha256."""
    types = [pa.field("key", pa.string()), pa.field("shard", pa.int64())]
    types += [pa.field(name, _ARROW[kind]) for name, kind in plan.columns.items()]
    schema = pa.schema([*types, pa.field("spec", pa.string())], metadata={"shard_items": str(plan.shard_items)})
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for number in range(plan.shard_count):
            items = plan.shard(number)
            rows = [{"key": i.key, "shard": number, **i.row, "spec": _line(i.spec).decode()} for i in items]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema), row_group_size=len(items))
    data = memoryview(sink.getvalue())
    write_bytes_atomic(folder / PLAN_FILE, data)
    return sha256_bytes(data)


def read_plan(folder: Location, columns: Mapping[str, str]) -> ShardedPlan:
    """The plan as it is in the folder, not yet compared with run.json (see sha256()). `columns`: the schema's index columns. Raises
    EngineError where it is damaged."""
    path = _present(folder)
    try:
        table = read_flat_table(read_bytes(path))
        shard_items = int(table.schema.metadata[b"shard_items"])
        if shard_items < 1:
            raise ValueError("a shard without items")
        rows = table.to_pylist()
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise _damaged(folder, error) from error
    kept = {name: kind for name, kind in columns.items() if name in table.schema.names}
    items = tuple(_item(row, folder) for row in rows)
    if any(item.key <= before.key for before, item in pairwise(items)):
        raise _damaged(folder, ValueError("keys are not sorted and unique"))
    return ShardedPlan(items, shard_items, kept)


def read_shard_items(folder: Location, shard: int, sha256: str) -> list[PlannedItem]:
    """The planned items of one shard. Raises EngineError where the file is missing or its checksum differs from the given one."""
    path = _present(folder)
    if isinstance(path, RemotePath):
        file = RemoteFile(path, path.stat().st_size, sha256, "run the command again: it is written anew")
        rows = default_cache().open(file, lambda copy: _row_group(copy, shard))
    else:
        stat = path.stat()
        _check_file(path, sha256, (stat.st_ino, stat.st_size, stat.st_mtime_ns))
        rows = _row_group(path, shard)
    return [_item(row, folder) for row in rows]


def _row_group(path: Path, shard: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.ParquetFile(path).read_row_group(shard, use_threads=False).to_pylist()
    return rows


@lru_cache(maxsize=8)
def _check_file(path: Path, sha256: str, _signature: tuple[int, int, int]) -> None:
    # Before parsing (damaged parquet can crash the parser), and once per process rather than once per shard.
    if sha256_file(path) != sha256:
        raise _damaged(path.parent, ValueError("its checksum is not that of the plan that was written"))


def _present(folder: Location) -> Location:
    path = folder / PLAN_FILE
    if path.is_symlink():
        raise EngineError(f"{path} is a link; remove it and run the command that made this dataset again")
    if not path.is_file():
        raise EngineError(f"{path} is missing; run the command that made this dataset again")
    return path


def _damaged(folder: Location, error: Exception) -> EngineError:
    what = printable((str(error).splitlines() or [type(error).__name__])[0], 200)
    return EngineError(
        f"{folder / PLAN_FILE} is damaged ({what}); run the command that made this dataset again: it is written anew"
    )


def _item(row: dict[str, Any], folder: Location) -> PlannedItem:
    try:
        key, spec = check_key(row.pop("key")), json.loads(row.pop("spec"))
        row.pop("shard")
        if not isinstance(spec, dict):
            raise ValueError(f"the spec of item {key} is no object")
    except (KeyError, TypeError, ValueError, RecursionError, StoreError) as error:
        raise _damaged(folder, error) from error
    return PlannedItem(key, row, spec)


def _as_json(item: PlannedItem) -> dict[str, Any]:
    try:
        spec = json.loads(_line(item.spec))
    except (TypeError, ValueError) as error:
        raise EngineError(f"the plan is not usable: spec of item {item.key}: {error}") from error
    if not isinstance(spec, dict):
        raise EngineError(f"the plan is not usable: spec of item {item.key} must be a dict")
    return spec


def _line(value: object) -> bytes:
    return (
        json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n"
    ).encode()
