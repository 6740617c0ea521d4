"""Reading a dataset: data is used only after its checksum was verified, and no file outside the folder is opened."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as _deserialise

from facegraft.errors import nearest, printable
from facegraft.parts import Parts
from facegraft.store.atomic import file_size, read_bytes, sha256_bytes, sha256_file
from facegraft.store.cache import Cache, RemoteFile, default_cache
from facegraft.store.document import unseal
from facegraft.store.errors import DamagedError, FieldError, IncompleteError, StoreError, UnknownKeyError
from facegraft.store.index import Places, index_schema, opened_table, table_from_bytes
from facegraft.store.remote import AnyPath, Location, RemotePath, each, place
from facegraft.store.schema import (
    FORMAT_NAME,
    FORMAT_VERSION,
    DatasetSchema,
    check_key,
    check_shard_name,
    commit_name,
)
from facegraft.store.shardheader import read_shapes
from facegraft.store.writer import DATASET_FILE, INDEX_FILE, REGION_MAP_FILE, RUN_FILE, SHARD_FOLDER, SHARED_FILE

OPEN_SHARDS = 16
"""Shards that stay open by default. An open one is a memory map without a descriptor, but what was read of it counts as memory of its
process until the system needs it, so workers with a limit keep few."""
MAX_DOCUMENT_BYTES = 1 << 28
# What safetensors' numpy side raises for a dtype that numpy lacks.
NOT_FOR_NUMPY = (AttributeError, KeyError, TypeError, ValueError)
REBUILD = "run the command that made this dataset again to rebuild it"
_ATTACHMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def open_dataset(path: AnyPath, verify: bool = True, cache: Cache | None = None, open_shards: int | None = None) -> Dataset:
    """Open a finished dataset for reading; `path` may be a URL.

    verify: check each shard's sha256 when it is first opened (dataset.json, the index and the attachments are always checked).
    cache: the folder for shards of a dataset in an object store (default: `default_cache()`); downloads are always checked.
    open_shards: how many shards stay open, for readers that come back to all of them (default: OPEN_SHARDS).
    Raises IncompleteError for an unfinished run, DamagedError for changed bytes, StoreError for anything else that is not a
    facegraft dataset.
    """
    return Dataset(path, verify=verify, cache=cache, open_shards=open_shards)


class Dataset:
    """A finished dataset; `ds[key]` is a dict of numpy arrays. Read-only, thread-safe, and pickled by its path."""

    def __init__(
        self, path: AnyPath, verify: bool = True, cache: Cache | None = None, open_shards: int | None = None
    ) -> None:
        self.path = place(path)
        self.open_shards = open_shards
        self.verify = verify
        self.cache = default_cache() if cache is None and isinstance(self.path, RemotePath) else cache
        self._open()

    # -- opening ------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        data, self.document = read_document(self.path)
        self.fingerprint = hashlib.sha256(data).hexdigest()
        self.schema = read_schema(self.path, self.document)
        self._files = {shard["name"]: shard for shard in self.document["shards"]}
        each(self.path, lambda shard: check_shard_file(self.path, shard), self._files.values())
        self._places = read_places(self.path, self.document, self.schema)
        self._index: pa.Table | None = None
        self._found = ("", "")
        self._handles: OrderedDict[str, Any] = OrderedDict()
        self._verified: set[str] = set()
        self._shapes: dict[str, dict[str, tuple[int, ...]]] = {}
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "path": self.path.absolute(),
            "verify": self.verify,
            "cache": self.cache,
            "open_shards": self.open_shards,
            "fingerprint": self.fingerprint,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self.verify, self.cache = state["path"], state["verify"], state["cache"]
        self.open_shards = state["open_shards"]
        self._open()
        if self.fingerprint != state["fingerprint"]:
            raise StoreError(f"{self.path} changed since it was opened elsewhere; open it again")

    def __repr__(self) -> str:
        return f"<facegraft dataset {self.path}: {self.kind}, {len(self)} items in {len(self._files)} shards>"

    # -- metadata -----------------------------------------------------------------------------------------------------

    @property
    def kind(self) -> str:
        """heads, composites, surfaces or samples."""
        return self.schema.kind

    @property
    def mm_per_unit(self) -> float:
        """Millimetres per unit of the dataset's unit coordinates."""
        return self.schema.mm_per_unit

    @property
    def parts(self) -> Parts:
        """The parts of its items. Raises StoreError for a dataset of heads, which has no parts yet."""
        return self.schema.require_parts()

    @property
    def index(self) -> pa.Table:
        """One row per planned item, including rejected ones, sorted by key. It is read when it is first asked for, and then kept."""
        with self._lock:
            if self._index is None:
                self._index = read_index(self.path, self.document, self.schema)
            return self._index

    @property
    def shards(self) -> list[Path]:
        """Paths of the shards, in order."""
        return [self.path / SHARD_FOLDER / name for name in sorted(self._files)]

    @cached_property
    def shared(self) -> dict[str, np.ndarray]:
        """The arrays that all items share, read-only; an empty dict for a dataset without them."""
        data = self._attachment(SHARED_FILE)
        try:
            arrays: dict[str, np.ndarray] = {} if data is None else _deserialise(data)
        except (SafetensorError, *NOT_FOR_NUMPY) as error:
            raise DamagedError(
                f"{self.path / SHARED_FILE} is no safetensors file ({printable(error)}); delete it and {REBUILD}"
            ) from error
        for array in arrays.values():
            array.setflags(write=False)
        return arrays

    @property
    def faces(self) -> np.ndarray:
        """The triangles [F,3] that all items share. Raises StoreError for kinds whose items have their own."""
        shared = self.shared
        if "faces" not in shared:
            hint = (
                "each item has its own: ds[key]['faces']"
                if "faces" in self.schema.fields
                else f"a dataset of {self.kind} has none"
            )
            raise StoreError(f"{self.path} has no faces that all items share; {hint}")
        return shared["faces"]

    @property
    def region_map(self) -> dict[str, Any] | None:
        """The region map that the dataset was made with, as parsed JSON; None where no map is attached."""
        data = self._attachment(REGION_MAP_FILE)
        try:
            document: dict[str, Any] | None = None if data is None else json.loads(data)
        except (ValueError, RecursionError) as error:
            raise DamagedError(
                f"{self.path / REGION_MAP_FILE} is not JSON ({printable(error)}); delete it and {REBUILD}"
            ) from error
        if document is not None and not isinstance(document, dict):
            raise DamagedError(f"{self.path / REGION_MAP_FILE} is no region map; delete it and {REBUILD}")
        return document

    def _attachment(self, name: str) -> bytes | None:
        return (
            None
            if name not in self.document["attachments"]
            else read_attachment(self.path, name, self.document["attachments"][name])
        )

    # -- items --------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._places.written

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, key: object) -> bool:
        return self._places.shard(key) is not None

    def keys(self) -> list[str]:
        """Keys of the written items, sorted."""
        return self._places.keys()

    def row(self, key: str) -> dict[str, Any]:
        """The index row of a planned item, written or rejected. Raises UnknownKeyError."""
        number = self._places.row(key)
        if number is None:
            raise UnknownKeyError(f"{self.path} has no item {key!r}{nearest(key, self._places.keys(written=False))}")
        row: dict[str, Any] = self.index.slice(number, 1).to_pylist()[0]
        return row

    def __getitem__(self, key: str) -> dict[str, np.ndarray]:
        """All fields of an item."""
        return {field: self.read(key, field) for field in self.schema.fields}

    def read(self, key: str, field: str) -> np.ndarray:
        """One field of an item."""
        with self._lock:
            return self._guarded(key, field, lambda shard, name: self._checked(key, field, shard.get_tensor(name)))

    def shape(self, key: str, field: str) -> tuple[int, ...]:
        """Shape of one field of an item, without reading it; of a remote shard that need not be verified, without fetching it."""
        with self._lock:
            if not self.verify and isinstance(self.path, RemotePath) and self._find(key) not in self._handles:
                return self._shape_in_header(key, field)
            return tuple(self._guarded(key, field, lambda shard, name: shard.get_slice(name).get_shape()))

    def window(self, key: str, field: str, start: int, stop: int) -> np.ndarray:
        """Rows start to stop of one field of an item, without reading the others. Raises StoreError when the field has fewer rows."""

        def rows(shard: Any, name: str) -> np.ndarray:
            tensor = shard.get_slice(name)
            shape = tensor.get_shape()
            if not shape or not 0 <= start <= stop <= shape[0]:
                raise StoreError(
                    f"item {key}, field {field} has shape {list(shape)}: there are no rows {start} to {stop}"
                )
            if start == stop:
                return np.empty((0, *shape[1:]), self.schema.fields[field].dtype)
            self._check_shape(key, field, tuple(shape))
            return self._checked_dtype(key, field, tensor[start:stop])

        with self._lock:
            result: np.ndarray = self._guarded(key, field, rows)
            return result

    def _shape_in_header(self, key: str, field: str) -> tuple[int, ...]:
        name = self._find(key)
        if name not in self._shapes:
            file = remote_shard(self.path, self._files[name])
            self._shapes[name] = read_shapes(file.path, file.bytes, file.remedy)
        if f"{key}/{field}" not in self._shapes[name]:
            raise damaged_shard(self.path / SHARD_FOLDER / name, f"{key}/{field} is missing")
        return self._shapes[name][f"{key}/{field}"]

    def _guarded(self, key: str, field: str, action: Any) -> Any:
        if field not in self.schema.fields:
            raise StoreError(f"{self.path} has no field {field!r}{nearest(field, self.schema.fields)}")
        name = self._find(key)
        try:
            return action(self._handle(name), f"{key}/{field}")
        except (SafetensorError, *NOT_FOR_NUMPY) as error:
            raise damaged_shard(self.path / SHARD_FOLDER / name, printable(error, 200)) from error

    def _checked(self, key: str, field: str, array: np.ndarray) -> np.ndarray:
        self._check_shape(key, field, array.shape)
        return self._checked_dtype(key, field, array)

    def _check_shape(self, key: str, field: str, shape: tuple[int, ...]) -> None:
        # Matching checksums show that nothing changed, but not who wrote the file.
        wanted = self._wanted_shapes[field]
        if len(shape) != len(wanted) or any(w != n and isinstance(w, int) for w, n in zip(wanted, shape, strict=True)):
            raise FieldError(
                f"{self.path}: item {key}, field {field} has shape {list(shape)} where {DATASET_FILE} says {wanted}; {REBUILD}"
            )

    @cached_property
    def _wanted_shapes(self) -> dict[str, list[int | str]]:
        """For each field the lengths of its axes, or names where items may differ."""
        vertex_count = self.schema.topology["vertex_count"]
        return {
            field: [vertex_count if dim == "V" and vertex_count is not None else dim for dim in spec.shape]
            for field, spec in self.schema.fields.items()
        }

    def _checked_dtype(self, key: str, field: str, array: np.ndarray) -> np.ndarray:
        wanted = self.schema.fields[field].dtype
        if array.dtype != self._wanted_dtypes[field]:
            raise FieldError(
                f"{self.path}: item {key}, field {field} is {array.dtype.name} where {DATASET_FILE} says {wanted}; {REBUILD}"
            )
        return np.asarray(array)

    @cached_property
    def _wanted_dtypes(self) -> dict[str, np.dtype]:
        # A comparison of types is ten times as fast as one of their names, and there is one for each window of a batch.
        return {field: np.dtype(spec.dtype) for field, spec in self.schema.fields.items()}

    def _find(self, key: str) -> str:
        if key == self._found[0]:  # several fields of an item follow each other
            return self._found[1]
        name = self._places.shard(key)
        if name is None:
            raise UnknownKeyError(f"{self.path}: item {key!r} was rejected: {self.row(key)['reason']}")
        self._found = key, name
        return name

    def _handle(self, name: str) -> Any:
        """The open shard; at most `open_shards` stay open, the least recently used is closed first."""
        if name in self._handles:
            self._handles.move_to_end(name)
            return self._handles[name]
        if isinstance(self.path, RemotePath):
            self._handles[name] = self._open_copy(name)
        else:
            path = self.check_shard(name) if self.verify else check_shard_file(self.path, self._files[name])
            try:
                # Entering the context opens it; leaving the context here would close it, so the handle is kept.
                self._handles[name] = safe_open(path, framework="np")
            except (SafetensorError, OSError) as error:
                raise damaged_shard(path, str(error)) from error
        while len(self._handles) > (OPEN_SHARDS if self.open_shards is None else self.open_shards):
            self._handles.popitem(last=False)
        return self._handles[name]

    def check_shard(self, name: str) -> Location:
        """Compare a shard's sha256 with its record, once; returns its path. Raises DamagedError."""
        path = check_shard_file(self.path, self._files[name])
        if name not in self._verified:
            if sha256_file(path) != self._files[name]["sha256"]:
                raise damaged_shard(path, "sha256 differs from its commit record")
            self._verified.add(name)
        return path

    def _open_copy(self, name: str) -> Any:
        """The open copy of a remote shard, checked each time it is opened: other processes use the cache too."""
        shard = self._files[name]
        assert self.cache is not None
        try:
            return self.cache.open(
                remote_shard(self.path, shard), lambda copy: safe_open(copy, framework="np"), check=self.verify
            )
        except SafetensorError as error:
            raise damaged_shard(self.path / SHARD_FOLDER / name, str(error)) from error


# -- the parts of reading, which verify_dataset uses one by one ---------------------------------------------------------


def read_document(folder: Location) -> tuple[bytes, dict[str, Any]]:
    """dataset.json's bytes and content, checked against its own checksum, version and grammar."""
    if isinstance(folder, Path) and not folder.is_dir():
        raise StoreError(f"there is no dataset at {folder}: no such folder")
    path = folder / DATASET_FILE
    if not path.is_file():
        if isinstance(folder, RemotePath):
            if (folder / RUN_FILE).is_file():
                raise IncompleteError(f"{folder} is not complete; run the same command again to finish it")
        elif (folder / RUN_FILE).is_file() or (folder / SHARD_FOLDER).is_dir():
            done = sum(1 for _ in (folder / SHARD_FOLDER).glob("*-of-*.json"))
            raise IncompleteError(
                f"{folder} is not complete ({done} shards committed so far); run the same command again to finish it"
            )
        raise StoreError(f"{folder} is no facegraft dataset: it has no {DATASET_FILE}")
    if not _inside(folder, path):
        raise StoreError(f"{path} is a link or leads out of the dataset's folder; only files inside it are read")
    if path.stat().st_size > MAX_DOCUMENT_BYTES:
        raise StoreError(
            f"{path} is larger than {MAX_DOCUMENT_BYTES >> 20} MiB, which no dataset of ours needs; {REBUILD}"
        )
    data = read_bytes(path)
    document = unseal(data, str(path), f"delete it and {REBUILD}")
    if document.get("format") != FORMAT_NAME:
        raise StoreError(f"{path} is no {FORMAT_NAME} (format {printable(repr(document.get('format')))})")
    version = str(document.get("version"))
    major, known = version.partition(".")[0], FORMAT_VERSION.partition(".")[0]
    if major != known:
        older = major.isdecimal() and len(major) < 6 and int(major) < int(known)
        remedy = "make it again: delete the folder and run the command that made it" if older else "install a newer one"
        raise StoreError(
            f"{path} has format version {printable(version)}, this facegraft reads {FORMAT_VERSION}: {remedy}"
        )
    if document.get("must_understand"):
        raise StoreError(
            f"{path} needs {printable(document['must_understand'])}, which this facegraft does not know: install a newer one"
        )
    for name, kind in {"counts": dict, "shards": list, "index": dict, "attachments": dict}.items():
        if not isinstance(document.get(name), kind):
            raise StoreError(f"{path} lacks {name!r}; {REBUILD}")
    files = [document["index"], *document["attachments"].values(), *document["shards"]]
    if not all(
        isinstance(file, dict) and type(file.get("bytes")) is int and type(file.get("sha256")) is str for file in files
    ):
        raise StoreError(f"{path} lists a file without its size and sha256; {REBUILD}")
    names = [check_shard_name(shard.get("name")) for shard in document["shards"]]
    if len(set(names)) != len(names) or not all(type(shard.get("items")) is int for shard in document["shards"]):
        raise StoreError(f"{path} lists a shard twice or without its number of items; {REBUILD}")
    for name in document["attachments"]:
        if not _ATTACHMENT.fullmatch(name):
            raise StoreError(
                f"{path} names an attachment outside the folder, or by no plain name: {printable(repr(name))}; {REBUILD}"
            )
    return data, document


def read_schema(folder: Location, document: Mapping[str, Any]) -> DatasetSchema:
    """The schema of a dataset.json. Raises StoreError, naming the file: something is missing or wrong, or its parts
    are not those, in the order, of the donors in its index."""
    path = folder / DATASET_FILE
    try:
        schema = DatasetSchema.from_json(document)
    except StoreError as error:
        raise StoreError(f"{path}: {error}; {REBUILD}") from error
    wanted = [] if schema.parts is None else list(schema.parts.donor_columns.values())
    found = [name for name in schema.columns if name in wanted]
    if found and found != wanted:
        raise StoreError(
            f"{path}: its parts ask for the index columns {', '.join(wanted)} in this order, but it has {', '.join(found)}; {REBUILD}"
        )
    return schema


def read_index(folder: Location, document: dict[str, Any], schema: DatasetSchema) -> pa.Table:
    """The index, its checksum compared, and its columns those of dataset.json."""
    path = folder / INDEX_FILE
    table = table_from_bytes(_whole(folder, path, document["index"]), str(path))
    _check_columns(path, table.schema, schema)
    return table


def read_places(folder: Location, document: dict[str, Any], schema: DatasetSchema) -> Places:
    """Where the items are, by an index whose checksum is compared, and whose keys, shards and counts are consistent with dataset.json.

    Of a local file no more than a few thousand rows are in memory at a time.
    """
    path = folder / INDEX_FILE
    source = _checked_file(folder, path, document["index"]) if isinstance(path, Path) else _whole(folder, path, document["index"])
    numbers = {shard["name"]: number for number, shard in enumerate(document["shards"])}
    items, last = np.zeros(len(numbers), np.int64), ""
    # Not Arrow's own arrays: small ones that stay would keep the memory in which the others were decoded.
    text, lengths = bytearray(), [np.zeros(1, np.int32)]
    shards: list[NDArray[np.int32]] = []
    for batch in _own_columns(path, source, schema):
        found = batch["key"].to_pylist()
        for key in found:
            if check_key(key) <= last:
                raise StoreError(f"{path}: keys are not sorted and unique; {REBUILD}")
            last = key
        here = np.full(len(found), -1, np.int32)
        for row, (shard, status) in enumerate(zip(batch["shard"].to_pylist(), batch["status"].to_pylist(), strict=True)):
            if status == "written" and shard in numbers:
                here[row] = numbers[shard]
            elif status != "rejected" or shard is not None:
                raise StoreError(
                    f"{path}: item {found[row]} has status {printable(repr(status))} and shard {printable(repr(shard))}, "
                    f"which {DATASET_FILE} does not list; {REBUILD}"
                )
        items += np.bincount(here[here >= 0], minlength=len(numbers))
        text += "".join(found).encode()
        lengths.append(np.fromiter(map(len, found), np.int32, len(found)))
        shards.append(here)
    pa.default_memory_pool().release_unused()  # what decoding took; the allocator would keep it
    if len(text) >= 1 << 31:
        raise StoreError(f"{path} has keys of {len(text) >> 30} GiB, more than can be opened at once; split the dataset")
    ends = np.cumsum(np.concatenate(lengths), dtype=np.int32)
    keys = pa.StringArray.from_buffers(len(ends) - 1, pa.py_buffer(ends), pa.py_buffer(text))
    places = Places(keys, np.concatenate(shards) if shards else np.empty(0, np.int32), list(numbers))
    counts = {"planned": len(places), "written": places.written, "rejected": len(places) - places.written}
    if counts != document["counts"] or items.tolist() != [shard["items"] for shard in document["shards"]]:
        raise StoreError(
            f"{path} has {counts} items where {DATASET_FILE} says {printable(document['counts'])}; {REBUILD}"
        )
    return places


def _own_columns(path: Location, source: bytes | Path, schema: DatasetSchema) -> Iterator[pa.RecordBatch]:
    """key, shard and status of an index, a few thousand rows at a time; the other columns are decoded once to check them."""
    own = ["key", "shard", "status"]
    with opened_table(source, str(path)) as file:
        expected = file.schema.equals(index_schema(schema.columns))
        file.check([name for name in file.schema.names if name not in own or not expected])
        _check_columns(path, file.schema, schema)
        yield from file.batches(own)


def _check_columns(path: Location, found: pa.Schema, schema: DatasetSchema) -> None:
    if not found.equals(index_schema(schema.columns)):
        raise StoreError(f"{path} has other columns than {DATASET_FILE} says; {REBUILD}")


def check_shard_file(folder: Location, shard: dict[str, Any]) -> Location:
    """The path of a shard that is a plain file inside the folder, of the recorded size. Raises StoreError."""
    path = folder / SHARD_FOLDER / check_shard_name(shard["name"])
    if not _inside(folder, path):
        raise StoreError(f"shard {path} is a link or leads out of the dataset's folder; only files inside it are read")
    size = file_size(path)
    if size is None:
        raise StoreError(f"shard {path} is missing; {REBUILD}")
    if size != shard["bytes"]:
        raise damaged_shard(path, f"{size} bytes where its commit record says {shard['bytes']}")
    return path


def remote_shard(folder: Location, shard: dict[str, Any]) -> RemoteFile:
    """A shard of a dataset in an object store, as a file for the cache."""
    path = folder / SHARD_FOLDER / check_shard_name(shard["name"])
    assert isinstance(path, RemotePath)
    return RemoteFile(path, shard["bytes"], shard["sha256"], rebuild_shard(shard["name"]))


def rebuild_shard(name: str) -> str:
    """What to do about a damaged shard, for a message."""
    return f"delete it and its {commit_name(name)} and run the same command again to rebuild it"


def damaged_shard(path: Location, how: str) -> DamagedError:
    """The error about a shard whose bytes are not those that were written."""
    return DamagedError(f"{path} is damaged ({how}); {rebuild_shard(path.name)}")


def read_attachment(folder: Location, name: str, recorded: dict[str, Any]) -> bytes:
    """The bytes of an attachment, its checksum compared."""
    return _whole(folder, folder / name, recorded)


def sound_fingerprint(folder: Location) -> str | None:
    """The fingerprint of a dataset whose files are all there: index and attachments by their checksums, shards by their sizes, nothing
    parsed but dataset.json. None for anything else: whoever opens it gets the reason."""
    try:
        data, document = read_document(folder)
        for name, recorded in {INDEX_FILE: document["index"], **document["attachments"]}.items():
            read_attachment(folder, name, recorded)
        each(folder, lambda shard: check_shard_file(folder, shard), document["shards"])
    except StoreError:
        return None
    return hashlib.sha256(data).hexdigest()


def _whole(folder: Location, path: Location, recorded: dict[str, Any]) -> bytes:
    _check_size(folder, path, recorded)
    data = read_bytes(path)
    if len(data) != recorded["bytes"] or sha256_bytes(data) != recorded["sha256"]:
        raise _differs(path, "sha256")
    return data


def _checked_file(folder: Location, path: Path, recorded: dict[str, Any]) -> Path:
    """The path, its checksum compared without holding its bytes."""
    _check_size(folder, path, recorded)
    if sha256_file(path) != recorded["sha256"]:
        raise _differs(path, "sha256")
    return path


def _check_size(folder: Location, path: Location, recorded: dict[str, Any]) -> None:
    if not _inside(folder, path):
        raise StoreError(f"{path} is a link or leads out of the dataset's folder; only files inside it are read")
    if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe or a device may never end
        raise StoreError(f"{path} is not a regular file; delete it and {REBUILD}")
    # A file of another size is not even read: it may be of any size.
    if path.is_file() and path.stat().st_size != recorded["bytes"]:
        raise _differs(path, "its size")


def _differs(path: Location, what: str) -> DamagedError:
    return DamagedError(f"{path} is damaged ({what} differs from {DATASET_FILE}); delete it and {REBUILD}")


def _inside(folder: Location, path: Location) -> bool:
    if isinstance(path, RemotePath) or isinstance(folder, RemotePath):
        return str(path).startswith(f"{folder}/")  # there are no links
    return not path.is_symlink() and path.resolve().is_relative_to(folder.resolve())
