"""Learning rates over time, relative to the highest; training and fitting use the same."""

from __future__ import annotations

import math


def cosine(share: float) -> float:
    """From 1 down to 0.01 along half a cosine, at a share 0..1 of the way (and 0.01 after it)."""
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def stepped(factor: float, every: float, first: float, at: float) -> float:
    """1 until `first`; from there on times `factor`, and once more after every further `every`. at: epoch, or iteration."""
    drops = 0 if at < first else int((at - first) // every) + 1
    return float(factor**drops)
