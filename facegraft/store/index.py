"""The index: one row per planned item, as a parquet table whose bytes depend only on the rows."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from facegraft.errors import printable
from facegraft.store.atomic import write_bytes_atomic
from facegraft.store.errors import StoreError
from facegraft.store.parquet_limits import FlatFile, read_flat_table
from facegraft.store.remote import AnyPath
from facegraft.store.schema import OWN_COLUMNS

_ROW_GROUP = 1 << 16
_ROWS_AT_ONCE = 1 << 12
"""As Python objects a row takes kilobytes."""
_WRITTEN: dict[str, Any] = {"version": "2.6", "compression": "zstd", "compression_level": 3, "use_dictionary": True}
_MARKED = 64
"""Every so many keys one is a Python object, among which a search is ten times as fast."""
_ARROW = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}


def index_schema(columns: Mapping[str, str]) -> pa.Schema:
    """key, shard, status, reason, then the stage's columns in their order."""
    return pa.schema([pa.field(name, _ARROW[kind]) for name, kind in {**OWN_COLUMNS, **columns}.items()])


def index_table(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> pa.Table:
    """Rows sorted by key as a table."""
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["key"]), schema=index_schema(columns))


class IndexWriter:
    """The bytes of an index, written as its rows come, so that few of them are in memory; the same as `table_to_bytes` of all rows.

    Rows that come in the order of their keys are written a row group at a time; where a row comes too late, the table is sorted at the end.
    `distinct`: the number of different keys, when it is finished.
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._schema = index_schema(columns)
        self._rows: list[Mapping[str, Any]] = []
        self._tables: list[pa.Table] = []
        self._sink, self._last = pa.BufferOutputStream(), ""
        self._writer: pq.ParquetWriter | None = pq.ParquetWriter(self._sink, self._schema, **_WRITTEN)
        self._written, self._unsorted = 0, False
        self.distinct = 0

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Further rows."""
        for row in rows:
            self._unsorted |= row["key"] < self._last
            self.distinct += row["key"] != self._last
            self._last = row["key"]
            self._rows.append(row)
            if len(self._rows) == _ROWS_AT_ONCE:
                self._convert()

    def finish(self) -> memoryview:
        """The bytes of the index."""
        self._convert()
        if self._unsorted:
            table = pa.concat_tables([*self._read_back(), *self._tables])
            self.distinct = pc.count_distinct(table["key"]).as_py()
            return memoryview(_to_buffer(table.take(pc.sort_indices(table["key"]))))
        if self._tables or not self._written:
            self._write(pa.concat_tables(self._tables) if self._tables else self._schema.empty_table())
        assert self._writer is not None
        self._writer.close()
        return memoryview(self._sink.getvalue())

    def _convert(self) -> None:
        if not self._rows:
            return
        self._tables.append(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []
        if not self._unsorted and sum(table.num_rows for table in self._tables) == _ROW_GROUP:
            self._write(pa.concat_tables(self._tables))
            self._tables = []

    def _write(self, table: pa.Table) -> None:
        assert self._writer is not None
        self._writer.write_table(table.combine_chunks(), row_group_size=_ROW_GROUP)
        self._written += table.num_rows

    def _read_back(self) -> list[pa.Table]:
        """What was written before a row came too late."""
        assert self._writer is not None
        self._writer.close()
        if not self._written:
            return []
        return [pq.read_table(pa.BufferReader(self._sink.getvalue()), use_threads=False).cast(self._schema)]


def table_to_bytes(table: pa.Table) -> bytes:
    """The table as parquet; the same rows give the same bytes (with the same pyarrow), however the table is divided into chunks."""
    return bytes(_to_buffer(table))


def _to_buffer(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(table.combine_chunks(), sink, row_group_size=_ROW_GROUP, **_WRITTEN)
    return sink.getvalue()


class Places:
    """Where the items of an index are: of each key, in their order, the shard; a few dozen bytes an item.

    Rejected items have no shard.
    """

    def __init__(self, keys: pa.StringArray, shards: NDArray[np.int32], names: Sequence[str]) -> None:
        self._keys, self._shards, self._names = keys, shards, names
        _, offsets, text = keys.buffers()
        # Views of these types give plain Python objects, several times as fast as numpy's.
        self._offsets = memoryview(offsets).cast("i")[keys.offset :] if len(keys) else memoryview(b"")
        self._text = memoryview(b"" if text is None else text)
        self._marks = [self[number] for number in range(0, len(keys), _MARKED)]
        self.written = int(np.count_nonzero(shards >= 0))

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, number: int) -> bytes:
        """The key of a row, for `bisect`."""
        return bytes(self._text[self._offsets[number] : self._offsets[number + 1]])

    def row(self, key: object) -> int | None:
        """The number of a key's row; None for a key that is not there."""
        if not isinstance(key, str) or not key.isascii():
            return None
        wanted = key.encode()
        first = _MARKED * max(0, bisect_right(self._marks, wanted) - 1)
        number = bisect_left(self, wanted, first, min(first + _MARKED, len(self)))
        return number if number < len(self) and self[number] == wanted else None

    def shard(self, key: object) -> str | None:
        """The name of the shard that holds a written item; None for any other key."""
        number = self.row(key)
        return None if number is None or self._shards[number] < 0 else self._names[self._shards[number]]

    def keys(self, written: bool = True) -> list[str]:
        """The keys of written items, or of all, sorted."""
        found: list[str] = (self._keys.filter(pa.array(self._shards >= 0)) if written else self._keys).to_pylist()
        return found


def table_from_bytes(data: bytes, what: str) -> pa.Table:
    """Read a table. Raises StoreError when the bytes are not a parquet table, or one that is far larger in memory."""
    with _readable(what):
        return read_flat_table(data)


@contextmanager
def opened_table(source: bytes | Path, what: str) -> Iterator[FlatFile]:
    """The same, to be read a few thousand rows at a time."""
    with _readable(what), FlatFile(source) as file:
        yield file


@contextmanager
def _readable(what: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = printable((str(error).splitlines() or [type(error).__name__])[0], 200)
        raise StoreError(
            f"{what} is not a readable parquet table ({reason}); delete it and run the command that made it again to rebuild it"
        ) from error


def write_table_atomic(path: AnyPath, table: pa.Table) -> None:
    """A parquet file, atomically and deterministically."""
    write_bytes_atomic(path, table_to_bytes(table))
