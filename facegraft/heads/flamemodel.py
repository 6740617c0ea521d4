"""The FLAME model: heads from its identity coefficients.

    v(beta) = template + sum_i beta_i shape_i          (Li et al. 2017, Eq. 2, without expression and pose)

Its licence does not allow shipping it, so users name their own file: an npz, or the published pickle (`generic_model.pkl`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Floats
from facegraft.meshfiles.errors import MeshError
from facegraft.meshfiles.pickles import plain_array, read_pickle
from facegraft.store.remote import Location

SHAPES = 300
"""Identity coefficients of FLAME; its later `shapedirs` are those of expressions."""
_NAMES = {"template": ("v_template",), "shapes": ("shapedirs",), "faces": ("f", "faces")}


@dataclass(frozen=True)
class FlameModel:
    """template [V, 3] and shapes [V, 3, K] in metres, faces [F, 3]."""

    template: Floats
    shapes: Floats
    faces: NDArray[np.int32]

    def neutral(self, betas: NDArray[Any]) -> Floats:
        """Vertices [V, 3] of the head with these identity coefficients [k]. Raises MeshError for more than the model has."""
        if np.asarray(betas)[self.shapes.shape[2] :].any():
            raise MeshError(f"{len(betas)} betas, but the FLAME model has {self.shapes.shape[2]} shapes of identity; give the whole model")
        count = min(len(betas), self.shapes.shape[2])
        return self.template + self.shapes[:, :, :count] @ np.asarray(betas[:count], dtype=np.float64)


def read_flame_model(path: Location) -> FlameModel:
    """Read the model from an npz or a pickle; raises MeshError for another file, and for one that could run code."""
    data = read_pickle(path) if path.suffix.lower() == ".pkl" else read_plain_npz(path)
    if not isinstance(data, Mapping):
        raise MeshError(f"{path}: not the FLAME model: it holds a {type(data).__name__}, not named arrays")
    found: dict[str, NDArray[Any]] = {}
    for what, names in _NAMES.items():
        name = next((name for name in names if name in data), None)
        array = None if name is None else plain_array(data[name])
        if array is None:
            there = ", ".join(sorted(str(key) for key in data)[:12])
            raise MeshError(f"{path}: not the FLAME model: no array {names[0]!r}; it holds {there}")
        found[what] = array
    template, shapes, faces = found["template"], found["shapes"], found["faces"]
    if template.ndim != 2 or shapes.ndim != 3 or shapes.shape[:2] != template.shape or template.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise MeshError(
            f"{path}: not the FLAME model: v_template {list(template.shape)}, shapedirs {list(shapes.shape)} and "
            f"f {list(faces.shape)} should be [V, 3], [V, 3, K] and [F, 3]"
        )
    if faces.dtype.kind not in "iu" or faces.min() < 0 or faces.max() >= len(template):
        raise MeshError(f"{path}: not the FLAME model: its triangles f must be whole numbers below {len(template)}")
    return FlameModel(
        template.astype(np.float64), shapes[:, :, :SHAPES].astype(np.float64), faces.astype(np.int32)
    )


def read_betas(path: Location) -> Floats:
    """The coefficients [k] of one fit, from the npz files of MICA's `FLAME_parameters` (`betas`: 300 of identity, then expression).

    Raises MeshError for a file without them.
    """
    arrays = read_plain_npz(path)
    for name in ("betas", "shape", "shape_params"):
        if name in arrays:
            array = arrays[name]
            if array.dtype.kind not in "iuf" or array.size != max(array.shape, default=0) or not array.size or not np.isfinite(array).all():
                raise MeshError(
                    f"{path}: its {name} are {array.dtype} {list(array.shape)}, not finite numbers [k] of one head; leave it out"
                )
            return np.asarray(array, dtype=np.float64).reshape(-1)[:SHAPES]
    raise MeshError(f"{path}: no `betas`; it holds {', '.join(arrays) or 'nothing'}")


def read_plain_npz(path: Location) -> dict[str, NDArray[Any]]:
    """The numeric arrays of an npz file; those that hold Python objects are left out unread. Raises MeshError."""
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            for name in archive.files:
                try:
                    member = archive[name]
                    if isinstance(member, np.ndarray):
                        arrays[name] = member
                except ValueError as error:
                    if "pickle" not in str(error):
                        raise
    except OSError as error:
        raise MeshError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # numpy passes on whatever a damaged archive makes its readers raise
        raise MeshError(f"{path}: not an npz file, or damaged ({type(error).__name__}); copy it again") from error
    return arrays
