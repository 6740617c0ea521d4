"""Every random number derives from a seed and the name of its purpose, never from a worker, an order or the time.

A name is hashed with SHA-256, and the hash seeds numpy's PCG64 by way of SeedSequence. All three are specified bit by bit, so a stream
is the same on every platform, in every process and for any number of workers. `tests/test_seeds.py` pins numbers of every stream:
changing a stream changes all datasets and models that are made with it.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np


def digest(*name: int | str) -> bytes:
    """SHA-256 [32 bytes] of a name of several parts, spelled as a JSON list: ("ab", "c") and ("a", "bc") differ."""
    return hashlib.sha256(json.dumps(name).encode()).digest()


def words(hashed: bytes) -> list[int]:
    """A hash of 32 bytes as eight unsigned 32-bit words, little-endian."""
    return np.frombuffer(hashed, "<u4").tolist()


def stream(*name: int | str) -> np.random.Generator:
    """The generator of one name. It is PCG64 explicitly, because the generator of `default_rng` may change between numpy versions."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words(digest(*name)))))


def item_rng(seed: int, stage: str, key: str) -> np.random.Generator:
    """The generator of one item of a stage (the stage's class name)."""
    return stream(int(seed), stage, key)


def subject_rng(seed: int, family: str, number: int, what: str) -> np.random.Generator:
    """The generator of one subject of a family of heads; it does not depend on which other subjects and expressions are made."""
    return stream(int(seed), family, int(number), what)


def topology_rng(faces_sha256: str) -> np.random.Generator:
    """The generator of one topology, by the sha256 of its triangles: for choices that all datasets of it share."""
    hashed = hashlib.sha256(faces_sha256.encode()).digest()
    return np.random.default_rng(int.from_bytes(hashed[:8], "little"))


def score_rng(seed: int, *names: str) -> np.random.Generator:
    """The generator of one head and purpose of a score, so that a score does not depend on which other heads are scored."""
    hashed = hashlib.sha256("\0".join(names).encode()).digest()
    return np.random.default_rng([seed, *words(hashed)])


def derived_seed(seed: int, *purpose: int | str) -> int:
    """A seed of 63 bits for one purpose, for libraries that take a number (torch)."""
    text = "/".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
