"""The dataset format: one folder layout for heads, composites, surfaces and samples (docs/format.md).

Needs only numpy, safetensors and pyarrow, so that a machine that trains needs no other dependencies of facegraft.
"""

from facegraft.store.atomic import (
    canonical_json,
    sha256_file,
    write_arrays_atomic,
    write_bytes_atomic,
    write_json_atomic,
)
from facegraft.store.cache import Cache, default_cache
from facegraft.store.errors import DamagedError, FieldError, IncompleteError, RemoteError, StoreError, UnknownKeyError
from facegraft.store.index import write_table_atomic
from facegraft.store.reader import Dataset, open_dataset
from facegraft.store.remote import AnyPath, Location, RemotePath, place
from facegraft.store.schema import (
    OPTIONAL_SETS,
    DatasetSchema,
    FieldSpec,
    check_key,
    composites_fields,
    fields_of,
    heads_fields,
    samples_fields,
    shard_name,
    surfaces_fields,
)
from facegraft.store.verify import verify_dataset
from facegraft.store.writer import (
    RejectedItem,
    ShardItem,
    finish_dataset,
    read_commit,
    sweep_shards,
    withdraw_dataset,
    write_region_map,
    write_shard,
    write_shared,
)

__all__ = [
    "OPTIONAL_SETS",
    "AnyPath",
    "Cache",
    "DamagedError",
    "Dataset",
    "DatasetSchema",
    "FieldError",
    "FieldSpec",
    "IncompleteError",
    "Location",
    "RejectedItem",
    "RemoteError",
    "RemotePath",
    "ShardItem",
    "StoreError",
    "UnknownKeyError",
    "canonical_json",
    "check_key",
    "composites_fields",
    "default_cache",
    "fields_of",
    "finish_dataset",
    "heads_fields",
    "open_dataset",
    "place",
    "read_commit",
    "samples_fields",
    "sha256_file",
    "shard_name",
    "surfaces_fields",
    "sweep_shards",
    "verify_dataset",
    "withdraw_dataset",
    "write_arrays_atomic",
    "write_bytes_atomic",
    "write_json_atomic",
    "write_region_map",
    "write_shard",
    "write_shared",
    "write_table_atomic",
]
