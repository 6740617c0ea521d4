"""Meshes written and scans read, against trimesh and against the arrays themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from facegraft_model.decoding.extract import Mesh
from facegraft_model.errors import ModelError
from facegraft_model.meshes.meshio import read_points, write_mesh

MESH = Mesh(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.25], [1, 1, 1 / 3]]), np.array([[0, 1, 2], [2, 1, 3]]))
PARTS = np.array([0, 1, 1, 3], np.uint8)
COLOURS = np.array([[255, 0, 0], [0, 128, 0], [0, 0, 255], [9, 9, 9]], np.uint8)
TEMPLATE = MESH.vertices / 7 + 0.1


def test_ply_holds_everything(tmp_path: Path) -> None:
    path = tmp_path / "new" / "head.ply"
    write_mesh(path, MESH, PARTS, COLOURS, TEMPLATE)
    loaded = trimesh.load(path, process=False)
    assert np.array_equal(loaded.vertices, MESH.vertices)
    assert np.array_equal(loaded.faces, MESH.faces)
    assert np.array_equal(loaded.visual.vertex_colors[:, :3], COLOURS)
    raw = loaded.metadata["_ply_raw"]["vertex"]["data"]
    assert raw.dtype["part"] == np.uint8
    assert np.array_equal(raw["part"].ravel(), PARTS)
    assert np.array_equal(np.column_stack([raw[axis].ravel() for axis in ("tx", "ty", "tz")]), TEMPLATE)
    again = read_points(path)
    assert np.array_equal(again.points, MESH.vertices)
    assert again.faces is not None and np.array_equal(again.faces, MESH.faces)
    assert again.normals is None


def test_glb_carries_attributes(tmp_path: Path) -> None:
    path = tmp_path / "head.glb"
    write_mesh(path, MESH, PARTS, COLOURS, TEMPLATE)
    loaded = trimesh.load(path, process=False, force="mesh")
    assert np.allclose(loaded.vertices, MESH.vertices, atol=1e-7)
    assert np.array_equal(loaded.faces, MESH.faces)
    assert np.array_equal(loaded.visual.vertex_colors[:, :3], COLOURS)
    assert np.array_equal(loaded.vertex_attributes["_PART"].ravel(), PARTS)
    assert np.allclose(loaded.vertex_attributes["_TEMPLATE"], TEMPLATE, atol=1e-7)


def test_obj_groups_faces_by_part(tmp_path: Path) -> None:
    path = tmp_path / "head.obj"
    write_mesh(path, MESH, PARTS, COLOURS)
    assert [line for line in path.read_text().splitlines() if line[0] in "gf"] == ["g nose", "f 1 2 3", "f 3 2 4"]
    again = read_points(path)
    assert np.allclose(again.points, MESH.vertices, atol=1e-9)
    assert again.faces is not None and np.array_equal(again.faces, MESH.faces)
    with pytest.raises(ModelError, match="no place for template coordinates"):
        write_mesh(path, MESH, template_coords=TEMPLATE)


def test_write_refusals(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot write \.stl"):
        write_mesh(tmp_path / "head.stl", MESH)
    with pytest.raises(ModelError, match="no faces"):
        write_mesh(tmp_path / "head.ply", Mesh(MESH.vertices, np.empty((0, 3), np.int64)))
    with pytest.raises(ModelError, match=r"parts must be u8 \[4\]"):
        write_mesh(tmp_path / "head.ply", MESH, parts=PARTS[:3])
    with pytest.raises(ModelError, match=r"colours must be u8 \[4, 3\], not float64"):
        write_mesh(tmp_path / "head.ply", MESH, colours=COLOURS / 255)
    assert list(tmp_path.iterdir()) == []


ASCII = """ply
format ascii 1.0
comment a quad and a triangle
element vertex 5
property float x
property float y
property float z
property float nx
property float ny
property float nz
element face 2
property list uchar int vertex_index
end_header
0 0 0 0 0 2
1 0 0 0 0 1
1 1 0 0 1 0
0 1 0 0 0 0
2 0 0 1 0 0
4 0 1 2 3
3 1 4 2
"""


def test_ascii_ply_with_normals_and_mixed_polygons(tmp_path: Path) -> None:
    path = tmp_path / "scan.ply"
    path.write_text(ASCII)
    scan = read_points(path)
    assert scan.points.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [2, 0, 0]]
    assert scan.normals is not None
    assert scan.normals.tolist() == [[0, 0, 1], [0, 0, 1], [0, 1, 0], [0, 0, 0], [1, 0, 0]]
    assert scan.faces is not None
    assert sorted(scan.faces.tolist()) == [[0, 1, 2], [0, 2, 3], [1, 4, 2]]


@pytest.mark.parametrize("order", ["<", ">"])
def test_binary_ply_point_cloud_and_mixed_polygons(tmp_path: Path, order: str) -> None:
    name = {"<": "little", ">": "big"}[order]
    points = np.arange(12).reshape(4, 3) / 8
    head = f"ply\nformat binary_{name}_endian 1.0\nelement vertex 4\nproperty float x\nproperty double y\nproperty float z\n"
    table = np.empty(4, dtype=[("x", order + "f4"), ("y", order + "f8"), ("z", order + "f4")])
    table["x"], table["y"], table["z"] = points.T
    cloud, mixed = tmp_path / "cloud.ply", tmp_path / "mixed.ply"
    cloud.write_bytes((head + "end_header\n").encode() + table.tobytes())
    assert np.array_equal(read_points(cloud).points, points)
    assert read_points(cloud).faces is None
    body = b"".join(bytes([len(f)]) + np.array(f, dtype=order + "i4").tobytes() for f in ([0, 1, 2, 3], [0, 1, 2]))
    element = "element face 2\nproperty list uchar int vertex_indices\nend_header\n"
    mixed.write_bytes((head + element).encode() + table.tobytes() + body)
    faces = read_points(mixed).faces
    assert faces is not None and sorted(faces.tolist()) == [[0, 1, 2], [0, 1, 2], [0, 2, 3]]
    for cut in (3, 20):
        mixed.write_bytes((head + element).encode() + (table.tobytes() + body)[:-cut])
        with pytest.raises(ModelError, match="damaged or cut off"):
            read_points(mixed)


def test_obj_normals_follow_the_faces(tmp_path: Path) -> None:
    path = tmp_path / "scan.obj"
    path.write_text("v 0 0 0\nv 1 0 0 # x\nv 0 1 0\nvn 0 0 1\nvn 0 2 0\nf 1/9/1 2//1 -1//2\n")
    scan = read_points(path)
    assert scan.faces is not None and scan.faces.tolist() == [[0, 1, 2]]
    assert scan.normals is not None and scan.normals.tolist() == [[0, 0, 1], [0, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize("columns", [3, 6])
def test_text_and_array_clouds(tmp_path: Path, columns: int) -> None:
    table = np.random.default_rng(0).normal(size=(9, columns))
    np.savetxt(tmp_path / "a.xyz", table, fmt="%.17g", delimiter=", ", header="scan")
    np.save(tmp_path / "a.npy", table.astype(np.float32))
    for name, error in (("a.xyz", 0.0), ("a.npy", 1e-6)):
        scan = read_points(tmp_path / name)
        assert np.abs(scan.points - table[:, :3]).max() <= error
        assert (scan.normals is None) == (columns == 3)
        if scan.normals is not None:
            assert np.allclose(
                scan.normals, table[:, 3:] / np.linalg.norm(table[:, 3:], axis=1, keepdims=True), atol=1e-6
            )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xyz", b"0 0 0\n1 nan 2\n", r"a\.xyz: point 1 is not finite \(1 of 2\)"),
        ("a.xyz", b"# nothing\n", "holds no points"),
        ("a.xyz", b"0 0 0\n1 2\n", "line 2 has 2 numbers, the first 3"),
        ("a.xyz", b"0 0 zero\n", "not a number"),
        ("a.xyz", b"0 0\n1 1\n", r"must hold numbers \[n,3\]"),
        ("a.obj", b"v 0 0 0\nv 1 0\n", "line 2 is not understood"),
        ("a.obj", b"v 0 0 0\nf 1 2 3\n", "a face names point 2, but the file has 1"),
        ("a.obj", b"", "holds no points"),
        ("a.ply", b"solid\n", "not a PLY file"),
        ("a.ply", ASCII[:-12].encode(), "damaged or cut off"),
        ("a.npy", b"", "not an array file"),
        ("a.e57", b"", r"cannot read \.e57"),
    ],
)
def test_read_refusals(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_points(tmp_path / name)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.ply: cannot be read"):
        read_points(tmp_path / "none.ply")
