"""The training heads' own vertices and triangles, in the template: what makes decoded heads correspond vertex by vertex."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from facegraft.store import Dataset
from facegraft_model.data.ids import DataError

ARRAYS = {"vertices": "template_vertices", "faces": "template_faces", "parts": "template_parts", "ids": "template_ids"}
"""The shared arrays of samples (docs/format.md) by the name that they have here."""


@dataclass(frozen=True, eq=False)
class Topology:
    """vertices f32 [n,3] of the template in unit coordinates, faces i64 [m,3], parts u8 [n] (labels), ids i64 [n] (vertices of the
    registered meshes, ascending)."""

    vertices: Tensor
    faces: Tensor
    parts: Tensor
    ids: Tensor


def read_topology(samples: Dataset) -> Topology | None:
    """The topology that samples hold; None for samples of an older version, or without a template morph.

    Raises DataError where one of its arrays is missing, or its shapes, triangles or numbers cannot be a mesh.
    """
    found = {name: samples.shared[array] for name, array in ARRAYS.items() if array in samples.shared}
    if not found:
        return None
    where, n = f"{samples.path}: the template's topology", len(found.get("vertices", ()))
    if len(found) < len(ARRAYS):
        raise DataError(f"{where} lacks {', '.join(ARRAYS[name] for name in ARRAYS if name not in found)}; sample anew")
    faces = found["faces"]
    shapes = {"vertices": (n, 3), "faces": (len(faces), 3), "parts": (n,), "ids": (n,)}
    for name, shape in shapes.items():
        if found[name].shape != shape:
            raise DataError(f"{where}: {ARRAYS[name]} has shape {list(found[name].shape)}, not {list(shape)}; sample anew")
    if not len(faces) or faces.min() < 0 or faces.max() >= n or not np.isfinite(found["vertices"]).all():
        raise DataError(f"{where} has no triangles, names a vertex that it lacks, or is not finite; sample anew")
    kinds = {"vertices": np.float32, "faces": np.int64, "parts": np.uint8, "ids": np.int64}
    return Topology(**{name: torch.from_numpy(found[name].astype(kind)) for name, kind in kinds.items()})
