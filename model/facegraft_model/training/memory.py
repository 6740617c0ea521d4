"""How much memory a step needs, known before it is compiled; and into how many parts a batch has to be split to fit."""

from __future__ import annotations

from typing import NamedTuple

import torch

from facegraft_model.cascade import Cascade
from facegraft_model.data.batches import BatchSource
from facegraft_model.livebytes import META, on_meta, peak_bytes
from facegraft_model.method import Field
from facegraft_model.outofmemory import COMPILED_BYTES, EAGER_BYTES
from facegraft_model.training.step import TrainingStep

COMPILED_SHARE = COMPILED_BYTES / EAGER_BYTES
"""Memory of a compiled step of a cascade as a share of the eager one; for other methods it has not been measured, and counts as 1."""
COPIES = 5
"""Weights, their gradients, these once more in the buckets that processes exchange, and Adam's two moments."""
MARGIN = 1.1
"""Beyond what tensors take: rounding and gaps of the allocator, workspaces of the products."""


class Need(NamedTuple):
    """Bytes of a training step: `whole` in any case, and `item` for each item of a part of the batch."""

    whole: float
    item: float

    def bytes(self, items: float) -> float:
        """Of a step whose parts have so many items, with a margin."""
        return MARGIN * (self.whole + self.item * items)


def step_need(field: Field, source: BatchSource, compiled: bool) -> Need:
    """The need of a field's step with batches of a source.

    The step is run on torch's meta device, for one item and for two; a method that reads values there is taken to need as much a point
    as preset paper (`outofmemory.EAGER_BYTES`).
    """
    weights = COPIES * sum(p.numel() * p.element_size() for p in field.parameters())
    share = COMPILED_SHARE if compiled and isinstance(field, Cascade) else 1.0
    module = TrainingStep(on_meta(field).train())

    def peak(items: int) -> int:
        batch = source.blank(items)
        return peak_bytes(lambda: module(batch, torch.zeros((), device=META))[0].backward())

    try:
        one, two = peak(1), peak(2)
    except (NotImplementedError, RuntimeError):
        return Need(weights, share * EAGER_BYTES * source.points)
    return Need(weights + share * max(2 * one - two, 0), share * max(two - one, 0))


def parts_that_fit(need: Need, items: int, least: int, room: float) -> int | None:
    """The smallest number of equal parts, `least` or more, into which a process splits its items so that a step fits into `room` bytes.

    None where even single items do not fit.
    """
    return next((n for n in range(least, items + 1) if items % n == 0 and need.bytes(items / n) <= room), None)
