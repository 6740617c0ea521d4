"""Batches read from the shards on demand, by one thread that reads one step ahead."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from facegraft.store import Dataset
from facegraft_model.data.items import POINT_SETS, WHOLE_FIELDS, read_window
from facegraft_model.data.sampler import Draw

Check = Callable[[str, str, NDArray[np.generic]], None]


class StreamedSets:
    """Reads the windows of a step's items while the step before it is being computed. shapes: those of the first item's fields.

    Tensors are filled in (for CUDA: pinned) host memory, and copied to the device by batch(). There are at most two batches at a
    time. An exception of the thread is raised by the batch() of that step; calling it again reads again.
    """

    def __init__(
        self,
        store: Dataset,
        keys: Sequence[str],
        sizes: NDArray[np.int64],
        windows: Mapping[str, int],
        device: torch.device,
        check: Check,
        draw: Callable[[int], Draw],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        self.store, self.keys, self.sizes, self.windows = store, keys, sizes, windows
        self.device, self.check, self.draw, self._shapes = device, check, draw, shapes
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="facegraft-stream")
        self._ahead: tuple[int, Future[dict[str, torch.Tensor]]] | None = None

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """The windows and the fields read whole of a step, on the device; starts to read the next step."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] != step:
            ahead[1].cancel()
            ahead = None
        host = (self._thread.submit(self.read, step) if ahead is None else ahead[1]).result()
        self._ahead = (step + 1, self._thread.submit(self.read, step + 1))
        # Pinned memory returns to torch's cache, which waits for the copy before it reuses the memory.
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in host.items()}

    def read(self, step: int) -> dict[str, torch.Tensor]:
        """The windows and the fields read whole of a step, in host memory."""
        draw = self.draw(step)
        count = len(draw.items)
        stages = self._shapes["landmarks"][0]
        batch: dict[str, torch.Tensor] = {}
        for name, window in self.windows.items():
            batch |= {field: self._empty(field, (count, window), 1) for field in POINT_SETS[name]}
        batch["landmarks"] = self._empty("landmarks", (count, stages), 1)
        batch["stage_points"] = self._empty("stage_points", (count, stages, len(draw.stage)), 2)
        batch["to_mm"] = self._empty("to_mm", (count, 4), 1)
        arrays = {field: tensor.numpy() for field, tensor in batch.items()}
        # In the order of the keys, which is that of the shards: a step opens each of its shards once.
        for number in sorted(range(count), key=lambda number: self.keys[int(draw.items[number])]):
            self._fill({field: array[number] for field, array in arrays.items()}, draw, number)
        return batch

    def _fill(self, out: Mapping[str, NDArray[Any]], draw: Draw, number: int) -> None:
        item = int(draw.items[number])
        key = self.keys[item]
        for column, name in enumerate(self.windows):
            start, size = int(draw.starts[number, column]), int(self.sizes[item, column])
            for field in POINT_SETS[name]:
                read_window(self.store, key, field, start, out[field], size)
                self.check(key, field, out[field])
        for field in WHOLE_FIELDS:
            if out[field].size == 0:  # no stage points wanted: they are the largest of these fields
                continue
            values = self.store.read(key, field)
            self.check(key, field, values)
            out[field][...] = values[:, draw.stage] if field == "stage_points" else values

    def _empty(self, field: str, rows: tuple[int, ...], own: int) -> torch.Tensor:
        """An uninitialised host tensor; its last axes are those of the field without the first `own`."""
        dtype = getattr(torch, self.store.schema.fields[field].dtype)
        tail = self._shapes[field][own:]
        return torch.empty((*rows, *tail), dtype=dtype, pin_memory=self.device.type == "cuda")

    def close(self) -> None:
        """Stop the thread; waits for the read that is under way."""
        self._ahead = None
        self._thread.shutdown(wait=True, cancel_futures=True)
