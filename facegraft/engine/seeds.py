"""Random generators that belong to an item, not to a worker or to an order.

The entropy of an item is the SHA-256 of (run seed, stage name, item key), given to numpy's SeedSequence as eight 32-bit words.
Both are specified bit by bit, so the stream is the same on every platform, in every process and for every number of workers.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np


def item_entropy(seed: int, stage: str, key: str) -> list[int]:
    """Eight unsigned 32-bit words from (seed, stage, key)."""
    # JSON keeps the three apart: ("ab", "c") and ("a", "bc") give different text.
    digest = hashlib.sha256(json.dumps([int(seed), stage, key]).encode()).digest()
    return [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 32, 4)]


def item_rng(seed: int, stage: str, key: str) -> np.random.Generator:
    """The generator of one item. PCG64 by name: what default_rng stands for may change between numpy versions."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(item_entropy(seed, stage, key))))
