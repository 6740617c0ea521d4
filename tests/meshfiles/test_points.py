"""Scans read: point clouds and meshes, against the arrays themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facegraft.meshfiles.errors import MeshError
from facegraft.meshfiles.meshfile import read_mesh
from facegraft.meshfiles.points import read_points


def npy(descr: str, shape: str) -> bytes:
    """An array file with this header and no numbers."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


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
        with pytest.raises(MeshError, match=r"ends too early \(truncated\)"):
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
    table[:, 3:] /= np.linalg.norm(table[:, 3:], axis=1, keepdims=True)
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
        ("a.xyz", b"0 0 0\n1 nan 2\n", r"a\.xyz: line 2: point 1 is not finite \(1 of 2\).*; remove such points"),
        ("a.xyz", b"# nothing\n", "holds no points"),
        ("a.xyz", b"0 0 0\n1 2\n", "line 2: 2 numbers, but 3 in the first line of numbers .*the file is damaged"),
        ("a.xyz", b"0 0 zero\n", "line 1: something that is not a number .*the file is damaged"),
        ("a.xyz", b"0 0\n1 1\n", r"must hold numbers \[n,3\]"),
        ("a.obj", b"v 0 0 0\nv 1 0\n", "line 2: a vertex with 2 coordinates instead of 3 .*truncated"),
        ("a.obj", b"v 0 0 0\nf 1 2 3\n", r"line 2: a face names a vertex that does not exist \(there are 1\)"),
        ("a.obj", b"", "no vertices"),
        ("a.ply", b"solid\n", "not a PLY file"),
        ("a.ply", ASCII[:-12].encode(), r"ends too early \(truncated\)"),
        ("a.npy", b"", "not an array file"),
        (
            "a.obj",
            b"v 0 0 0\nv 1 0 0\nv 0 1 0\nvn 0 0 1\nf 1//1 2//2 3//1\n",
            r"line 5: a face names a normal that does not exist \(there are 1\)",
        ),
        (
            "a.obj",
            b"v 0 0 0\nv 1 0 0\nv 0 1 0\nvn 0 0 1\nf 1//1 2//0 3//1\n",
            "line 5: a face names a normal that does not exist",
        ),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nvn 0 0\nf 1//1 2//1 3//1\n", "line 4: a normal with 2 coordinates"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nvn 0 nan 1\nf 1//1 2//1 3//1\n", "line 4: normal 0 is not finite"),
        (
            "a.obj",
            b"v 0 0 0\nv 1 0 0\nv 0 1 0\nvn 0 0 1\nf 1//x 2//1 3//1\n",
            "line 5: a face corner's normal is not an index",
        ),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2\n", "line 4: a face with 2 corners"),
        ("a.ply", ASCII.replace("3 1 4 2", "2 1 4").encode(), "face 1 has 2 corners"),
        ("a.ply", ASCII.replace("0 0 0 0 0 2", "0 0 0 0 nan 2").encode(), r"normal 0 is not finite \(1 of 5\)"),
        ("a.xyz", "1\u00a02\u00a03\n".encode(), r"line 1: .*it holds the sign U\+00A0 \(no-break space\), where plain blanks"),
        ("a.xyz", "1 2 \u22123\n".encode(), r"it holds the sign U\+2212 \(minus sign\)"),
        ("a.xyz", b'"1","2","3"\n', "there are quotation marks among its numbers: use blanks alone"),
        ("a.xyz", b"[1 2 3]\n", "there are brackets among its numbers"),
        ("a.xyz", b"1|2|3\n", "there are bars among its numbers"),
        ("a.xyz", b"1.0D+01 2 3\n", "its exponents are written D, as Fortran does"),
        ("a.xyz", b"1 2 3\n1_000 2 3\n", "line 2: something that is not a number .*the file is damaged"),
        ("a.xyz", b"// header\n1 2 3\n", "line 1: words, not numbers .*put a # before such lines"),
        ("a.xyz", b"C 1 2 3\nC 4 5 6\n", "line 1: a word before the numbers .*leave out the column of words"),
        ("a.xyz", "1 2 3\n".encode("utf-32"), "UTF-32 text, not an XYZ file"),
        ("a.obj", b"v 0,0,0\nv 1,0,0\nv 0,1,0\nf 1 2 3\n", "line 1: a vertex with 1 coordinates .*commas separate its numbers: use blanks"),
        ("a.obj", b"v 0;0;0\nv 1;0;0\nv 0;1;0\nf 1 2 3\n", "line 1: a vertex with 1 coordinates .*semicolons separate its numbers"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2\n", "line 4: .*its faces count from 0, but an OBJ file counts from 1"),
        ("a.ply", ASCII.replace("3 1 4 2", "3 1 5 2").replace("3 0 ", "3 1 ").replace("4 0 ", "4 1 ").encode(), "its faces count from 1, but a PLY file counts from 0|names vertex 5"),
        ("a.npy", b"\x93NUMPY\x01\x00", "not an array file"),
        ("a.npy", npy("'<f8'", "(1000000000000, 3)"), "ends too early"),
        ("a.npy", npy("'<f8'", "(-1, 3)"), "ends too early"),
        ("a.npy", npy("'|O'", "(1, 3)"), "not Python objects"),
        ("a.npy", npy("'<f8'", "(3,)"), r"must hold numbers \[n,3\]"),
        ("a.npy", npy("'<f8'", "[" * 5000), "not an array file"),
        ("a.npy", npy("'<f8'", "-" * 5000 + "1"), "not an array file"),
        ("a.e57", b"", r"cannot read \.e57"),
    ],
)
def test_read_refusals(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MeshError, match=message):
        read_points(tmp_path / name)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MeshError, match=r"none\.ply: cannot be read"):
        read_points(tmp_path / "none.ply")


SPELLINGS = {
    "plain": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
    "continued": b"v 0 0 0\nv 1 \\\n0 0\nv 0 1 0\nf 1 2 \\\n 3\n",
    "CR alone": b"v 0 0 0\rv 1 0 0\rv 0 1 0\rf 1 2 3",
    "with a byte order mark": b"\xef\xbb\xbfv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
    "with form feeds": b"v 0 0 0\nv 1\x0c0 0\nv 0 1 0\nf 1 2 3\n",
}


@pytest.mark.parametrize("spelling", sorted(SPELLINGS))
def test_a_scan_and_a_head_are_read_alike(tmp_path: Path, spelling: str) -> None:
    path = tmp_path / "a.obj"
    path.write_bytes(SPELLINGS[spelling])
    scan, head = read_points(path), read_mesh(path)
    assert scan.points.tolist() == head.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert scan.faces is not None and scan.faces.tolist() == head.polygons[:, :3].tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("suffix", [".obj", ".xyz", ".ply"])
def test_utf_16_is_refused_in_one_line(tmp_path: Path, encoding: str, suffix: str) -> None:
    text = {".obj": SPELLINGS["plain"].decode(), ".xyz": "0 0 0\n1 0 0\n", ".ply": ASCII}[suffix]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(text.encode(encoding))
    for read in (read_points, read_mesh) if suffix != ".xyz" else (read_points,):
        with pytest.raises(MeshError, match="not a PLY file" if suffix == ".ply" else "UTF-16") as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_faces_of_many_corners_are_fans_in_a_scan_and_refused_in_a_head(tmp_path: Path) -> None:
    corners = [(0, 0), (2, 0), (3, 1), (2, 2), (0, 2), (5, 5)]
    obj = "".join(f"v {x} {y} 0\n" for x, y in corners) + "f 1 2 6\nf 1 2 3 4 5\nf 2 3 4 6\n"
    ply = "ply\nformat ascii 1.0\nelement vertex 6\nproperty float x\nproperty float y\nproperty float z\nelement face 3\n"
    ply += "property list uchar int vertex_indices\nend_header\n" + "".join(f"{x} {y} 0\n" for x, y in corners)
    ply += "3 0 1 5\n5 0 1 2 3 4\n4 1 2 3 5\n"
    for name, text in (("a.obj", obj), ("a.ply", ply)):
        (tmp_path / name).write_text(text)
        scan = read_points(tmp_path / name)
        assert scan.faces is not None
        assert scan.faces.tolist() == [[0, 1, 5], [0, 1, 2], [0, 2, 3], [0, 3, 4], [1, 2, 3], [1, 3, 5]]
        with pytest.raises(MeshError, match=r"5 corners.*triangulate the mesh on export"):
            read_mesh(tmp_path / name)


def test_point_clouds_are_no_heads(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nvn 0 0 2\nvn 0 3 0\n")
    scan = read_points(tmp_path / "a.obj")
    assert scan.faces is None and scan.normals is not None and scan.normals.tolist() == [[0, 0, 1], [0, 1, 0]]
    with pytest.raises(MeshError, match="no faces"):
        read_mesh(tmp_path / "a.obj")
    (tmp_path / "a.ply").write_text(ASCII[: ASCII.index("element face")] + "end_header\n" + "0 0 0 0 0 1\n" * 5)
    assert read_points(tmp_path / "a.ply").faces is None
    with pytest.raises(MeshError, match="no faces"):
        read_mesh(tmp_path / "a.ply")


def test_arrays_in_either_order(tmp_path: Path) -> None:
    table = np.random.default_rng(1).normal(size=(7, 3))
    for order in ("C", "F"):
        np.save(tmp_path / "a.npy", np.asarray(table, order=order))
        assert np.array_equal(read_points(tmp_path / "a.npy").points, table)


def test_mixed_lists_in_every_face_of_a_binary_file(tmp_path: Path) -> None:
    """A texture list beside the corners, all rows alike (read at once) or not (row by row): the same faces."""
    head = (
        "ply\nformat binary_little_endian 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
    )
    head += "element face 2\nproperty list uchar int vertex_index\nproperty list uchar float texcoord\nproperty uchar flag\nend_header\n"
    points = np.arange(12, dtype="<f4").tobytes()
    for lengths in ((6, 6), (6, 0)):
        rows = b"".join(
            b"\x03" + np.array(f, "<i4").tobytes() + bytes([n]) + np.ones(n, "<f4").tobytes() + b"\x07"
            for f, n in zip(([0, 1, 2], [1, 3, 2]), lengths, strict=True)
        )
        (tmp_path / "a.ply").write_bytes(head.encode() + points + rows)
        faces = read_points(tmp_path / "a.ply").faces
        assert faces is not None and faces.tolist() == [[0, 1, 2], [1, 3, 2]]
