"""The index: one row per planned item, as a parquet table whose bytes depend only on the rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from facegraft.errors import printable
from facegraft.store.atomic import write_bytes_atomic
from facegraft.store.errors import StoreError
from facegraft.store.parquet_limits import read_flat_table
from facegraft.store.remote import AnyPath
from facegraft.store.schema import OWN_COLUMNS

_ARROW = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}


def index_schema(columns: Mapping[str, str]) -> pa.Schema:
    """key, shard, status, reason, then the stage's columns in their order."""
    return pa.schema([pa.field(name, _ARROW[kind]) for name, kind in {**OWN_COLUMNS, **columns}.items()])


def index_table(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> pa.Table:
    """Rows sorted by key as a table."""
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["key"]), schema=index_schema(columns))


def table_to_bytes(table: pa.Table) -> bytes:
    """The table as parquet; the same rows give the same bytes (with the same pyarrow), however the table is divided into chunks."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.combine_chunks(),
        sink,
        version="2.6",
        compression="zstd",
        compression_level=3,
        row_group_size=1 << 16,
        use_dictionary=True,
    )
    return bytes(sink.getvalue())


def table_from_bytes(data: bytes, what: str) -> pa.Table:
    """Read a table. Raises StoreError when the bytes are not a parquet table, or one that is far larger in memory."""
    try:
        return read_flat_table(data)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = printable((str(error).splitlines() or [type(error).__name__])[0], 200)
        raise StoreError(
            f"{what} is not a readable parquet table ({reason}); delete it and run the command that made it again to rebuild it"
        ) from error


def write_table_atomic(path: AnyPath, table: pa.Table) -> None:
    """A parquet file, atomically and deterministically."""
    write_bytes_atomic(path, table_to_bytes(table))
