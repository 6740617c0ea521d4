"""The shapes in a remote shard's header, read by two small requests instead of a download."""

from __future__ import annotations

import json
from typing import Any

from facegraft.store.errors import DamagedError
from facegraft.store.remote import RemotePath

# One request gets the whole header of most shards.
_FIRST = 1 << 18
# What safetensors itself accepts.
_LARGEST = 100_000_000


def read_shapes(path: RemotePath, size: int, remedy: str) -> dict[str, tuple[int, ...]]:
    """Shapes by tensor name from the header, which is not verified by a checksum. Raises DamagedError for an invalid header."""
    head = path.read_range(0, min(size, _FIRST))
    length = int.from_bytes(head[:8], "little")
    if len(head) < 8 or not 2 <= length <= min(size - 8, _LARGEST):
        raise DamagedError(f"{path} is damaged (no shard begins so); {remedy}")
    if len(head) < 8 + length:
        head += path.read_range(len(head), 8 + length)
    try:
        return {
            name: _shape(entry) for name, entry in json.loads(head[8 : 8 + length]).items() if name != "__metadata__"
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged (its header cannot be read); {remedy}") from error


def _shape(entry: dict[str, Any]) -> tuple[int, ...]:
    shape = tuple(entry["shape"])
    if not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError("a length is no whole number")
    return shape
