"""Meshes out to PLY, GLB and OBJ; point clouds and meshes in from PLY, OBJ, XYZ and NPY, their points in file order.

| written | positions, faces | colours | parts | template coordinates |
|---|---|---|---|---|
| .ply (binary) | f64, i32 | red, green, blue | part (uchar) | tx, ty, tz (f64) |
| .glb | f32, u32 | COLOR_0 | _PART | _TEMPLATE (f32) |
| .obj | 9 digits | after the position | face groups, named | refused |

Formats: G. Turk, "The PLY Polygon File Format", 1994; Wavefront OBJ, Advanced Visualizer manual, appendix B1; glTF 2.0.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegraft.store import write_bytes_atomic
from facegraft_model.config import PART_NAMES
from facegraft_model.decoding.extract import Mesh
from facegraft_model.errors import ModelError
from facegraft_model.lazily import lazy_import

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]
_PLY_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_PLY_WORDS = {"f8": "double", "u1": "uchar"}


@dataclass(frozen=True, eq=False)
class PointCloud:
    """A scan in the unit of its file, points in file order.

    points f64 [n,3]; normals f64 [n,3], each of length 1, or 0 where the file has none for that point, or None; faces
    i64 [m,3] (polygons cut into fans) or None.
    """

    points: NDArray[np.float64]
    normals: NDArray[np.float64] | None = None
    faces: NDArray[np.int64] | None = None


def write_mesh(
    path: str | os.PathLike[str],
    mesh: Mesh,
    parts: NDArray[np.uint8] | None = None,
    colours: NDArray[np.uint8] | None = None,
    template_coords: NDArray[np.float64] | None = None,
) -> None:
    """Write a mesh wholly or not at all, in the format that the suffix names (table above).

    parts u8 [n], colours u8 [n,3], template_coords [n,3] belong to the vertices. Raises ModelError for an unknown suffix,
    an empty mesh, a wrong shape or dtype, template coordinates in an OBJ; StoreError when the file cannot be written.
    """
    path = Path(path)
    writers = {".ply": _ply_bytes, ".glb": _glb_bytes, ".obj": _obj_bytes}
    if path.suffix.lower() not in writers:
        raise ModelError(f"{path}: cannot write {path.suffix or 'a file without suffix'}; take .ply, .glb or .obj")
    if not len(mesh.faces):
        raise ModelError(f"{path}: the mesh has no faces, so nothing was written")
    n = len(mesh.vertices)
    for name, values, shape, kind in (
        ("parts", parts, (n,), "u1"),
        ("colours", colours, (n, 3), "u1"),
        ("template_coords", template_coords, (n, 3), "f"),
    ):
        if values is not None and (values.shape != shape or kind not in (values.dtype.kind, values.dtype.str[1:])):
            raise ModelError(
                f"{path}: {name} must be {'u8' if kind == 'u1' else 'float'} {list(shape)}, not {values.dtype} {list(values.shape)}"
            )
    if template_coords is not None and path.suffix.lower() == ".obj":
        raise ModelError(
            f"{path}: an OBJ file has no place for template coordinates; write .ply or .glb, or leave them out"
        )
    write_bytes_atomic(path, writers[path.suffix.lower()](mesh, parts, colours, template_coords))


_Bytes = NDArray[np.uint8]


def _ply_bytes(mesh: Mesh, parts: _Bytes | None, colours: _Bytes | None, template_coords: _Floats | None) -> bytes:
    columns: dict[str, NDArray[Any]] = dict(zip("xyz", mesh.vertices.T, strict=True))
    if colours is not None:
        columns |= dict(zip(("red", "green", "blue"), colours.T, strict=True))
    if parts is not None:
        columns["part"] = parts
    if template_coords is not None:
        columns |= dict(zip(("tx", "ty", "tz"), template_coords.astype(np.float64).T, strict=True))
    vertices = np.empty(
        len(mesh.vertices), dtype=[(name, values.dtype.newbyteorder("<")) for name, values in columns.items()]
    )
    for name, values in columns.items():
        vertices[name] = values
    faces = np.empty(len(mesh.faces), dtype=[("n", "u1"), ("corners", "<i4", 3)])
    faces["n"], faces["corners"] = 3, mesh.faces
    names = ", ".join(f"{label} {name}" for label, name in enumerate(PART_NAMES))
    header = [
        "ply",
        "format binary_little_endian 1.0",
        *([f"comment part: {names}"] if parts is not None else []),
        *(
            ["comment tx ty tz: where the model's warp puts the vertex in its template"]
            if template_coords is not None
            else []
        ),
        f"element vertex {len(vertices)}",
        *(f"property {_PLY_WORDS[values.dtype.str[1:]]} {name}" for name, values in columns.items()),
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    return "\n".join(header).encode() + vertices.tobytes() + faces.tobytes()


def _glb_bytes(mesh: Mesh, parts: _Bytes | None, colours: _Bytes | None, template_coords: _Floats | None) -> bytes:
    attributes: dict[str, NDArray[Any]] = {}
    if parts is not None:
        attributes["_PART"] = parts.astype(np.float32)  # bytes would need padding to four
    if template_coords is not None:
        attributes["_TEMPLATE"] = template_coords.astype(np.float32)
    scene = lazy_import("trimesh").Trimesh(
        mesh.vertices, mesh.faces, vertex_colors=colours, vertex_attributes=attributes, process=False, validate=False
    )
    return bytes(scene.export(file_type="glb", include_normals=True))


def _obj_bytes(mesh: Mesh, parts: _Bytes | None, colours: _Bytes | None, _template_coords: _Floats | None) -> bytes:
    if colours is None:
        lines = [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in mesh.vertices.tolist()]
    else:
        rows = np.hstack([mesh.vertices, colours / 255.0]).tolist()
        lines = [f"v {x:.9g} {y:.9g} {z:.9g} {r:.4g} {g:.4g} {b:.4g}" for x, y, z, r, g, b in rows]
    corners = mesh.faces + 1
    if parts is None:
        lines += [f"f {i} {j} {k}" for i, j, k in corners.tolist()]
    else:
        label = np.sort(parts[mesh.faces], axis=1)[:, 1]  # the middle of three is the majority where there is one
        for part in np.unique(label).tolist():
            lines.append(f"g {PART_NAMES[part] if part < len(PART_NAMES) else f'part{part}'}")
            lines += [f"f {i} {j} {k}" for i, j, k in corners[label == part].tolist()]
    return ("\n".join(lines) + "\n").encode()


def read_points(path: str | os.PathLike[str]) -> PointCloud:
    """Read a scan: a point cloud or a mesh, by suffix.

    .ply (ASCII, binary): x, y, z, perhaps nx, ny, nz and faces. .obj: v, f, vn (averaged over a vertex's corners; without
    faces, one a vertex). .xyz: text, 3 or 6 numbers a line (point, normal), blanks or commas, # comments. .npy: array
    [n,3] or [n,6]. Points keep their order. Raises ModelError for an unknown suffix, a file that is missing, empty or
    damaged, a number that is not finite, or a face that names a missing point.
    """
    path = Path(path)
    readers = {".ply": _read_ply, ".obj": _read_obj, ".xyz": _read_xyz, ".npy": _read_npy}
    if path.suffix.lower() not in readers:
        raise ModelError(f"{path}: cannot read {path.suffix or 'a file without suffix'}; take .ply, .obj, .xyz or .npy")
    try:
        points, normals, faces = readers[path.suffix.lower()](path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not len(points):
        raise ModelError(f"{path}: holds no points")
    for what, values in (("point", points), ("normal", normals)):
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1)) if values is not None else np.empty(0, np.int64)
        if len(bad):
            raise ModelError(
                f"{path}: {what} {bad[0]} is not finite ({len(bad)} of {len(points)}); remove such points first"
            )
    if faces is not None and len(faces) and (faces.min() < 0 or faces.max() >= len(points)):
        wrong = faces.min() if faces.min() < 0 else faces.max()
        raise ModelError(f"{path}: a face names point {wrong}, but the file has {len(points)}; the file is damaged")
    if normals is not None:
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        normals = normals / np.where(length > 0, length, 1.0) if length.any() else None
    return PointCloud(points, normals, faces if faces is not None and len(faces) else None)


_Parts = tuple[_Floats, _Floats | None, _Ints | None]


def _from_table(path: Path, table: NDArray[Any]) -> _Parts:
    if table.ndim != 2 or table.shape[1] not in (3, 6) or table.dtype.kind not in "fiu":
        raise ModelError(
            f"{path}: must hold numbers [n,3] (points) or [n,6] (points and normals), not {table.dtype} {list(table.shape)}"
        )
    table = table.astype(np.float64)
    return table[:, :3].copy(), table[:, 3:].copy() if table.shape[1] == 6 else None, None


def _read_npy(path: Path) -> _Parts:
    try:
        return _from_table(path, np.load(path, allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise ModelError(f"{path}: not an array file of plain numbers ({error}); save it with numpy.save") from error


def _read_xyz(path: Path) -> _Parts:
    rows = [line.split("#")[0].replace(",", " ").split() for line in path.read_text("utf-8", "replace").splitlines()]
    filled = [(number, row) for number, row in enumerate(rows, 1) if row]
    width = len(filled[0][1]) if filled else 3
    for number, row in filled:
        if len(row) != width:
            raise ModelError(f"{path}: line {number} has {len(row)} numbers, the first {width}; the file is damaged")
    try:
        table = np.array([row for _, row in filled], dtype=np.float64).reshape(-1, width)
    except ValueError as error:
        raise ModelError(f"{path}: holds something that is not a number ({error})") from error
    return _from_table(path, table)


def _read_obj(path: Path) -> _Parts:
    vertices: list[list[float]] = []
    normals: list[list[float]] = []
    faces: list[tuple[int, int, int]] = []
    pairs: list[tuple[int, int]] = []  # vertex, normal
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        words = line.split("#")[0].split()
        try:
            match words[:1]:
                case ["v"]:
                    vertices.append([float(words[1]), float(words[2]), float(words[3])])
                case ["vn"]:
                    normals.append([float(words[1]), float(words[2]), float(words[3])])
                case ["f"]:
                    corners = [_obj_corner(word, len(vertices), len(normals)) for word in words[1:]]
                    faces += [(corners[0][0], a[0], b[0]) for a, b in itertools.pairwise(corners[1:])]
                    pairs += [(v, n) for v, n in corners if n is not None]
        except (ValueError, IndexError) as error:
            raise ModelError(
                f"{path}: line {number} is not understood ({line.strip()[:60]!r}); the file is damaged or cut off"
            ) from error
    points = np.array(vertices, dtype=np.float64).reshape(-1, 3)
    directions = np.array(normals, dtype=np.float64).reshape(-1, 3)
    per_point = None
    if pairs:
        vertex, normal = np.array(pairs, dtype=np.int64).T
        if vertex.min() < 0 or vertex.max() >= len(points) or normal.min() < 0 or normal.max() >= len(directions):
            raise ModelError(
                f"{path}: a face names a vertex or normal that the file does not hold; the file is damaged"
            )
        per_point = np.zeros_like(points)
        np.add.at(per_point, vertex, directions[normal])
    elif not faces and len(directions) == len(points):
        per_point = directions
    return points, per_point, np.array(faces, dtype=np.int64).reshape(-1, 3)


def _obj_corner(word: str, vertices: int, normals: int) -> tuple[int, int | None]:
    """Vertex and normal, from 0, of a corner `v`, `v/t`, `v//n` or `v/t/n`; negative numbers count back from the last."""
    fields = word.split("/")
    v = int(fields[0])
    n = int(fields[2]) if len(fields) > 2 and fields[2] else None
    if v == 0 or n == 0:
        raise ValueError(word)
    return v - 1 if v > 0 else vertices + v, n if n is None else n - 1 if n > 0 else normals + n


def _read_ply(path: Path) -> _Parts:
    data = path.read_bytes()
    encoding, elements, body = _ply_header(path, data)
    table: dict[str, NDArray[Any]] = {}
    faces = None
    numbers = iter(body.split()) if encoding == "ascii" else None
    at = 0
    try:
        for name, count, properties in elements:
            if numbers is not None:
                columns, lists = _ply_text(numbers, count, properties)
            else:
                columns, lists, at = _ply_binary(body, at, encoding, count, properties)
            if name == "vertex":
                table = columns
            if name == "face":
                polygons = lists.get("vertex_indices", lists.get("vertex_index", []))
                faces = _fans(polygons)
    except (StopIteration, IndexError, ValueError) as error:
        raise ModelError(f"{path}: the PLY body is damaged or cut off; copy or export it again") from error
    if not {"x", "y", "z"} <= table.keys():
        raise ModelError(f"{path}: the PLY file has no vertices with x, y and z")
    points = np.column_stack([table[axis] for axis in "xyz"]).astype(np.float64)
    has_normals = {"nx", "ny", "nz"} <= table.keys()
    normals = np.column_stack([table[axis] for axis in ("nx", "ny", "nz")]).astype(np.float64) if has_normals else None
    return points, normals, faces


_Properties = list[tuple[str, str, str | None]]  # name, type, type of the count where it is a list


def _ply_header(path: Path, data: bytes) -> tuple[str, list[tuple[str, int, _Properties]], bytes]:
    """Encoding (ascii, < or >), elements (name, count, properties) and the body."""
    end = data.find(b"end_header")
    newline = data.find(b"\n", end)
    if not data.startswith(b"ply") or end < 0 or newline < 0:
        raise ModelError(f"{path}: not a PLY file, or one whose header is cut off")
    encoding = ""
    elements: list[tuple[str, int, _Properties]] = []
    for line in data[:end].decode("ascii", "replace").splitlines()[1:]:
        try:
            match line.split():
                case [] | ["comment" | "obj_info", *_]:
                    pass
                case ["format", name, *_]:
                    encoding = {"ascii": "ascii", "binary_little_endian": "<", "binary_big_endian": ">"}[name]
                case ["element", name, count]:
                    elements.append((name, int(count), []))
                case ["property", "list", count_type, kind, name]:
                    elements[-1][2].append((name, _PLY_TYPES[kind], _PLY_TYPES[count_type]))
                case ["property", kind, name]:
                    elements[-1][2].append((name, _PLY_TYPES[kind], None))
                case _:
                    raise ValueError(line)
        except (KeyError, IndexError, ValueError) as error:
            raise ModelError(f"{path}: PLY header line not understood: {line.strip()!r}") from error
    if not encoding:
        raise ModelError(f"{path}: the PLY header names no format")
    return encoding, elements, data[newline + 1 :]


_Columns = dict[str, NDArray[Any]]
_Lists = dict[str, Any]  # name -> rows: an array [count, k] where all have k entries, else a list of arrays


def _ply_text(numbers: Any, count: int, properties: _Properties) -> tuple[_Columns, _Lists]:
    if not any(count_type for _, _, count_type in properties):
        table = np.array(list(itertools.islice(numbers, count * len(properties))), dtype=np.float64)
        return dict(zip((name for name, _, _ in properties), table.reshape(count, len(properties)).T, strict=True)), {}
    rows: dict[str, list[Any]] = {name: [] for name, _, _ in properties}
    for _ in range(count):
        for name, _, count_type in properties:
            if count_type is None:
                rows[name].append(float(next(numbers)))
            else:
                rows[name].append(np.array([int(next(numbers)) for _ in range(int(next(numbers)))], dtype=np.int64))
    lists = {name for name, _, count_type in properties if count_type is not None}
    return {n: np.array(v) for n, v in rows.items() if n not in lists}, {n: v for n, v in rows.items() if n in lists}


def _ply_binary(body: bytes, at: int, order: str, count: int, properties: _Properties) -> tuple[_Columns, _Lists, int]:
    """One structured read, lists taken to be as long as in the first row; row by row where they are not."""
    if not count:
        return {name: np.empty(0) for name, _, _ in properties}, {}, at
    layout: list[Any] = []
    lengths: dict[str, int] = {}
    first = at
    for name, kind, count_type in properties:
        if count_type is not None:
            lengths[name] = int(np.frombuffer(body, order + count_type, 1, first)[0])
            layout.append((f"count of {name}", order + count_type))
            first += np.dtype(count_type).itemsize
        layout.append((name, order + kind, (lengths[name],)) if count_type is not None else (name, order + kind))
        first += np.dtype(kind).itemsize * lengths.get(name, 1)
    dtype = np.dtype(layout)
    if at + count * dtype.itemsize <= len(body):
        table = np.frombuffer(body, dtype, count, at)
        if all((table[f"count of {name}"] == length).all() for name, length in lengths.items()):
            columns = {name: table[name] for name, _, count_type in properties if count_type is None}
            return columns, {name: table[name] for name in lengths}, at + count * dtype.itemsize
    if not lengths:
        raise ValueError("cut off")
    rows: dict[str, list[Any]] = {name: [] for name, _, _ in properties}
    for _ in range(count):
        for name, kind, count_type in properties:
            n = 1
            if count_type is not None:
                n = int(np.frombuffer(body, order + count_type, 1, at)[0])
                at += np.dtype(count_type).itemsize
            rows[name].append(np.frombuffer(body, order + kind, n, at))
            at += n * np.dtype(kind).itemsize
    return (
        {n: np.concatenate(v) for n, v in rows.items() if n not in lengths},
        {n: v for n, v in rows.items() if n in lengths},
        at,
    )


def _fans(polygons: Any) -> _Ints:
    """Triangles [m,3] of polygons (array [count,k] or a list of arrays), each cut into a fan about its first corner."""
    if not len(polygons):
        return np.empty((0, 3), dtype=np.int64)
    by_size: dict[int, list[int]] = {}
    for i, polygon in enumerate(polygons) if not isinstance(polygons, np.ndarray) else ():
        by_size.setdefault(len(polygon), []).append(i)
    groups = (
        [polygons]
        if isinstance(polygons, np.ndarray)
        else [np.stack([polygons[i] for i in g]) for g in by_size.values()]
    )
    fans = [
        np.stack([group[:, 0], group[:, k], group[:, k + 1]], axis=1)
        for group in groups
        for k in range(1, group.shape[1] - 1)
    ]
    return np.concatenate(fans).astype(np.int64) if fans else np.empty((0, 3), dtype=np.int64)
