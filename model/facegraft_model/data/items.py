"""Items of a samples dataset: choose them, find the rows of their codes and the sizes of their sets, and read windows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from facegraft.errors import did_you_mean
from facegraft.store import OPTIONAL_SETS, Dataset
from facegraft.vocabulary import COMPOSITE, NEUTRAL, ORIGINS, SCAN
from facegraft_model.data.ids import DataError, IdTable, head_of, require_names, written_rows

POINT_SETS = {
    "surface": ("surface_points", "surface_normals", "surface_parts"),
    "near": ("near_points", "near_sdf", "near_normals", "near_parts"),
    "free": ("free_points", "free_sdf", "free_normals"),
    **{name: tuple(f"{name}_{field}" for field in ("points", "sdf", "normals", "parts")) for name in OPTIONAL_SETS},
}
"""The fields of each set of points; all samples have the first three sets."""
WHOLE_FIELDS = ("landmarks", "stage_points", "to_mm")

Rows = list[dict[str, Any]]


def require_samples(store: Dataset) -> None:
    """Raises DataError when the dataset holds anything but samples."""
    if store.kind != "samples":
        raise DataError(
            f"{store.path} holds {store.kind}; a model learns from samples (facegraft sample SURFACES -o DIR)"
        )


def select_rows(
    store: Dataset,
    split: str | None,
    *,
    origins: Sequence[str] | None = None,
    expressions: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
) -> Rows:
    """Index rows of the written items of a split (None: all splits), with the given origins and expressions.

    keys: exactly these items, in this order; otherwise the items come sorted by key.
    Raises DataError when no items are left, for an unknown origin or expression, an item without a known origin, and a key that is
    unknown, repeated, or excluded by the other arguments.
    """
    every: Rows = written_rows(store.index, store.parts, None).to_pylist()
    for row in every:
        if row["origin"] not in ORIGINS:
            raise DataError(
                f"{store.path}: item {row['key']} has origin {row['origin']!r}, which is neither scan nor composite"
            )
    _check_names(store, "origin", origins, ORIGINS)
    _check_names(store, "expression", expressions, sorted({str(row["expression"]) for row in every}))
    wanted = {"split": None if split is None else (split,), "origin": origins, "expression": expressions}
    rows = [row for row in every if all(names is None or row[column] in names for column, names in wanted.items())]
    if keys is not None:
        return _rows_of_keys(store, keys, rows, wanted)
    if not rows:
        splits = sorted({str(row["split"]) for row in store.index.to_pylist()})
        others = "".join(
            f" with {column} {', '.join(names)}" for column, names in wanted.items() if names and column != "split"
        )
        raise DataError(
            f"{store.path} has no items of split {split!r}{others}; its splits are {', '.join(splits) or 'none'}"
        )
    return rows


def _check_names(store: Dataset, column: str, names: Sequence[str] | None, known: Sequence[str]) -> None:
    if isinstance(names, str):
        raise DataError(f"{column}s must be a list of names, not the text {names!r}")
    for name in names or ():
        if name not in known:
            raise DataError(f"{store.path} has no items of {column} {name!r}; there are {', '.join(known) or 'none'}")


def _rows_of_keys(store: Dataset, keys: Sequence[str], rows: Rows, wanted: Mapping[str, Sequence[str] | None]) -> Rows:
    if isinstance(keys, str) or not keys:
        raise DataError(f"keys must be a list of at least one item key, not {keys!r}")
    by_key = {row["key"]: row for row in rows}
    for key in keys:
        if key in by_key:
            continue
        if key not in store:
            if key in set(store.index["key"].to_pylist()):
                raise DataError(f"{store.path}: item {key!r} was rejected: {store.row(key)['reason']}")
            raise DataError(f"{store.path} has no item {key!r}{did_you_mean(key, store.keys())}")
        row = store.row(key)
        why = next(column for column, names in wanted.items() if names is not None and row[column] not in names)
        raise DataError(
            f"{store.path}: item {key} has {why} {row[why]!r}, and only {', '.join(wanted[why] or ())} was asked for"
        )
    if len(set(keys)) < len(keys):
        repeated = next(key for number, key in enumerate(keys) if key in keys[:number])
        raise DataError(f"keys names item {repeated!r} twice")
    return [by_key[key] for key in keys]


def neutral_expression(store: Dataset) -> str:
    """Name of the neutral expression.

    Composites are made of neutral heads, so their expression is the neutral one; without composites it is "neutral", as ingest
    names it. Raises DataError when composites have different expressions.
    """
    rows = written_rows(store.index, store.parts, None).to_pylist()
    names = sorted({str(row["expression"]) for row in rows if row["origin"] == COMPOSITE})
    if len(names) > 1:
        raise DataError(
            f"{store.path} has composites of the expressions {', '.join(names)}; composites must all be neutral"
        )
    return names[0] if names else NEUTRAL


def look_up_ids(store: Dataset, rows: Rows, table: IdTable) -> dict[str, torch.Tensor]:
    """For each index row, the rows of the code tables, int64 [I] each, and the bool flags is_composite and is_neutral.

    is_neutral marks a subject's own head with the neutral expression; for composites it is False (they have no expression).
    Raises DataError, naming the item, for a subject that is not in the table.
    """
    parts = table.parts
    require_names(rows, parts)
    neutral = neutral_expression(store)
    people = {"subject": "subject", "recipient": "recipient", **parts.donor_columns}
    ids: dict[str, list[int]] = {name: [] for name in (*people, "expression", "head", "shape", "expression_name")}
    flags: dict[str, list[bool]] = {"is_composite": [], "is_neutral": []}
    for row in rows:
        try:
            for name, column in people.items():
                ids[name].append(table.subject(row[column]))
            ids["expression"].append(table.expression(row["subject"], row["expression"]))
            ids["head"].append(table.head(head_of(row, parts)))
            ids["shape"].append(table.shape(head_of(row, parts), row["expression"]))
            ids["expression_name"].append(table.expression_name(row["expression"]))
        except DataError as error:
            raise DataError(f"{store.path}: item {row['key']}: {error}") from error
        flags["is_composite"].append(row["origin"] == COMPOSITE)
        flags["is_neutral"].append(row["origin"] == SCAN and row["expression"] == neutral)
    tensors = {name: torch.tensor(values, dtype=torch.int64) for name, values in ids.items()}
    return {**tensors, **{name: torch.tensor(values, dtype=torch.bool) for name, values in flags.items()}}


def window_size(store: Dataset, key: str, name: str, window: int) -> int:
    """Number of points in a set of an item. Raises DataError when the window is larger, or the samples have no such set."""
    if POINT_SETS[name][0] not in store.schema.fields:
        raise DataError(
            f"{store.path} has no {name} points, of which {window} an item were asked for; sample with them "
            f"(facegraft sample --set {name}=N), or take others (--set data.{name}=0 --set data.near={window}, and the same of fit)"
        )
    size = store.shape(key, POINT_SETS[name][0])[0]
    if window > size:
        raise DataError(
            f"a window of {window} {name} points is larger than the {size} of item {key} in {store.path}; "
            f"ask for at most {size}, or sample more (facegraft sample --set {name}=N)"
        )
    return size


def set_sizes(store: Dataset, keys: Sequence[str], windows: Mapping[str, int]) -> NDArray[np.int64]:
    """Number of points [I, sets] in the sets of the items. Raises DataError when a window is larger than its set."""
    return np.array([[window_size(store, key, *window) for window in windows.items()] for key in keys], dtype=np.int64)


def read_window(store: Dataset, key: str, field: str, start: int, out: NDArray[Any], size: int) -> None:
    """Fill `out` [count, …] with rows from `start` on of a field of `size` rows, continuing at row 0 after the last."""
    count = len(out)
    first = min(count, size - start)
    out[:first] = store.window(key, field, start, start + first)
    if first < count:
        out[first:] = store.window(key, field, 0, count - first)


def check_finite(store: Dataset, key: str, field: str, values: NDArray[Any]) -> None:
    """Raises DataError that names item and field when a value is NaN or infinite."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = int(np.count_nonzero(~np.isfinite(values)))
        raise DataError(
            f"{store.path}: item {key}, field {field}: {bad} of {values.size} values are NaN or infinite; "
            f"check with `facegraft verify {store.path}`, and sample the item again or leave it out"
        )
