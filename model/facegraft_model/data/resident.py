"""The whole dataset in the memory of the device, uploaded once; batches are gathered there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from facegraft.store import Dataset
from facegraft_model.data.items import POINT_SETS, WHOLE_FIELDS
from facegraft_model.data.sampler import Draw
from facegraft_model.devices import to_device

Report = Callable[[int, int], None]
"""Called with the number of items that were read, and of all."""
Check = Callable[[str, str, NDArray[np.generic]], None]


class ResidentSets:
    """Point sets and whole fields of the items, on one device.

    Each field of a set is one tensor [rows of all items, …]; item i's rows start at offsets[i]. The tensors are filled item by item,
    so that only one further item is in memory at a time. report: told of each.
    """

    def __init__(
        self,
        store: Dataset,
        keys: Sequence[str],
        sizes: NDArray[np.int64],
        windows: Mapping[str, int],
        device: torch.device,
        check: Check,
        report: Report | None = None,
    ) -> None:
        self.windows = windows
        self.device = device
        self.sizes = torch.from_numpy(sizes.copy()).to(device)
        offsets = np.cumsum(sizes, axis=0) - sizes
        self.offsets = torch.from_numpy(offsets).to(device)
        self.flat: dict[str, torch.Tensor] = {}
        self.whole: dict[str, torch.Tensor] = {}
        totals = sizes.sum(axis=0)
        for column, name in enumerate(windows):
            for field in POINT_SETS[name]:
                self.flat[field] = self._empty(store, keys[0], field, (int(totals[column]),))
        for field in WHOLE_FIELDS:
            self.whole[field] = self._empty(store, keys[0], field, (len(keys), store.shape(keys[0], field)[0]))
        # In the order of the keys, which is that of the shards: each shard is opened once, in whatever order the items are used.
        for done, number in enumerate(sorted(range(len(keys)), key=keys.__getitem__), 1):
            self._fill(store, number, keys[number], offsets[number], sizes[number], check)
            if report is not None:
                report(done, len(keys))

    def _empty(self, store: Dataset, key: str, field: str, rows: tuple[int, ...]) -> torch.Tensor:
        dtype = getattr(torch, store.schema.fields[field].dtype)
        return torch.empty((*rows, *store.shape(key, field)[1:]), dtype=dtype, device=self.device)

    def _fill(
        self, store: Dataset, number: int, key: str, offsets: NDArray[np.int64], sizes: NDArray[np.int64], check: Check
    ) -> None:
        for column, name in enumerate(self.windows):
            rows = slice(int(offsets[column]), int(offsets[column] + sizes[column]))
            for field in POINT_SETS[name]:
                values = store.read(key, field)
                check(key, field, values)
                self.flat[field][rows].copy_(torch.from_numpy(values))
        for field in WHOLE_FIELDS:
            values = store.read(key, field)
            check(key, field, values)
            self.whole[field][number].copy_(torch.from_numpy(values))

    def batch(self, draw: Draw) -> dict[str, torch.Tensor]:
        """The windows and the fields read whole of a draw, on the device."""
        items, starts, stage = (to_device(array, self.device) for array in (draw.items, draw.starts, draw.stage))
        batch: dict[str, torch.Tensor] = {}
        for column, (name, window) in enumerate(self.windows.items()):
            arange = torch.arange(window, device=self.device)
            # A set may be empty if its window has 0 points, so the modulus is at least 1.
            size = self.sizes[items, column].clamp(min=1)
            rows = self.offsets[items, column, None] + (starts[:, column, None] + arange) % size[:, None]
            for field in POINT_SETS[name]:
                flat = self.flat[field]
                batch[field] = flat.index_select(0, rows.reshape(-1)).view(len(items), window, *flat.shape[1:])
        points = self.whole["stage_points"]
        stages = torch.arange(points.shape[1], device=self.device)
        batch["landmarks"] = self.whole["landmarks"].index_select(0, items)
        batch["stage_points"] = points[items[:, None, None], stages[None, :, None], stage[None, None, :]]
        batch["to_mm"] = self.whole["to_mm"].index_select(0, items)
        return batch

    def close(self) -> None:
        """Free the memory."""
        self.flat.clear()
        self.whole.clear()
