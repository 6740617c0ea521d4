"""Write meshes as PLY, GLB and OBJ.

| written | positions, faces | colours | parts | template coordinates | vertex ids |
|---|---|---|---|---|---|
| .ply (binary) | f64, i32 | red, green, blue | part (uchar) | tx, ty, tz (f64) | vertex_id (int) |
| .glb | f32, u32 | COLOR_0 | _PART | _TEMPLATE (f32) | refused |
| .obj | 9 digits | after the position | face groups, named | refused | refused |

Formats: G. Turk, "The PLY Polygon File Format", 1994; Wavefront OBJ, Advanced Visualizer manual, appendix B1; glTF 2.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facegraft.arrays import Bytes, Floats
from facegraft.lazily import lazy_import
from facegraft.meshfiles.errors import MeshError
from facegraft.meshfiles.ply import TYPES
from facegraft.store.atomic import write_bytes_atomic
from facegraft.store.remote import AnyPath, place

_PLY_WORDS = {kind: word for word, kind in TYPES.items() if word in ("uchar", "int", "double")}


@dataclass(frozen=True)
class _Written:
    """The content of the file: vertices f64 [n,3], faces [m,3], and optional values per vertex."""

    vertices: Floats
    faces: NDArray[np.int64]
    parts: Bytes | None
    part_names: tuple[str, ...]
    colours: Bytes | None
    template_coords: Floats | None
    vertex_ids: NDArray[np.int32] | None


def write_mesh(
    path: AnyPath,
    vertices: ArrayLike,
    faces: ArrayLike,
    *,
    parts: NDArray[np.uint8] | None = None,
    part_names: Sequence[str] = (),
    colours: NDArray[np.uint8] | None = None,
    template_coords: NDArray[np.float64] | None = None,
    vertex_ids: NDArray[np.int32] | None = None,
) -> None:
    """Write vertices [n,3] and faces [m,3] atomically, in the format of the suffix (table above).

    Optional values per vertex: parts u8 [n] (labels, indices into `part_names`), colours u8 [n,3], template_coords [n,3], vertex_ids i32 [n]
    (of the mesh that the vertices come from).
    Raises MeshError for an unknown suffix, an empty mesh, a wrong shape or dtype, a label without a name, template
    coordinates in an OBJ, ids in anything but a PLY; StoreError when the file cannot be written; MissingPackageError for GLB without trimesh.
    """
    path = place(path)
    writers = {".ply": _ply_bytes, ".glb": _glb_bytes, ".obj": _obj_bytes}
    suffix = path.suffix.lower()
    if suffix not in writers:
        raise MeshError(f"{path}: cannot write {path.suffix or 'a file without suffix'}; take .ply, .glb or .obj")
    v, f = np.asarray(vertices, dtype=np.float64), np.asarray(faces, dtype=np.int64)
    if not len(f):
        raise MeshError(f"{path}: the mesh has no faces, so nothing was written")
    n = len(v)
    for name, values, shape, kind in (
        ("parts", parts, (n,), "u1"),
        ("colours", colours, (n, 3), "u1"),
        ("template_coords", template_coords, (n, 3), "f"),
        ("vertex_ids", vertex_ids, (n,), "i4"),
    ):
        if values is not None and (values.shape != shape or kind not in (values.dtype.kind, values.dtype.str[1:])):
            wanted = {"u1": "u8", "i4": "i32", "f": "float"}[kind]
            raise MeshError(f"{path}: {name} must be {wanted} {list(shape)}, not {values.dtype} {list(values.shape)}")
    if parts is not None and n and int(parts.max()) >= len(part_names):
        raise MeshError(
            f"{path}: part label {parts.max()} has no name; name all labels: {', '.join(part_names) or '-'}"
        )
    if template_coords is not None and suffix == ".obj":
        raise MeshError(
            f"{path}: an OBJ file has no place for template coordinates; write .ply or .glb, or leave them out"
        )
    if vertex_ids is not None and suffix != ".ply":
        raise MeshError(f"{path}: only a PLY file has a place for the ids of vertices; write .ply, or leave them out")
    written = _Written(v, f, parts, tuple(part_names), colours, template_coords, vertex_ids)
    write_bytes_atomic(path, writers[suffix](written))


def _ply_bytes(mesh: _Written) -> bytes:
    columns: dict[str, NDArray[Any]] = dict(zip("xyz", mesh.vertices.T, strict=True))
    comments = []
    if mesh.colours is not None:
        columns |= dict(zip(("red", "green", "blue"), mesh.colours.T, strict=True))
    if mesh.parts is not None:
        columns["part"] = mesh.parts
        comments.append("part: " + ", ".join(f"{label} {name}" for label, name in enumerate(mesh.part_names)))
    if mesh.template_coords is not None:
        columns |= dict(zip(("tx", "ty", "tz"), mesh.template_coords.astype(np.float64).T, strict=True))
        comments.append("tx ty tz: where the model's warp puts the vertex in its template")
    if mesh.vertex_ids is not None:
        columns["vertex_id"] = mesh.vertex_ids
        comments.append("vertex_id: the vertex of the registered topology that it is")
    vertices = np.empty(
        len(mesh.vertices), dtype=[(name, values.dtype.newbyteorder("<")) for name, values in columns.items()]
    )
    for name, values in columns.items():
        vertices[name] = values
    faces = np.empty(len(mesh.faces), dtype=[("n", "u1"), ("corners", "<i4", 3)])
    faces["n"], faces["corners"] = 3, mesh.faces
    header = [
        "ply",
        "format binary_little_endian 1.0",
        *(f"comment {comment}" for comment in comments),
        f"element vertex {len(vertices)}",
        *(f"property {_PLY_WORDS[values.dtype.str[1:]]} {name}" for name, values in columns.items()),
        f"element face {len(faces)}",
        f"property list {_PLY_WORDS['u1']} {_PLY_WORDS['i4']} vertex_indices",
        "end_header\n",
    ]
    return "\n".join(header).encode() + vertices.tobytes() + faces.tobytes()


def _glb_bytes(mesh: _Written) -> bytes:
    attributes: dict[str, NDArray[Any]] = {}
    if mesh.parts is not None:
        attributes["_PART"] = mesh.parts.astype(np.float32)  # bytes would need padding to four
    if mesh.template_coords is not None:
        attributes["_TEMPLATE"] = mesh.template_coords.astype(np.float32)
    scene = lazy_import("trimesh").Trimesh(
        mesh.vertices,
        mesh.faces,
        vertex_colors=mesh.colours,
        vertex_attributes=attributes,
        process=False,
        validate=False,
    )
    return bytes(scene.export(file_type="glb", include_normals=True))


def _obj_bytes(mesh: _Written) -> bytes:
    if mesh.colours is None:
        lines = [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in mesh.vertices.tolist()]
    else:
        rows = np.hstack([mesh.vertices, mesh.colours / 255.0]).tolist()
        lines = [f"v {x:.9g} {y:.9g} {z:.9g} {r:.4g} {g:.4g} {b:.4g}" for x, y, z, r, g, b in rows]
    corners = mesh.faces + 1
    if mesh.parts is None:
        lines += [f"f {i} {j} {k}" for i, j, k in corners.tolist()]
    else:
        label = np.sort(mesh.parts[mesh.faces], axis=1)[:, 1]  # the median of three is the majority, if there is one
        for part in np.unique(label).tolist():
            lines.append(f"g {mesh.part_names[part]}")
            lines += [f"f {i} {j} {k}" for i, j, k in corners[label == part].tolist()]
    return ("\n".join(lines) + "\n").encode()
