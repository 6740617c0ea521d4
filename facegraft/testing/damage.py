"""Flipped bits and truncated ends of a file, to test that a reader detects damage and names the file and the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np


def flip(data: bytes, position: int, bit: int = 0) -> bytes:
    """The bytes with one bit changed."""
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


def flips(data: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """(description, bytes) with a bit flipped in the first byte, the last, and random ones."""
    rng = np.random.default_rng(seed)
    for position in [0, len(data) - 1, *rng.integers(0, len(data), count).tolist()]:
        bit = int(rng.integers(8))
        yield f"bit {bit} of byte {position} flipped", flip(data, position, bit)


def cuts(data: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """(description, bytes) for an empty file, one byte less, one more, random lengths, and a tail of zeros, as after a power cut."""
    rng = np.random.default_rng(seed)
    yield "emptied", b""
    yield "last byte cut off", data[:-1]
    yield "one byte too long", data + b"\0"
    for size in rng.integers(1, len(data), count).tolist():
        yield f"cut to {size} bytes", data[:size]
        if any(data[size:]):
            yield f"zeros from byte {size}", data[:size] + bytes(len(data) - size)


@contextmanager
def damaged(path: Path, data: bytes) -> Iterator[None]:
    """Replace the file's bytes for the duration of the block."""
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)
