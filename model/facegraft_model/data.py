"""Training data: a torch Dataset over a dataset of samples (facegraft.store).

Every point set is stored shuffled, so a contiguous window of it is a uniform random subset: one read per array, no gathering.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from torch.utils.data import Dataset

from facegraft.store import open_dataset
from facegraft_model.ids import DataError, IdTable, written_rows

POINT_SETS = {
    "surface": ("surface_points", "surface_normals", "surface_parts"),
    "near": ("near_points", "near_sdf", "near_normals", "near_parts"),
    "free": ("free_points", "free_sdf", "free_normals"),
}
WHOLE_FIELDS = ("landmarks", "stage_points", "to_mm")

__all__ = ["POINT_SETS", "WHOLE_FIELDS", "DataError", "IdTable", "SampleWindows"]


class SampleWindows(Dataset[dict[str, torch.Tensor]]):
    """Items of a samples dataset, each with a random window of `surface`, `near` and `free` points.

    An item is a dict of tensors, and collates as it is:
      surface_points, surface_normals f32 [surface,3], surface_parts u8 [surface];
      near_points, near_normals f32 [near,3], near_sdf f32 [near], near_parts u8 [near]; free_points, free_normals, free_sdf likewise;
      landmarks f32 [S,68,3], stage_points f32 [S,M,3], to_mm f64 [4,4] (unit coordinates to mm);
      item (its place in `keys`), subject, recipient (the remainder's donor), nose, eyes, mouth (donors): rows of id_table.subjects;
      expression: row of id_table.expressions; is_composite: bool.
    All coordinates and distances are in units of the unit ball.

    Where a window starts is a pure function of (seed, epoch, item): the data are the same for any number of DataLoader workers.
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
        if self.store.kind != "samples":
            raise DataError(f"{self.store.path} holds {self.store.kind}; a model learns from samples (facegraft sample SURFACES -o DIR)")
        self.windows = {"surface": surface, "near": near, "free": free}
        for name, size in [*self.windows.items(), ("seed", seed)]:
            if size < 0:
                raise DataError(f"{name} must not be negative, but is {size}")
        self.seed = seed
        rows = written_rows(self.store.index, split)
        if not len(rows):
            splits = sorted({str(name) for name in self.store.index["split"].to_pylist()})
            raise DataError(f"{self.store.path} has no items of split {split!r}; its splits are {', '.join(splits) or 'none'}")
        self.keys: list[str] = rows["key"].to_pylist()
        self.id_table = IdTable.from_index(self.store.index, split) if id_table is None else id_table
        self._ids = self._look_up_ids(rows.to_pylist())
        self._check_sizes()
        # In shared memory, so that set_epoch also reaches workers that are already running (persistent_workers=True).
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def _look_up_ids(self, rows: list[dict[str, str]]) -> dict[str, torch.Tensor]:
        """Per item, the rows of the code tables: int64 [len(self)] each."""
        people = {"subject": "subject", "recipient": "recipient", "nose": "donor_nose", "eyes": "donor_eyes", "mouth": "donor_mouth"}
        ids: dict[str, list[int]] = {name: [] for name in [*people, "expression", "is_composite"]}
        for row in rows:
            if row["origin"] not in ("scan", "composite"):
                raise DataError(f"{self.store.path}: item {row['key']} has origin {row['origin']!r}, which is neither scan nor composite")
            try:
                for name, column in people.items():
                    ids[name].append(self.id_table.subject(row[column]))
                ids["expression"].append(self.id_table.expression(row["subject"], row["expression"]))
            except DataError as error:
                raise DataError(f"{self.store.path}: item {row['key']}: {error}") from error
            ids["is_composite"].append(row["origin"] == "composite")
        return {name: torch.tensor(values, dtype=torch.bool if name == "is_composite" else torch.int64) for name, values in ids.items()}

    def _check_sizes(self) -> None:
        # One preset makes a whole dataset, so its first item speaks for all; __getitem__ checks each item again.
        for name in self.windows:
            self._size(self.keys[0], name)

    def _size(self, key: str, name: str) -> int:
        """Number of points in a set of an item. Raises DataError when the window is larger."""
        size = self.store.shape(key, POINT_SETS[name][0])[0]
        if self.windows[name] > size:
            raise DataError(
                f"a window of {self.windows[name]} {name} points is larger than the {size} of item {key} in {self.store.path}; "
                f"ask for at most {size}, or sample more (facegraft sample --set {name}=N)"
            )
        return size

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
        key = self.keys[index]
        rng = np.random.default_rng(np.random.SeedSequence((self.seed, self.epoch, index)))
        fractions = rng.random(len(self.windows))
        return {name: int(fraction * self._size(key, name)) for name, fraction in zip(self.windows, fractions, strict=True)}

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        key = self.keys[index]
        arrays = {}
        for name, start in self.starts(index).items():
            for field in POINT_SETS[name]:
                arrays[field] = self._wrapped(key, field, start, self.windows[name])
        arrays |= {field: self.store.read(key, field) for field in WHOLE_FIELDS}
        item = {field: torch.from_numpy(array) for field, array in arrays.items()}
        return {**item, "item": torch.tensor(index), **{name: ids[index] for name, ids in self._ids.items()}}

    def _wrapped(self, key: str, field: str, start: int, count: int) -> np.ndarray:
        """`count` rows from `start` on, going on at row 0 after the last."""
        size = self.store.shape(key, field)[0]
        stop = start + count
        if stop <= size:
            return self.store.window(key, field, start, stop)
        return np.concatenate([self.store.window(key, field, start, size), self.store.window(key, field, 0, stop - size)])
