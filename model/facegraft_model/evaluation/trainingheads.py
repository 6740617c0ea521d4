"""The registered heads of a dataset of surfaces that linear models learn from, and their principal modes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Floats
from facegraft.store import AnyPath, Dataset, open_dataset
from facegraft.vocabulary import SCAN
from facegraft_model.data.ids import DataError
from facegraft_model.data.items import Rows, neutral_expression, select_rows
from facegraft_model.evaluation.heightfields import ClosedReader, is_height_field

RANK_TOLERANCE = 1e-12
"""Modes with less than this share of the largest variance are rounding errors of the Gram matrix in float64."""
ROUNDING = 2.0**-24
"""Largest rounding error of a coordinate in the unit ball in float32."""


class Reader(Protocol):
    """Reads the vertices of items of a dataset of surfaces: faces i32 [F,3] and parts u8 [V] are the same for all of them."""

    store: Dataset
    faces: NDArray[np.int32]
    parts: NDArray[np.uint8]

    def vertices(self, rows: Rows) -> Floats:
        """[n, 3 V] f64 in unit coordinates."""

    def describe(self) -> dict[str, Any]:
        """What else than the surfaces it has read, for the facts of a model."""


class Registered:
    """Reads the vertices of items and checks that their faces and parts equal those of the first."""

    def __init__(self, store: Dataset, first: str) -> None:
        self.store, self.first = store, first
        self.faces: NDArray[np.int32] = store.read(first, "faces")
        self.parts: NDArray[np.uint8] = store.read(first, "vertex_parts")

    def vertices(self, rows: Rows) -> Floats:
        """[n, 3 V] f64 in unit coordinates. Raises DataError for an item with other faces."""
        heads = np.empty((len(rows), 3 * len(self.parts)))
        for head, row in zip(heads, rows, strict=True):
            key = row["key"]
            for name, own in (("faces", self.faces), ("vertex_parts", self.parts)):
                if not np.array_equal(self.store.read(key, name), own):
                    raise DataError(
                        f"{self.store.path}: {name} of item {key} differ from those of item {self.first}; a linear model needs heads "
                        "that are all closed in the same way (facegraft clean --set mode=head)"
                    )
            head[:] = self.store.read(key, "vertices").astype(np.float64).ravel()
        return heads

    def describe(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, eq=False)
class TrainingHeads:
    """The registered heads that a linear model learns from, in unit coordinates: the surfaces themselves, or where these are height
    fields, the heads that they were made from (`heightfields`).

    neutral f64 [n, 3 V] and their index rows; expressive f64 [m, 3 V]: offsets of expressive scans from the neutral scan of the same
    subject, and the names [m] of their expressions; unpaired: keys of the expressive scans without one.
    """

    reader: Reader
    neutral: Floats
    rows: Rows
    expressive: Floats
    names: list[str]
    unpaired: list[str]
    split: str
    origins: tuple[str, ...]

    @classmethod
    def read(cls, surfaces: AnyPath, split: str, origins: Sequence[str]) -> TrainingHeads:
        """The heads of a split of a dataset of surfaces. Raises DataError when closed items do not share faces, when the heads of
        height fields are not found, and when there are fewer than two neutral heads."""
        store = open_dataset(surfaces)
        if store.kind != "surfaces":
            raise DataError(f"{store.path} holds {store.kind}; the linear model learns from surfaces (facegraft clean)")
        neutral_name = neutral_expression(store)
        rows = select_rows(store, split, origins=tuple(origins))
        reader: Reader = ClosedReader(store) if is_height_field(rows[0]) else Registered(store, rows[0]["key"])
        neutral = [row for row in rows if row["expression"] == neutral_name]
        if len(neutral) < 2:
            raise DataError(
                f"{store.path} has {len(neutral)} heads of expression {neutral_name!r} in split {split!r}; a linear model needs at least two"
            )
        heads = reader.vertices(neutral)
        of_subject = {row["subject"]: head for row, head in zip(neutral, heads, strict=True) if row["origin"] == SCAN}
        expressive = [row for row in rows if row["expression"] != neutral_name]
        paired = [row for row in expressive if row["subject"] in of_subject]
        offsets = reader.vertices(paired)
        for offset, row in zip(offsets, paired, strict=True):
            offset -= of_subject[row["subject"]]
        unpaired = sorted(row["key"] for row in expressive if row["subject"] not in of_subject)
        names = [str(row["expression"]) for row in paired]
        return cls(reader, heads, neutral, offsets, names, unpaired, split, tuple(origins))

    def expression_modes(self, count: int) -> Floats:
        """At most `count` modes [k, 3 V] of the expressive offsets about 0, so that code 0 is neutral."""
        if count == 0 or not len(self.expressive):
            return np.empty((0, self.neutral.shape[1]))
        return principal_modes(self.expressive, count, len(self.expressive))

    def expression_codes(self, modes: Floats) -> Floats:
        """The mean code [e, k] of each expression, in the order of their names, for modes [k, 3 V], which are orthogonal."""
        codes = self.expressive @ modes.T / (modes**2).sum(1)
        names = np.asarray(self.names, dtype=str)
        own = sorted(set(self.names)) if len(modes) else []
        return np.stack([codes[names == name].mean(0) for name in own]) if own else np.empty((0, len(modes)))

    def facts(self, expression: bool) -> dict[str, Any]:
        """What a model of these heads says of itself. expression: it learnt the expressions, too."""
        store = self.reader.store
        return {
            "mm_per_unit": store.mm_per_unit,
            "topology": dict(store.schema.topology),
            "frame": store.schema.frame,
            "part_set": store.parts.to_json(),
            "neutral_expression": neutral_expression(store),
            **self.reader.describe(),
            "trained_on": {
                "surfaces": str(store.path.resolve()),
                "fingerprint": store.fingerprint,
                "split": self.split,
                "origins": list(self.origins),
                "neutral_heads": len(self.neutral),
                "expressive_heads": len(self.expressive) if expression else 0,
                "without_neutral_head": self.unpaired,
            },
        }


def principal_modes(offsets: Floats, count: int, freedom: int) -> Floats:
    """The first `count` principal modes [k,D] of offsets [n,D], each as long as its standard deviation (`freedom` in the denominator).

    With X = U S V^T, they are S V^T / sqrt(freedom) = U^T X / sqrt(freedom), with U from the Gram matrix X X^T: there are far
    fewer heads than coordinates. Modes as small as the rounding errors of stored vertices are left out.
    """
    variance, vectors = np.linalg.eigh(offsets @ offsets.T)
    variance, vectors = variance[::-1], vectors[:, ::-1]
    smallest = max(RANK_TOLERANCE * variance[0], offsets.shape[1] * ROUNDING**2)
    rank = int(np.count_nonzero(variance > smallest))
    modes: Floats = vectors[:, : min(rank, count)].T @ offsets / np.sqrt(freedom)
    return modes
