"""The true surfaces that reconstructions are scored against: the `surfaces` dataset that the samples were made from.

Samples have points only; the exact surface, its part labels and its cut faces are in the surfaces. Their vertices are in unit
coordinates; everything here is returned in mm of the head's own mesh, by the head's `to_mm`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from facegraft.arrays import Bools, Floats, Ints, Labels
from facegraft.parts import Parts
from facegraft.store import AnyPath, Dataset, Location, open_dataset, place
from facegraft.surfaces.barycentric import barycentric
from facegraft.surfaces.labels import face_labels
from facegraft.surfaces.nearest import Nearest
from facegraft.surfaces.surface import Surface
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.inputs import Inputs

ON_EDGE = 1e-6
"""A nearest point whose barycentric weight is below this lies on the edge."""

COPIED = ("landmarks", "to_mm")
"""Fields that samples copy from their surfaces, so that the two can be matched without run.json."""


class TruthError(ModelError):
    """The true surfaces are missing, or are not those that the samples were made from."""


@dataclass(frozen=True)
class TrueHead:
    """One head in mm: vertices [V, 3], faces [F, 3], part of each face [F], cut faces [F] (no real surface).

    vocabulary: the parts of the labels.
    """

    key: str
    row: dict[str, Any]
    vertices: Floats
    faces: Ints
    parts: Labels
    cut: Bools
    vocabulary: Parts

    @cached_property
    def surface(self) -> Surface:
        return Surface(self.vertices, self.faces)

    @property
    def subject(self) -> str:
        return str(self.row["subject"])

    def is_real(self, nearest: Nearest) -> Bools:
        """Mask [n] of the nearest points that are on real surface: not on a cut face, nor on the rim of an open sheet.

        A point nearest to a rim lies beyond the end of the scan, where the truth is unknown.
        """
        real = ~self.cut[nearest.face]
        if self._open_edge is not None:
            real &= ~self._on_rim(nearest)
        return real

    @cached_property
    def _open_edge(self) -> Bools | None:
        """[F, 3]: whether the edge opposite each corner belongs to one face only; None for a closed surface."""
        ends = np.stack([self.faces[:, [1, 2]], self.faces[:, [2, 0]], self.faces[:, [0, 1]]], axis=1).reshape(-1, 2)
        ends = np.sort(ends, axis=1)
        _, place, count = np.unique(
            ends[:, 0] * len(self.vertices) + ends[:, 1], return_inverse=True, return_counts=True
        )
        single: Bools = (count == 1)[place.ravel()].reshape(-1, 3)
        return single if single.any() else None

    def _on_rim(self, nearest: Nearest) -> Bools:
        assert self._open_edge is not None
        rim_vertex = np.zeros(len(self.vertices), dtype=bool)
        for corner in range(3):  # the edge opposite a corner joins the other two corners
            rim_vertex[self.faces[self._open_edge[:, corner]][:, [i for i in range(3) if i != corner]]] = True
        face = self.faces[nearest.face]
        weights = barycentric(nearest.point, self.vertices[face])
        on_edge = ((weights < ON_EDGE) & self._open_edge[nearest.face]).any(axis=1)
        # The face found at a rim's vertex may be one that has no open edge itself.
        at_vertex = ((weights > 1.0 - ON_EDGE) & rim_vertex[face]).any(axis=1)
        return np.asarray(on_edge | at_vertex)


class Truth:
    """The true heads of a samples dataset, by item key.

    The surfaces are looked for in this order: `surfaces` when given; the input named in the samples' run.json; the folder `surfaces`
    next to the samples. With a run.json the dataset's fingerprint must be the recorded one; without it, landmarks and to_mm of every
    requested head are compared with the samples'. Raises TruthError.
    """

    def __init__(self, samples: AnyPath, surfaces: AnyPath | None = None) -> None:
        self.samples = open_dataset(samples)
        if self.samples.kind != "samples":
            raise TruthError(
                f"{self.samples.path} holds {self.samples.kind}; pass the samples that the model was fitted to"
            )
        self.store, self.matched_by = _find(self.samples, surfaces)
        if self.samples.parts != self.store.parts:
            raise TruthError(
                f"{self.store.path} has the parts {', '.join(self.store.parts)}, {self.samples.path} {', '.join(self.samples.parts)}; "
                "pass the surfaces that these samples were made from (--surfaces DIR)"
            )

    @property
    def parts(self) -> Parts:
        """The parts by which the heads are scored."""
        return self.samples.parts

    @property
    def mm_per_unit(self) -> float:
        scale = self.store.mm_per_unit
        if scale is None:
            raise TruthError(
                f"{self.store.path} states no mm_per_unit; make the surfaces with this version of facegraft"
            )
        return float(scale)

    def describe(self) -> dict[str, Any]:
        """A description of the true surfaces, for the record of scores."""
        return {
            "samples": str(self.samples.path),
            "samples_fingerprint": self.samples.fingerprint,
            "surfaces": str(self.store.path),
            "surfaces_fingerprint": self.store.fingerprint,
            "matched_by": self.matched_by,
            "mm_per_unit": self.mm_per_unit,
        }

    def in_mm(self, key: str, points: ArrayLike) -> Floats:
        """Points [n, 3] from unit coordinates of an item to mm of its head."""
        return transformed(np.asarray(points, dtype=np.float64), self._to_mm(key))

    def in_units(self, key: str, points: ArrayLike) -> Floats:
        """Points [n, 3] from mm of an item's head to its unit coordinates."""
        return transformed(np.asarray(points, dtype=np.float64), np.asarray(np.linalg.inv(self._to_mm(key))))

    def _to_mm(self, key: str) -> Floats:
        if key not in self.store:
            raise TruthError(
                f"{self.store.path} holds no item {key!r}; pass the surfaces that these samples were made from (--surfaces DIR)"
            )
        return np.asarray(self.store.read(key, "to_mm"), dtype=np.float64)

    def head(self, key: str) -> TrueHead:
        """The true head of an item. Raises TruthError for a key that the surfaces lack, or an item that differs from the samples."""
        to_mm = self._to_mm(key)
        item = self.store[key]
        for name in COPIED if self.matched_by == "items" else ():
            if not np.array_equal(item[name], self.samples.read(key, name)):
                raise TruthError(
                    f"item {key}: {name} of {self.store.path} and of {self.samples.path} differ; pass the surfaces that these "
                    "samples were made from (--surfaces DIR)"
                )
        faces = item["faces"].astype(np.int64)
        return TrueHead(
            key=key,
            row=self.store.row(key),
            vertices=transformed(item["vertices"].astype(np.float64), to_mm),
            faces=faces,
            parts=face_labels(item["vertex_parts"], faces),
            cut=item["face_cut"].astype(bool),
            vocabulary=self.parts,
        )


def transformed(points: Floats, matrix: Floats) -> Floats:
    """Points [n, 3] under a matrix [4, 4] of column vectors."""
    return np.asarray(points @ matrix[:3, :3].T + matrix[:3, 3])


def _find(samples: Dataset, given: AnyPath | None) -> tuple[Dataset, str]:
    """The surfaces, and how they were matched to the samples: "fingerprint" or "items"."""
    try:
        inputs = Inputs.of(samples)
    except ModelError as error:
        raise TruthError(f"{error}; delete it and pass --surfaces DIR") from error
    if given is not None:
        store = _open(place(given))
        if not inputs.accepts(store):
            raise TruthError(
                f"{store.path} (fingerprint {store.fingerprint[:12]}) are not the surfaces that {samples.path} were made from "
                f"({inputs.fingerprints[0][:12]}); pass those with --surfaces DIR, or sample anew"
            )
        return store, inputs.matched_by
    looked: list[str] = []
    for store in inputs.found("surfaces", looked):
        return store, inputs.matched_by
    raise TruthError(
        f"the surfaces that {samples.path} were made from are not found: looked in {', '.join(looked)}; pass --surfaces DIR"
    )


def _open(folder: Location) -> Dataset:
    store = open_dataset(folder)
    if store.kind != "surfaces":
        raise TruthError(
            f"{folder} holds {store.kind}, not surfaces; pass the output of `facegraft clean` with --surfaces DIR"
        )
    return store
