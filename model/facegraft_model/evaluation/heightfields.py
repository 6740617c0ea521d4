"""The registered heads behind surfaces that are height fields, for linear models.

The height fields of `clean` (preset `paper`) have triangles of their own, head by head, so their vertices do not correspond. Those of
the heads that they were made from do. A linear model learns from these, each closed as `clean` closes it and moved to the frame
of its own surface, so that it lies where the samples' points are. What it decodes becomes a height field as `clean` makes one
(`height_field_of`): of a head without error, exactly the true sheet, rim and bridges included.

facegraft.geometry, and with it scipy and embree, is imported where heads are read and height fields are made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Floats
from facegraft.store import Dataset
from facegraft.vocabulary import COMPOSITE, SCAN
from facegraft_model.data.ids import DataError
from facegraft_model.data.items import Rows
from facegraft_model.decoding.extract import Mesh
from facegraft_model.evaluation.inputs import Inputs

SOURCES = {SCAN: "heads", COMPOSITE: "composites"}
"""The kind of dataset that holds the registered head of an item, by its origin."""

REGISTERED = "registered"
"""The fact of a linear model of height fields: the datasets of the heads that it learnt from."""


def is_height_field(row: Mapping[str, Any]) -> bool:
    """Whether the surface of an index row is an open sheet."""
    return row.get("closed") is False


def height_field_of(mesh: Mesh) -> Mesh:
    """The sheet of a closed head in the unit ball that is visible from the front. Raises ClippingError where there is none."""
    from facegraft.geometry.visibility import visible_sheet

    sheet = visible_sheet(mesh.vertices, mesh.faces, np.zeros(len(mesh.vertices), np.uint8), 1.0)
    return Mesh(sheet.vertices, sheet.faces)


class ClosedReader:
    """Reads the closed heads that the items of a dataset of height fields show.

    faces i32 [F,3] and parts u8 [V] are those of the closed heads.
    """

    def __init__(self, store: Dataset) -> None:
        """Raises DataError for surfaces without a region map."""
        from facegraft.regions.closer import make_closer
        from facegraft.regions.regionmap import RegionMap

        if store.region_map is None:
            raise DataError(f"{store.path} has no region map, which says how its heads are closed; clean the heads anew")
        template = np.asarray(store.shared["template"], dtype=np.float64)
        faces, labels = np.asarray(store.shared["faces"], dtype=np.int64), np.asarray(store.shared["vertex_labels"])
        self.store = store
        self._inputs = Inputs.of(store)
        self._sources: dict[str, list[Dataset]] = {}
        self._closer = make_closer(template, faces, RegionMap.from_json(store.region_map), labels)
        self.faces: NDArray[np.int32] = self._closer.faces.astype(np.int32)
        self.parts: NDArray[np.uint8] = self._closer.vertex_labels

    def vertices(self, rows: Rows) -> Floats:
        """[n, 3 V] f64 in unit coordinates. Raises DataError where an item's head is not found, or is another one."""
        heads = np.empty((len(rows), 3 * len(self.parts)))
        for head, row in zip(heads, rows, strict=True):
            head[:] = self._closed(row).astype(np.float32).ravel()  # as surfaces are stored
        return heads

    def describe(self) -> dict[str, Any]:
        """The datasets that the heads were read from, for the facts of a model."""
        used = [store for stores in self._sources.values() for store in stores]
        heads = [
            {"dataset": str(store.path.resolve()), "kind": store.kind, "fingerprint": store.fingerprint}
            for store in used
        ]
        return {REGISTERED: heads}

    def _closed(self, row: Mapping[str, Any]) -> Floats:
        """The closed head of an item [V,3], in the unit coordinates of its surface."""
        from facegraft.geometry.frame import to_unit

        key = str(row["key"])
        source = self._source(key, SOURCES[row["origin"]])
        to_mm = self.store.read(key, "to_mm")
        origin, scale = to_mm[:3, 3], float(to_mm[0, 0])
        landmarks, vertices = (
            to_unit(source.read(key, name).astype(np.float64), origin, scale) for name in ("landmarks", "vertices")
        )
        if not np.array_equal(landmarks.astype(np.float32), self.store.read(key, "landmarks")[0]):
            raise DataError(
                f"item {key}: the landmarks of {source.path} are not those of {self.store.path}; clean these heads anew"
            )
        return self._closer.close(vertices).vertices

    def _source(self, key: str, kind: str) -> Dataset:
        """The dataset that holds an item's registered head."""
        path = self.store.path
        if kind not in self._sources:
            looked: list[str] = []
            self._sources[kind] = list(self._inputs.found(kind, looked))
            if not self._sources[kind]:
                raise DataError(
                    f"{path} holds height fields, whose vertices do not correspond, so a linear model learns from the {kind} that they "
                    f"were made from; these are not found: looked in {', '.join(looked)}; put them into {path.parent / kind}"
                )
        for store in self._sources[kind]:
            if key in store:
                return store
        raise DataError(
            f"{path}: the head of item {key} is not in {', '.join(str(store.path) for store in self._sources[kind])}; "
            f"put all {kind} that the surfaces were made from where its run.json names them"
        )
