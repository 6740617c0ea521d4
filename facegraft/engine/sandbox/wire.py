"""Messages between a worker and its child: a JSON header and raw arrays, length-prefixed. No pickle.

A message is  b"FGW1" · header length (u32) · payload length (u64) · header (UTF-8 JSON) · payload,  little-endian. The header's "arrays"
list gives name, dtype and shape of each array; the payload is their bytes in C order, one after another.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

MAGIC = b"FGW1"
PREFIX = struct.Struct("<4sIQ")
MAX_HEADER = 1 << 28


class WireError(Exception):
    """The bytes are not a message: the other side's memory is corrupt, or other code writes to the pipe."""


def encode(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> list[bytes | memoryview]:
    """The message as buffers to be written one after another (arrays are not copied where they are contiguous)."""
    # np.require, not ascontiguousarray: the latter turns shape () into (1,). An array of length 0 has no buffer to view.
    plain = {name: np.require(array, requirements="C") for name, array in (arrays or {}).items()}
    listed = [{"name": name, "dtype": array.dtype.str, "shape": list(array.shape)} for name, array in plain.items()]
    text = json.dumps({**header, "arrays": listed}, allow_nan=True).encode()
    size = sum(array.nbytes for array in plain.values())
    body = [array.reshape(-1).data.cast("B") for array in plain.values() if array.size]
    return [PREFIX.pack(MAGIC, len(text), size), text, *body]


def read_prefix(data: bytes | bytearray, max_payload: int) -> tuple[int, int]:
    """(header length, payload length). Raises WireError for impossible sizes."""
    magic, header, payload = PREFIX.unpack(bytes(data[: PREFIX.size]))
    if magic != MAGIC or header > MAX_HEADER or payload > max_payload:
        raise WireError(f"not a message: {bytes(data[: PREFIX.size])!r}")
    return header, payload


def decode(header: bytes | bytearray, payload: bytes | bytearray) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(header, arrays). The arrays are views of the payload. Raises WireError."""
    try:
        document = json.loads(bytes(header))
        arrays, start = {}, 0
        for entry in document.pop("arrays"):
            dtype = np.dtype(entry["dtype"])
            if dtype.kind not in "biuf":
                raise WireError(f"array {entry['name']!r} has dtype {dtype}")
            count = int(np.prod(entry["shape"], dtype=np.int64))
            arrays[entry["name"]] = np.frombuffer(payload, dtype, count, start).reshape(entry["shape"])
            start += count * dtype.itemsize
    except (ValueError, KeyError, TypeError, SyntaxError) as error:  # numpy parses a dtype's text as Python
        raise WireError(f"not a message: {error}") from error
    if start != len(payload):
        raise WireError(f"the arrays take {start} bytes, the payload has {len(payload)}")
    return document, arrays
