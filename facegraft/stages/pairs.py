"""Who donates what to whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pairing:
    """One composite: the recipient, and the donor of each part."""

    recipient: str
    nose: str
    eyes: str
    mouth: str

    @property
    def key(self) -> str:
        """`recipient--donor`, or `recipient--nose-eyes-mouth` where the donors differ."""
        if self.nose == self.eyes == self.mouth:
            return f"{self.recipient}--{self.nose}"
        return f"{self.recipient}--{self.nose}-{self.eyes}-{self.mouth}"


def plan_pairings(subjects: Sequence[str], donors: int, independent: float, rng: np.random.Generator) -> list[Pairing]:
    """Pair every subject with itself and with `donors` others, so that every subject donates equally often.

    The subjects are put on a circle in random order and each takes from the neighbours at `donors` random distances
    (a circulant design): each then gives every part exactly `donors` times to others. For a share `independent` of the
    distances, nose, eyes and mouth are taken at three different distances, so that composites mix donors.
    Raises ValueError where there are too few subjects: `donors` must be below their number.
    """
    count = len(subjects)
    if not 0 <= donors < max(count, 1):
        raise ValueError(f"{donors} donors for each of {count} subjects: at most {count - 1} others can donate")
    circle = [subjects[i] for i in rng.permutation(count)]
    distances = 1 + rng.permutation(count - 1)[:donors] if count > 1 else np.empty(0, dtype=np.int64)
    mixed = round(independent * donors) if donors >= 2 else 0
    nose = distances.copy()
    eyes, mouth = distances.copy(), distances.copy()
    if mixed >= 2:
        # Rotating the mixed distances keeps every part's multiset of distances, hence the equal donation.
        eyes[:mixed], mouth[:mixed] = np.roll(nose[:mixed], 1), np.roll(nose[:mixed], 2 if mixed > 2 else 0)
    pairings = []
    for i, recipient in enumerate(circle):
        pairings.append(Pairing(recipient, recipient, recipient, recipient))
        for n, e, m in zip(nose, eyes, mouth, strict=True):
            pairings.append(Pairing(recipient, *(circle[(i + int(d)) % count] for d in (n, e, m))))
    return pairings
