"""Fitted heads as mesh files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from facegraft.meshfiles.write import write_mesh
from facegraft.parts import Parts
from facegraft.store import write_json_atomic
from facegraft_model.decoding.decode import Decoded, decode
from facegraft_model.decoding.registered import Registered, check_registrable, registered_vertices
from facegraft_model.errors import ModelError
from facegraft_model.fitting.fits import Fits
from facegraft_model.method import Field

MESHES_FILE = "meshes.json"
Suffix = Literal["ply", "glb", "obj"]


def extract_fits(
    fits: Fits,
    output: Path,
    *,
    keys: Sequence[str] | None = None,
    resolution: int = 256,
    mode: Literal["sparse", "dense"] = "sparse",
    suffix: Suffix = "ply",
    unit: Literal["mm", "unit"] = "mm",
    topology: bool = False,
    on_head: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """A mesh of each fitted head, with part labels and template coordinates, and OUT/meshes.json. Returns the files.

    unit "mm": millimetres about the centre of the unit ball, in the head's original coordinates (without its alignment);
    "unit": the model's own coordinates. topology: also write KEY.topology.ply (or glb, obj), the head on the vertices and triangles
    of the training heads (`registered_vertices`), so that all heads correspond vertex by vertex.
    Raises EmptyFieldError, naming the head, for a field without a surface, RegistrationError for one that has no correspondence with
    the template: no file is written for it.
    """
    if topology:
        check_registrable(fits.field)
    chosen = list(range(len(fits))) if keys is None else [fits.index(key) for key in keys]
    if not chosen:
        raise ModelError(f"{fits.path} holds no heads to extract")
    output.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    rows: list[dict[str, Any]] = []
    for number, i in enumerate(chosen):
        key = fits.items[i]["key"]
        try:
            decoded = decode(fits.field, fits.codes_of(i), resolution=resolution, mode=mode)
            registered = registered_vertices(fits.field, fits.codes_of(i)) if topology else None
        except ModelError as error:
            raise type(error)(f"head {key}: {error}") from error
        path = output / f"{key}.{suffix}"
        transform = head_to_mm(fits, i) if unit == "mm" else np.eye(4)
        write_decoded(path, decoded, transform, fits.field.parts)
        written.append(path)
        row = {"key": key, "file": path.name, "vertices": len(decoded.mesh.vertices), "faces": len(decoded.mesh.faces)}
        if registered is not None:
            path = path.with_name(f"{key}.topology.{suffix}")
            write_registered(path, registered, fits.field, transform)
            written.append(path)
            row["topology"] = {"file": path.name, **registered.describe()}
        rows.append(row)
        if on_head is not None:
            on_head(number + 1, len(chosen))
    settings: dict[str, Any] = {
        "fits": str(fits.path.resolve()),
        "resolution": resolution,
        "mode": mode,
        "unit": unit,
        "mm_per_unit": fits.field.mm_per_unit,
    }
    write_json_atomic(output / MESHES_FILE, {**settings, "model": fits.field.provenance, "heads": rows})
    return written


def head_to_mm(fits: Fits, index: int) -> np.ndarray:
    """Map [4,4] from unit coordinates to mm about the unit ball's centre, in the head's original coordinates."""
    scale = np.diag([fits.field.mm_per_unit] * 3 + [1.0])
    if fits.samples is not None:
        return scale @ np.linalg.inv(fits.alignment[index].numpy())
    return np.linalg.inv(fits.alignment[index].numpy())


def write_registered(path: Path, registered: Registered, field: Field, transform: np.ndarray) -> None:
    """Write a registered head, transformed by a map [4,4], with part labels and, in a PLY, the topology's vertex ids."""
    topology = field.topology
    assert topology is not None
    write_mesh(
        path,
        registered.vertices @ transform[:3, :3].T + transform[:3, 3],
        topology.faces.cpu().numpy(),
        parts=topology.parts.cpu().numpy(),
        part_names=field.parts.labelled,
        vertex_ids=topology.ids.cpu().numpy().astype(np.int32) if path.suffix == ".ply" else None,
    )


def write_decoded(path: Path, decoded: Decoded, transform: np.ndarray, parts: Parts) -> None:
    """Write a decoded head, transformed by a map [4,4], with the values that the format supports. parts: those of the model."""
    vertices = decoded.mesh.vertices @ transform[:3, :3].T + transform[:3, 3]
    template = None if path.suffix == ".obj" else decoded.template_coords
    write_mesh(
        path, vertices, decoded.mesh.faces, parts=decoded.parts, part_names=parts.labelled, template_coords=template
    )
