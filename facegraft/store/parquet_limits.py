"""The size of a parquet file in memory, computed from its bytes before anything is decoded.

With run lengths, dictionaries and compression a small file can decode to terabytes. The footer of a file may be forged; the
decoder uses the page headers, which give the decoded size of each page, so these are read here.
Format: parquet-format, thrift compact protocol.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, overload

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_SIZES = {"thrift_string_size_limit": 1 << 24, "thrift_container_size_limit": 1 << 22}
_ROWS = 1 << 12
_BLOCK, _BUFFER = 1 << 12, 1 << 16
_FREE = 1 << 26
_TIMES = 256
_CELL = 8
_ROW_GROUPS, _COLUMNS, _COLUMN_METADATA = 4, 1, 3
_NUM_VALUES, _COMPRESSED_SIZE, _DATA_PAGE_OFFSET, _DICTIONARY_PAGE_OFFSET = 5, 7, 9, 11
_BOOL, _LONGEST_VARINT, _DEEPEST = (1, 2), 10, 8


class TooLarge(ValueError):
    """The file would become far larger in memory than any table of facegraft with this file size."""


class Bytes(Protocol):
    """The bytes of a file, in memory or still on the disk."""

    def __len__(self) -> int: ...

    @overload
    def __getitem__(self, at: int) -> int: ...

    @overload
    def __getitem__(self, at: slice) -> bytes: ...


class FileBytes:
    """The bytes of a file, read a block at a time as they are asked for: a context manager."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        self._size = os.fstat(self._descriptor).st_size
        self._start, self._block = 0, b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._descriptor)

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, at: int) -> int: ...

    @overload
    def __getitem__(self, at: slice) -> bytes: ...

    def __getitem__(self, at: int | slice) -> int | bytes:
        if isinstance(at, slice):
            start, stop, _ = at.indices(self._size)
            return os.pread(self._descriptor, max(0, stop - start), start)
        if not 0 <= at - self._start < len(self._block):
            self._start, self._block = at, os.pread(self._descriptor, _BLOCK, at)
            if not self._block:
                raise ValueError("a file that ends too early")
        return self._block[at - self._start]


def read_flat_table(data: bytes) -> pa.Table:
    """The table, of plain columns (text, integers, floats, booleans). Raises TooLarge, ValueError or an ArrowException."""
    file = pq.ParquetFile(pa.BufferReader(data), **_SIZES)
    budget = _check(file, data)
    schema = file.schema_arrow
    table = pq.read_table(pa.BufferReader(data), use_threads=False, read_dictionary=_texts(schema))
    _within(sum(_text_bytes(table.column(i)) for i in range(table.num_columns)), budget)
    table = table.cast(schema)
    table.validate(full=True)
    return table


class FlatFile:
    """The same table a few thousand rows and a few columns at a time, of a file with no more than these in memory: a context manager.

    Raises the same errors as `read_flat_table`, and OSError.
    """

    def __init__(self, source: bytes | Path) -> None:
        self._held = ExitStack()
        with ExitStack() as opened:
            data: Bytes = opened.enter_context(FileBytes(source)) if isinstance(source, Path) else source
            self._file = opened.enter_context(pa.OSFile(str(source)) if isinstance(source, Path) else pa.BufferReader(source))
            file = self._opened()
            self.schema: pa.Schema = file.schema_arrow
            self._budget, self._total = _check(file, data), 0
            self._held = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._held.__exit__(kind, error, trace)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows of these columns."""
        wanted = pa.schema([self.schema.field(name) for name in columns])
        file = self._opened(read_dictionary=_texts(wanted), buffer_size=_BUFFER)
        for batch in file.iter_batches(_ROWS, columns=wanted.names, use_threads=False):
            table = pa.Table.from_batches([batch])
            self._total += sum(_text_bytes(table.column(i)) for i in range(table.num_columns))
            _within(self._total, self._budget)
            table = table.cast(wanted)
            table.validate(full=True)
            yield from table.combine_chunks().to_batches()

    def check(self, columns: Sequence[str]) -> None:
        """Decode these columns, one after the other, and keep nothing."""
        for name in columns:
            for _ in self.batches([name]):
                pass

    def _opened(self, **options: Any) -> pq.ParquetFile:
        self._file.seek(0)
        return pq.ParquetFile(self._file, **options, **_SIZES)


def _check(file: pq.ParquetFile, data: Bytes) -> int:
    """The budget, in bytes, of a file whose pages keep within it. Raises TooLarge, ValueError."""
    budget = _FREE + _TIMES * len(data)
    schema, metadata = file.schema_arrow, file.metadata
    if not all(_is_plain(field.type) for field in schema):
        raise ValueError("it has columns that are neither text nor numbers")
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    rows = sum(group.num_rows for group in groups)
    if rows != metadata.num_rows or any(group.num_rows < 0 for group in groups):
        raise ValueError("its row groups do not hold the rows that it counts")
    _within(rows * len(schema) * _CELL, budget)
    total = 0
    for column in _column_chunks(data):
        for size in _page_sizes(data, column):
            total += size
            _within(total, budget)
    return budget


def _texts(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if pa.types.is_string(field.type)]


def _within(size: int, budget: int) -> None:
    if size > budget:
        raise TooLarge(f"it would take more than {budget >> 20} MiB in memory")


def _is_plain(kind: pa.DataType) -> bool:
    return kind in (pa.string(), pa.int64(), pa.float64(), pa.bool_())


def _text_bytes(column: pa.ChunkedArray) -> int:
    """Bytes of a decoded text column, in which every row has its own text."""
    total = 0
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            lengths = pc.take(pc.binary_length(chunk.dictionary), chunk.indices)
            total += pc.sum(pc.cast(lengths, pa.int64())).as_py() or 0
    return total


def _column_chunks(data: Bytes) -> list[dict[int, int]]:
    """The integer fields of every ColumnMetaData in the footer, by number (parquet.thrift). Raises ValueError for another footer.

    pyarrow's own `RowGroupMetaData.column` ends the process where a column's statistics contradict its schema.
    """
    stop = len(data) - 8
    start = stop - int.from_bytes(data[stop : stop + 4], "little")
    if start < 0:
        raise ValueError("a footer that is longer than the file")
    footer = _Thrift(data, start, stop)
    return [
        footer.integers()
        for _ in footer.structs_of(_ROW_GROUPS)
        for _ in footer.structs_of(_COLUMNS)
        for _ in footer.struct_at(_COLUMN_METADATA)
    ]


def _page_sizes(data: Bytes, column: dict[int, int]) -> Iterator[int]:
    """Uncompressed size of every page of a column chunk. Raises ValueError where there is no page header."""
    if column.get(_NUM_VALUES) == 0:  # the decoder then reads no page, and an empty table's offsets are not valid
        return
    at = column.get(_DATA_PAGE_OFFSET, -1)
    at = min(at, column.get(_DICTIONARY_PAGE_OFFSET, at))
    stop = at + column.get(_COMPRESSED_SIZE, -1)
    if not 0 <= at <= stop <= len(data):
        raise ValueError("a column lies outside the file")
    while at < stop:
        header = _Thrift(data, at, stop)
        sizes = header.integers()
        uncompressed, compressed = sizes.get(2, -1), sizes.get(3, -1)
        if min(uncompressed, compressed) < 0:
            raise ValueError("a page without its size")
        yield uncompressed
        at = header.at + compressed


class _Thrift:
    """A reader of one struct in thrift's compact protocol."""

    def __init__(self, data: Bytes, at: int, stop: int) -> None:
        self.data, self.at, self.stop = data, at, stop

    def integers(self) -> dict[int, int]:
        """The struct's own integer fields, by number; all other fields are skipped."""
        found: dict[int, int] = {}
        for field, kind in self._fields():
            if kind in (4, 5, 6):
                found[field] = self._zigzag()
            else:
                self._skip(kind, 0)
        return found

    def structs_of(self, wanted: int) -> Iterator[None]:
        """Go through the struct: stop at the start of each struct in the list that is its field `wanted`, and skip all other fields.

        Whoever iterates reads that struct, to its end.
        """
        for field, kind in self._fields():
            if field != wanted or kind != 9:
                self._skip(kind, 0)
                continue
            head = self._byte()
            if head & 15 != 12:
                raise ValueError("a footer with another list than one of structs")
            for _ in range(self._varint() if head >> 4 == 15 else head >> 4):
                yield

    def struct_at(self, wanted: int) -> Iterator[None]:
        """As `structs_of`, of a field that is a struct itself."""
        for field, kind in self._fields():
            if field == wanted and kind == 12:
                yield
            else:
                self._skip(kind, 0)

    def _fields(self) -> Iterator[tuple[int, int]]:
        field = 0
        while (head := self._byte()) != 0:
            field = field + (head >> 4) if head >> 4 else self._zigzag()
            yield field, head & 15

    def _skip(self, kind: int, depth: int) -> None:
        if depth > _DEEPEST:
            raise ValueError("a page header that is nested too deeply")
        if kind in _BOOL:
            return
        if kind == 3:
            self._byte()
        elif kind in (4, 5, 6):
            self._varint()
        elif kind == 7:
            self._advance(8)
        elif kind == 8:
            self._advance(self._varint())
        elif kind in (9, 10):
            head = self._byte()
            count = self._varint() if head >> 4 == 15 else head >> 4
            for _ in range(count):
                # In a list even a boolean takes a byte, so that no count costs more than the file is long.
                self._skip(3 if head & 15 in _BOOL else head & 15, depth + 1)
        elif kind == 12:
            for _, inner in self._fields():
                self._skip(inner, depth + 1)
        else:
            raise ValueError("a page header with a field of unknown kind")

    def _byte(self) -> int:
        self._advance(1)
        return self.data[self.at - 1]

    def _advance(self, count: int) -> None:
        self.at += count
        if self.at > self.stop:
            raise ValueError("a page header that is cut off")

    def _varint(self) -> int:
        value = 0
        for shift in range(_LONGEST_VARINT):
            byte = self._byte()
            value |= (byte & 127) << (7 * shift)
            if byte < 128:
                return value
        raise ValueError("a number that does not end")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
