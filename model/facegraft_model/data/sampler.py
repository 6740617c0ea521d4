"""The random choices of a training step: items, starts of their windows, stage points, and places on the template. The sampler has no state.

The items are an endless list of shuffled epochs; step t takes the positions t·items to (t+1)·items of it, across the borders of
epochs. Every draw is a pure function of (seed, epoch) or (seed, step), so a run that is resumed, also with another number of
processes, uses the same data. The numbers are raw output of PCG64, whose stream numpy guarantees across versions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

EPOCH_STREAM, STAGE_STREAM, TEMPLATE_STREAM = 0, 1, 2
SETS = 3
"""Sets of points that all samples have."""


@dataclass(frozen=True)
class Epoch:
    """order int64 [n]: the items of an epoch, shuffled; fractions float64 [n, sets] in [0, 1): where each item's windows start."""

    order: NDArray[np.int64]
    fractions: NDArray[np.float64]


@lru_cache(maxsize=4)
def draw_epoch(seed: int, epoch: int, count: int, sets: int = SETS) -> Epoch:
    """The draws of an epoch of `count` items: a pure function of its arguments."""
    raw = np.random.PCG64(np.random.SeedSequence((seed, EPOCH_STREAM, epoch))).random_raw(count * (1 + sets))
    order = np.argsort(raw[:count], kind="stable").astype(np.int64)
    fractions = _uniform(raw[count:].reshape(count, sets))
    for array in (order, fractions):
        array.setflags(write=False)
    return Epoch(order, fractions)


def _uniform(raw: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Numbers in [0, 1) by the upper 53 bits, as numpy's own Generator.random makes them."""
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True)
class Draw:
    """items int64 [b]; starts int64 [b, sets] of the windows into the surface, near, free and further sets; stage int64 [m]: stage points;
    template float64 [t, 3] in [0, 1): places on the template's surface (`Topology.at`)."""

    items: NDArray[np.int64]
    starts: NDArray[np.int64]
    stage: NDArray[np.int64]
    template: NDArray[np.float64]


@dataclass(frozen=True)
class Sampler:
    """The draws of a training run.

    sizes int64 [n, sets]: points in the sets of the n items; items: items per step, over all processes; stage: how many of the
    stage_points a step uses, the same for all its items; template: places on the template that it uses; rank, world: number of this
    process and number of processes.
    """

    sizes: NDArray[np.int64]
    items: int
    stage: int
    stage_points: int
    seed: int
    rank: int = 0
    world: int = 1
    template: int = 0

    def draw(self, step: int) -> Draw:
        """The draw of this process in a step: its contiguous share of the step's positions."""
        (count, sets), share = self.sizes.shape, self.items // self.world
        positions = step * self.items + self.rank * share + np.arange(share, dtype=np.int64)
        items = np.empty(share, dtype=np.int64)
        starts = np.empty((share, sets), dtype=np.int64)
        for epoch in range(int(positions[0]) // count, int(positions[-1]) // count + 1):
            drawn = draw_epoch(self.seed, epoch, count, sets)
            here = positions // count == epoch
            items[here] = drawn.order[positions[here] % count]
            starts[here] = (drawn.fractions[items[here]] * self.sizes[items[here]]).astype(np.int64)
        return Draw(items, starts, self._stage(step), self._template(step))

    def _template(self, step: int) -> NDArray[np.float64]:
        raw = np.random.PCG64(np.random.SeedSequence((self.seed, TEMPLATE_STREAM, step))).random_raw(3 * self.template)
        return _uniform(raw.reshape(self.template, 3))

    def _stage(self, step: int) -> NDArray[np.int64]:
        if self.stage == 0:
            return np.empty(0, dtype=np.int64)
        raw = np.random.PCG64(np.random.SeedSequence((self.seed, STAGE_STREAM, step))).random_raw(self.stage_points)
        return np.sort(np.argsort(raw, kind="stable")[: self.stage]).astype(np.int64)
