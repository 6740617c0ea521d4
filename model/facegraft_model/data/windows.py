"""Training data for torch's DataLoader: a Dataset over a dataset of samples (facegraft.store).

Every point set is stored shuffled, so a contiguous window of it is a uniform random subset: one read per array, no gathering.
A training loop of its own takes batches.BatchSource instead, which needs no worker processes.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from torch.utils.data import Dataset

from facegraft.store import open_dataset
from facegraft_model.data.ids import DataError, IdTable
from facegraft_model.data.items import (
    POINT_SETS,
    WHOLE_FIELDS,
    look_up_ids,
    read_window,
    require_samples,
    select_rows,
    window_size,
)
from facegraft_model.data.sampler import draw_epoch

__all__ = ["POINT_SETS", "WHOLE_FIELDS", "DataError", "IdTable", "SampleWindows"]


class SampleWindows(Dataset[dict[str, torch.Tensor]]):
    """Items of a samples dataset, each with a random window of `surface`, `near` and `free` points.

    An item is a dict of tensors, and collates as it is:
      surface_points, surface_normals f32 [surface,3], surface_parts u8 [surface];
      near_points, near_normals f32 [near,3], near_sdf f32 [near], near_parts u8 [near]; free_points, free_normals, free_sdf likewise;
      landmarks f32 [S,68,3], stage_points f32 [S,M,3], to_mm f64 [4,4] (unit coordinates to mm);
      item (its place in `keys`), subject, recipient (the remainder's donor), nose, eyes, mouth (donors): rows of id_table.subjects;
      expression, head, shape, expression_name: rows of id_table.expressions, .heads, .shapes, .expression_names;
      is_composite, is_neutral (a scan of the neutral expression): bool.
    All coordinates and distances are in units of the unit ball.

    Where a window starts is a pure function of (seed, epoch, item): the data are the same for any number of DataLoader workers, and the
    same windows as batches.BatchSource takes of these items in that epoch.
    A window that runs over the end of its set goes on at the beginning, so every point is drawn equally often.

    split: "train", "test" or None for all. id_table: the model's (default: made of the items of this split).
    verify: check each shard's sha256 at its first open; every worker process does so for itself.
    Raises DataError for an empty split, a window larger than its set (at construction), or somebody unknown to id_table.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        surface: int,
        near: int,
        free: int,
        seed: int = 0,
        split: str | None = "train",
        id_table: IdTable | None = None,
        verify: bool = True,
    ) -> None:
        self.store = open_dataset(path, verify=verify)
        require_samples(self.store)
        self.windows = {"surface": surface, "near": near, "free": free}
        for name, size in [*self.windows.items(), ("seed", seed)]:
            if size < 0:
                raise DataError(f"{name} must not be negative, but is {size}")
        self.seed = seed
        rows = select_rows(self.store, split)
        self.keys: list[str] = [row["key"] for row in rows]
        self.id_table = IdTable.from_rows(rows) if id_table is None else id_table
        self._ids = look_up_ids(self.store, rows, self.id_table)
        self._check_sizes()
        # In shared memory, so that set_epoch also reaches workers that are already running (persistent_workers=True).
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def _check_sizes(self) -> None:
        # One preset makes a whole dataset, so its first item speaks for all; __getitem__ checks each item again.
        for name in self.windows:
            self._size(self.keys[0], name)

    def _size(self, key: str, name: str) -> int:
        """Number of points in a set of an item. Raises DataError when the window is larger."""
        return window_size(self.store, key, name, self.windows[name])

    def set_epoch(self, epoch: int) -> None:
        """Choose the windows of another epoch; call it before iterating over the loader."""
        if epoch < 0:
            raise DataError(f"epoch must not be negative, but is {epoch}")
        self._epoch.fill_(epoch)

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def __len__(self) -> int:
        return len(self.keys)

    def starts(self, index: int) -> dict[str, int]:
        """Where the windows of an item start in the current epoch: uniform over each set."""
        fractions = draw_epoch(self.seed, self.epoch, len(self)).fractions[index]
        key = self.keys[index]
        return {
            name: int(fraction * self._size(key, name)) for name, fraction in zip(self.windows, fractions, strict=True)
        }

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        key = self.keys[index]
        item: dict[str, torch.Tensor] = {}
        for name, start in self.starts(index).items():
            size = self._size(key, name)
            for field in POINT_SETS[name]:
                spec = self.store.schema.fields[field]
                window = np.empty((self.windows[name], *self.store.shape(key, field)[1:]), spec.dtype)
                read_window(self.store, key, field, start, window, size)
                item[field] = torch.from_numpy(window)
        item |= {field: torch.from_numpy(self.store.read(key, field)) for field in WHOLE_FIELDS}
        return {**item, "item": torch.tensor(index), **{name: ids[index] for name, ids in self._ids.items()}}
