"""Checks of a complete dataset: every file against its checksum, every array against the schema, some facts about the numbers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load

from facegraft.errors import printable
from facegraft.store.atomic import is_temporary, sha256_bytes, sha256_file, unwritable
from facegraft.store.cache import download
from facegraft.store.errors import StoreError
from facegraft.store.reader import (
    NOT_FOR_NUMPY,
    check_shard_file,
    damaged_shard,
    read_attachment,
    read_document,
    read_index,
    read_places,
    read_schema,
    remote_shard,
)
from facegraft.store.remote import AnyPath, Location, RemotePath, place
from facegraft.store.schema import DatasetSchema, FieldSpec, check_array, commit_name, fields_of
from facegraft.store.writer import SHARD_FOLDER, SHARED_FILE, load_commit

UNIT_TOLERANCE = 1e-3
BALL_TOLERANCE = 1e-6


def verify_dataset(path: AnyPath) -> list[str]:
    """Findings, one line each; an empty list means that nothing is wrong.

    Checked: dataset.json and index (checksum, version, counts), attachments, every shard (size, sha256) and its commit record
    against the index, every item's fields (names, dtypes, shapes, finite), stray files among the shards, and: normals are
    unit, points of the ball are in it, part labels are known, to_mm can be inverted, shared faces are those of the topology.
    """
    folder = place(path)
    try:
        _, document = read_document(folder)
        schema = read_schema(folder, document)
    except StoreError as error:
        return [str(error)]
    return list(_findings(folder, document, schema))


def _findings(folder: Location, document: dict[str, Any], schema: DatasetSchema) -> Iterator[str]:
    rows: dict[str, dict[str, Any]] | None = None
    try:
        read_places(folder, document, schema)
        rows = {row["key"]: row for row in read_index(folder, document, schema).to_pylist()}
    except StoreError as error:
        yield str(error)
    for name, recorded in document["attachments"].items():
        try:
            data = read_attachment(folder, name, recorded)
        except StoreError as error:
            yield str(error)
        else:
            if name == SHARED_FILE:
                yield from _shared(folder / name, data, schema)
    plans: set[str] = set()
    planned: list[str] = []
    for shard in document["shards"]:
        try:
            record = load_commit(folder, shard["name"])
        except StoreError as error:
            yield str(error)
        else:
            yield from _commit(folder, shard, record, rows)
            if record is not None:
                plans.add(record["plan"])
                planned += record["planned"]
        yield from _shard(folder, shard, schema, rows)
    if len(plans) > 1:
        yield f"{folder / SHARD_FOLDER}: the commit records belong to {len(plans)} different plans"
    if len(set(planned)) != len(planned):
        yield f"{folder / SHARD_FOLDER}: {len(planned) - len(set(planned))} items are planned in more than one shard"
    yield from _strays(folder, document)


def _commit(
    folder: Location, shard: dict[str, Any], record: dict[str, Any] | None, rows: dict[str, dict[str, Any]] | None
) -> Iterator[str]:
    path = folder / SHARD_FOLDER / commit_name(shard["name"])
    if record is None:
        yield f"{path} is missing; delete {shard['name']} too and run the same command again to rebuild both"
        return
    if (record["bytes"], record["sha256"]) != (shard["bytes"], shard["sha256"]):
        yield f"{path} records another shard (size or sha256) than dataset.json"
    if rows is None:
        return
    if record["planned"] != [row["key"] for row in record["rows"]]:
        yield f"{path}: its rows are not those of its planned items"
    for row in record["rows"]:
        if row != rows.get(row["key"]):
            yield f"{path}: the row of item {printable(row['key'])} differs from the index"
    missing = {key for key, row in rows.items() if row["shard"] == shard["name"]} - set(record["planned"])
    if missing:
        yield f"{path} lacks {len(missing)} items that the index puts there, for example {min(missing)}"


def _shard(
    folder: Location, shard: dict[str, Any], schema: DatasetSchema, rows: dict[str, dict[str, Any]] | None
) -> Iterator[str]:
    path = folder / SHARD_FOLDER / shard["name"]
    try:
        with _checked_copy(folder, shard) as copy, safe_open(copy, framework="np") as tensors:
            names = set(tensors.keys())
            keys = sorted({name.partition("/")[0] for name in names})
            if rows is not None:
                expected = {key for key, row in rows.items() if row["shard"] == shard["name"]}
                for key in sorted(expected ^ set(keys)):
                    yield f"{path}: item {printable(key)} is {'missing' if key in expected else 'not in the index'}"
            for key in keys:
                yield from _item(path, key, names, tensors, schema)
    except StoreError as error:
        yield str(error)
    except (SafetensorError, OSError) as error:
        yield str(damaged_shard(path, printable(error, 200)))


@contextmanager
def _checked_copy(folder: Location, shard: dict[str, Any]) -> Iterator[Path]:
    """The shard, with its sha256 checked. A remote shard is downloaded again: a copy in the cache does not show the state of the store."""
    if not isinstance(folder, RemotePath):
        check_shard_file(folder, shard)
        path = folder / SHARD_FOLDER / shard["name"]
        if sha256_file(path) != shard["sha256"]:
            raise damaged_shard(path, "sha256 differs from its commit record")
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="facegraft-") as temporary:
        copy = Path(temporary) / shard["name"]
        try:
            download(remote_shard(folder, shard), copy)
        except OSError as error:
            raise unwritable(copy, error) from error
        yield copy


def _item(path: Location, key: str, names: set[str], tensors: Any, schema: DatasetSchema) -> Iterator[str]:
    wanted = {f"{key}/{field}" for field in schema.fields}
    for name in sorted(wanted - names):
        yield f"{path}: {printable(name, 200)} is missing"
    for name in sorted({name for name in names if name.startswith(f"{key}/")} - wanted):
        yield f"{path}: {printable(name, 200)} is no field of the schema"
    usual = {} if schema.parts is None and schema.kind != "heads" else fields_of(schema.kind, schema.parts)
    vertex_count = schema.topology["vertex_count"]
    lengths = {} if vertex_count is None else {"V": (vertex_count, "the topology")}
    for field, spec in schema.fields.items():
        if f"{key}/{field}" not in names:
            continue
        try:
            array = tensors.get_tensor(f"{key}/{field}")
        except NOT_FOR_NUMPY as error:
            yield f"{path}: {printable(key)}/{field} cannot be read ({printable(error)})"
            continue
        try:
            check_array(f"{path}: {key}/{field}", array.dtype.name, array.shape, spec, lengths)
        except StoreError as error:
            yield str(error)
            continue
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            yield f"{path}: {key}/{field}: {np.count_nonzero(~np.isfinite(array))} of {array.size} values are NaN or infinite"
            continue
        known = usual.get(field)
        if known is not None and (known.dtype, _lengths(known)) == (spec.dtype, _lengths(spec)):
            yield from (f"{path}: {key}/{field}: {finding}" for finding in _meaning(field, array, schema))


def _lengths(spec: FieldSpec) -> list[int | None]:
    return [dim if isinstance(dim, int) else None for dim in spec.shape]


def _meaning(field: str, array: np.ndarray, schema: DatasetSchema) -> Iterator[str]:
    """Findings about the numbers of a well-known field, beyond dtype and shape."""
    kind, labels = schema.kind, len(schema.parts) + 1 if schema.parts is not None else 1
    if kind in ("surfaces", "samples") and field == "to_mm" and not abs(np.linalg.det(array)) > 0:
        yield "the matrix cannot be inverted"
    if kind in ("surfaces", "samples") and field.endswith("_parts") and array.size and array.max() >= labels:
        yield f"part label {array.max()} is not one of 0 to {labels - 1}"
    if kind == "samples" and field.endswith("_normals") and array.size:
        worst = float(np.abs(np.sqrt(np.einsum("ij,ij->i", array, array)) - 1).max())
        if worst > UNIT_TOLERANCE:
            yield f"normals are not unit: a length is off by {worst:.3g}"
    if kind == "samples" and field == "free_points" and array.size:
        radius = float(np.sqrt(np.einsum("ij,ij->i", array, array, dtype=np.float64).max()))
        if radius > 1 + BALL_TOLERANCE:
            yield f"a point lies outside the unit ball, at radius {radius:.6f}"


def _shared(path: Location, data: bytes, schema: DatasetSchema) -> Iterator[str]:
    try:
        arrays = load(data)
    except (SafetensorError, *NOT_FOR_NUMPY) as error:
        yield f"{path} is no safetensors file: {printable(error, 200)}"
        return
    faces, expected = arrays.get("faces"), schema.topology["faces_sha256"]
    if faces is None or expected is None:
        return
    if sha256_bytes(np.ascontiguousarray(faces, "<i4").tobytes()) != expected:
        yield f"{path}: faces are not those of topology {schema.topology['name']} (faces_sha256 differs)"


def _strays(folder: Location, document: dict[str, Any]) -> Iterator[str]:
    known = {shard["name"] for shard in document["shards"]}
    known |= {commit_name(name) for name in known}
    there = {path.name for path in (folder / SHARD_FOLDER).iterdir()} if (folder / SHARD_FOLDER).is_dir() else set()
    for name in sorted(there - known):
        if not is_temporary(name):
            yield f"{printable(folder / SHARD_FOLDER / name, 400)} belongs to no shard of this dataset; remove it"
