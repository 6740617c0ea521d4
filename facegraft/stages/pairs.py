"""The pairing of donors and recipients."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from facegraft.store.schema import MAX_KEY_LENGTH


@dataclass(frozen=True)
class Pairing:
    """One composite: the recipient, and the donor of each part in cascade order."""

    recipient: str
    donors: tuple[str, ...]

    @property
    def key(self) -> str:
        """`recipient--donor`, or `recipient--nose-eyes-mouth` where the donors differ.

        Where the names would be too long for a key, a hash replaces them.
        """
        names = self.donors[:1] if len(set(self.donors)) == 1 else self.donors
        key = f"{self.recipient}--{'-'.join(names)}"
        if len(key) <= MAX_KEY_LENGTH:
            return key
        return f"{self.recipient}--{hashlib.sha256('-'.join(names).encode()).hexdigest()[:16]}"


def plan_pairings(
    subjects: Sequence[str], parts: int, donors: int, independent: float, rng: np.random.Generator
) -> list[Pairing]:
    """Pair every subject with itself and with `donors` others, so that every subject donates equally often.

    The subjects are put on a circle in random order and each takes from the neighbours at `donors` random distances
    (a circulant design): each then gives every part exactly `donors` times to others. For a share `independent` of the
    distances, the `parts` parts are taken at different distances, so that composites mix donors.
    Raises ValueError where there are too few subjects: `donors` must be below their number.
    """
    count = len(subjects)
    if not 0 <= donors < max(count, 1):
        raise ValueError(f"{donors} donors for each of {count} subjects: at most {count - 1} others can donate")
    circle = [subjects[i] for i in rng.permutation(count)]
    distances = 1 + rng.permutation(count - 1)[:donors] if count > 1 else np.empty(0, dtype=np.int64)
    mixed = round(independent * donors) if donors >= 2 else 0
    # Rotating the mixed distances keeps every part's multiset of distances, so all subjects still donate equally often.
    rows = np.tile(distances, (parts, 1))
    if mixed >= 2:
        for part in range(parts):
            rows[part, :mixed] = np.roll(distances[:mixed], part % mixed)
    pairings = []
    for i, recipient in enumerate(circle):
        pairings.append(Pairing(recipient, (recipient,) * parts))
        pairings += [Pairing(recipient, tuple(circle[(i + int(d)) % count] for d in column)) for column in rows.T]
    return pairings
