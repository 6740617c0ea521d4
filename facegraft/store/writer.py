"""Writing a dataset: shards with their commit records, in any order and from any process; then, once, index and dataset.json."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from facegraft.store.atomic import (
    TEMPORARY_MARK,
    arrays_to_bytes,
    file_size,
    final_name,
    read_bytes,
    remove_file_durably,
    remove_leftovers,
    sha256_bytes,
    sha256_file,
    unreadable,
    write_arrays_atomic,
    write_bytes_atomic,
    write_json_atomic,
)
from facegraft.store.document import seal, unseal
from facegraft.store.errors import DamagedError, StoreError
from facegraft.store.index import IndexWriter
from facegraft.store.remote import AnyPath, Location, RemotePath, each_in_turn, place
from facegraft.store.schema import (
    FORMAT_NAME,
    FORMAT_VERSION,
    DatasetSchema,
    check_fields,
    check_key,
    check_row,
    check_shard_name,
    commit_name,
)

DATASET_FILE = "dataset.json"
INDEX_FILE = "index.parquet"
SHARD_FOLDER = "shards"
REJECT_FOLDER = "rejects"
SHARED_FILE = "shared.safetensors"
REGION_MAP_FILE = "region_map.json"
RUN_FILE = "run.json"
MAX_REASON_LENGTH = 500
ATTACHMENTS = (REGION_MAP_FILE, SHARED_FILE)


@dataclass(frozen=True)
class ShardItem:
    """An item to write: its arrays and its index row (the stage's columns only; those left out are null)."""

    key: str
    fields: Mapping[str, np.ndarray]
    row: Mapping[str, object]


@dataclass(frozen=True)
class RejectedItem:
    """A planned item that was rejected; the index has the reason as one line of at most MAX_REASON_LENGTH characters."""

    key: str
    reason: str
    row: Mapping[str, object]


def write_shard(
    folder: AnyPath,
    shard: str,
    items: Iterable[ShardItem],
    rejected: Iterable[RejectedItem],
    schema: DatasetSchema,
    plan_sha256: str,
) -> dict[str, Any]:
    """Write `shards/<shard>` and then its commit record, each atomically; returns the record.

    The bytes depend only on the items, not on their order. A shard whose items were all rejected is written too, without
    tensors. Raises FieldError (with item and field) before anything is written, StoreError when the disk cannot be written.
    """
    check_shard_name(shard)
    items = sorted(items, key=lambda item: item.key)
    rejected = sorted(rejected, key=lambda item: item.key)
    planned = sorted([*(item.key for item in items), *(item.key for item in rejected)])
    for before, key in zip([None, *planned], planned, strict=False):
        if check_key(key) == before:
            raise StoreError(
                f"shard {shard}: item {key} comes twice; every planned item is either written or rejected, once"
            )
    rows, tensors = [], {}
    for item in items:
        check_fields(item.key, item.fields, schema)
        tensors.update({f"{item.key}/{name}": array for name, array in item.fields.items()})
        rows.append(
            {
                "key": item.key,
                "shard": shard,
                "status": "written",
                "reason": None,
                **check_row(item.key, item.row, schema.columns),
            }
        )
    for refusal in rejected:
        # One line and not a traceback: the index is a table.
        reason = " ".join(refusal.reason.split())[:MAX_REASON_LENGTH]
        if not reason:
            raise StoreError(f"item {refusal.key} is rejected without a reason")
        row = check_row(refusal.key, refusal.row, schema.columns)
        rows.append({"key": refusal.key, "shard": None, "status": "rejected", "reason": reason, **row})
    rows.sort(key=lambda row: row["key"])
    data = arrays_to_bytes(tensors)
    record = {
        "shard": shard,
        "planned": planned,
        "rows": rows,
        "bytes": len(data),
        "sha256": sha256_bytes(data),
        "plan": plan_sha256,
    }
    shards = place(folder) / SHARD_FOLDER
    write_bytes_atomic(shards / shard, data)
    write_bytes_atomic(shards / commit_name(shard), seal(record))
    return record


def read_commit(folder: AnyPath, shard: str, plan_sha256: str, *, check_bytes: bool = True) -> dict[str, Any] | None:
    """The commit record of a shard, or None where the shard has to be (re)made.

    It is valid when it is undamaged, belongs to this plan, and its shard has the recorded size and (check_bytes) sha256.
    """
    try:
        record = load_commit(folder, shard)
    except DamagedError:
        return None
    if record is None or record["plan"] != plan_sha256:
        return None
    path = place(folder) / SHARD_FOLDER / shard
    if path.is_symlink() or file_size(path) != record["bytes"]:
        return None
    if check_bytes and sha256_file(path) != record["sha256"]:
        return None
    return record


def load_commit(folder: AnyPath, shard: str) -> dict[str, Any] | None:
    """The commit record as it is on disk, or None where there is no record. Raises DamagedError when its bytes have changed."""
    path = place(folder) / SHARD_FOLDER / commit_name(shard)
    if path.is_symlink():
        raise DamagedError(f"{path} is a link; delete it and run the same command again to rebuild its shard")
    if not isinstance(path, RemotePath) and path.exists() and not path.is_file():  # a pipe may never end
        raise DamagedError(f"{path} is not a regular file; delete it and run the same command again to rebuild its shard")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from error
    record = unseal(data, str(path), "delete it and run the same command again to rebuild its shard")
    wanted = {"shard": str, "planned": list, "rows": list, "bytes": int, "sha256": str, "plan": str}
    sound = {name: type(value) for name, value in record.items()} == wanted and record["shard"] == shard
    if not sound or not all(map(_is_row, record["rows"])) or not all(isinstance(key, str) for key in record["planned"]):
        raise DamagedError(
            f"{path} is no commit record of {shard}; delete it and run the same command again to rebuild the shard"
        )
    return record


def _is_row(row: object) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("key"), str):
        return False
    own = row.get("shard", 0), row.get("reason", 0)
    if row.get("status") == "written":
        return isinstance(own[0], str) and own[1] is None
    return row.get("status") == "rejected" and own[0] is None and isinstance(own[1], str)


def write_shared(folder: AnyPath, arrays: Mapping[str, np.ndarray]) -> None:
    """shared.safetensors: read-only arrays that all items share ("faces" [F,3] int32 for heads and composites)."""
    write_arrays_atomic(place(folder) / SHARED_FILE, dict(arrays))


def write_region_map(folder: AnyPath, document: Mapping[str, Any]) -> None:
    """region_map.json: the region map that the dataset was made with."""
    write_json_atomic(place(folder) / REGION_MAP_FILE, document)


def finish_dataset(
    folder: AnyPath,
    schema: DatasetSchema,
    plan_items: Mapping[str, Sequence[str]],
    plan_sha256: str,
    *,
    attachments: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Write index.parquet and then dataset.json, whose presence means "complete"; returns dataset.json's document.

    plan_items: shard name -> keys planned for it. attachments: files of the folder to list with their checksums (default: those
    of shared.safetensors and region_map.json that are there). Raises StoreError, and writes nothing, unless every shard is
    committed under this plan with exactly its planned items: written + rejected == planned.
    """
    root = place(folder)
    shards: list[dict[str, Any]] = []
    planned = sum(map(len, plan_items.values()))
    counts = {"planned": planned, "written": 0, "rejected": 0}
    index = IndexWriter(schema.columns)
    for record in _planned_records(root, plan_items, plan_sha256):
        rows = record["rows"]
        written = sum(row["status"] == "written" for row in rows)
        counts["written"] += written
        counts["rejected"] += sum(row["status"] == "rejected" for row in rows)
        shards.append({"name": record["shard"], "bytes": record["bytes"], "sha256": record["sha256"], "items": written})
        index.add(rows)
    data, distinct = index.finish(), index.distinct
    if distinct != planned or counts["written"] + counts["rejected"] != planned:
        raise StoreError(
            f"{root} cannot be finished: {counts['written']} written + {counts['rejected']} rejected items, "
            f"{distinct} of them distinct, where {planned} were planned"
        )
    if attachments is None:
        attachments = [name for name in ATTACHMENTS if (root / name).is_file()]
    document = {
        "format": FORMAT_NAME,
        "version": FORMAT_VERSION,
        **schema.to_json(),
        "counts": counts,
        "shards": shards,
        "index": {"bytes": data.nbytes, "sha256": sha256_bytes(data)},
        "attachments": {name: _attachment(root / name) for name in sorted(attachments)},
        "must_understand": [],
    }
    write_bytes_atomic(root / INDEX_FILE, data)
    sweep_shards(root)
    write_bytes_atomic(root / DATASET_FILE, seal(document))
    return document


def _planned_records(root: Location, plan_items: Mapping[str, Sequence[str]], plan_sha256: str) -> Iterator[dict[str, Any]]:
    """The commit record of every shard in order. Raises StoreError unless it is there and holds the planned items."""
    shards = sorted(plan_items)
    found = each_in_turn(root, lambda shard: read_commit(root, shard, plan_sha256, check_bytes=False), shards)
    for shard, record in zip(shards, found, strict=True):
        if record is None:
            raise StoreError(
                f"{root} cannot be finished: shard {shard} is not committed; run the same command again to make it"
            )
        if record["planned"] != sorted(plan_items[shard]) or [row["key"] for row in record["rows"]] != record["planned"]:
            raise StoreError(
                f"{root} cannot be finished: shard {shard} holds other items than planned; delete it and its .json"
            )
        yield record


def sweep_shards(folder: AnyPath) -> None:
    """Remove the temporary files of dead writers among the shards; those of running writers stay."""
    root = place(folder)
    if isinstance(root, RemotePath):
        return  # object stores have no temporary names
    leftovers = (root / SHARD_FOLDER).glob(f"*{TEMPORARY_MARK}*")
    for final in {path.with_name(final_name(path.name)) for path in leftovers}:
        remove_leftovers(final)


def withdraw_dataset(folder: AnyPath) -> None:
    """Remove dataset.json, so that the dataset counts as incomplete while some of its shards are made again (`retry`)."""
    remove_file_durably(place(folder) / DATASET_FILE)


def _attachment(path: Location) -> dict[str, Any]:
    data = read_bytes(path)
    return {"bytes": len(data), "sha256": sha256_bytes(data)}
