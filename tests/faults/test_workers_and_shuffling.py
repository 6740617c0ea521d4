"""However many workers, in whatever order: the same bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fault_rows as rows
import numpy as np
import pytest
from fault_checks import ShuffledClient, check_complete, check_order_does_not_count
from run_toys import plan, toys

from facegraft.engine import EngineError
from facegraft.engine.cluster.client import Outcome


@pytest.mark.row(rows.WORKERS)
@pytest.mark.parametrize(
    "workers",
    [
        pytest.param(1, marks=pytest.mark.faults),
        pytest.param(2, marks=pytest.mark.slow),
        pytest.param(8, marks=pytest.mark.faults),
    ],
)
def test_workers(tmp_path: Path, undisturbed: dict[str, str], workers: int) -> None:
    toys(tmp_path / "out", workers=workers)
    check_complete(tmp_path / "out", undisturbed)


@pytest.mark.row(rows.SHUFFLED)
@pytest.mark.parametrize("seed", range(3))
def test_order_of_shards(tmp_path: Path, quick: dict[str, str], seed: int) -> None:
    check_order_does_not_count(lambda output, client: toys(output, client, of=plan(seconds=0.0)), tmp_path, seed, quick)


@pytest.mark.row(rows.SHUFFLED)
@pytest.mark.parametrize("seed", range(3))
def test_order_of_items(tmp_path: Path, quick: dict[str, str], seed: int) -> None:
    whole = plan(seconds=0.0)
    order = np.random.default_rng(seed).permutation(len(whole.items))
    toys(tmp_path / "out", of=replace(whole, items=[whole.items[number] for number in order]), scheduler="sync")
    check_complete(tmp_path / "out", quick)


class Leaving(ShuffledClient):
    """Goes away after a few shards."""

    def __init__(self, seed: int, shards: int) -> None:
        super().__init__(seed)
        self._left = shards

    def next_outcome(self, timeout_s: float) -> Outcome | None:
        if self._left == 0:
            raise EngineError("gone")
        self._left -= 1
        return super().next_outcome(timeout_s)


@pytest.mark.row(rows.SHUFFLED)
@pytest.mark.parametrize("seed", range(3))
def test_in_several_runs(tmp_path: Path, quick: dict[str, str], seed: int) -> None:
    of = plan(seconds=0.0)
    for number in range(4):
        with pytest.raises(EngineError, match="gone"):
            toys(tmp_path / "out", Leaving(seed + number, 5 + number), of=of)
    toys(tmp_path / "out", ShuffledClient(seed), of=of)
    check_complete(tmp_path / "out", quick)
