"""Files as other programs write them: each is read as it is meant, or refused by the name of what is ambiguous."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facegraft.meshfiles import MeshError, read_mesh, read_points

POINTS = np.random.default_rng(0).normal(scale=60.0, size=(300, 3)).round(3)
DIRECTIONS = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)
COLOURS = np.random.default_rng(1).integers(0, 256, size=(300, 3))
FACES = np.array([[0, 1, 2], [1, 2, 3], [2, 3, 4]])


def text(table: np.ndarray, separator: str = " ", decimal: str = ".") -> str:
    return "".join(separator.join(f"{x:.3f}" for x in row).replace(".", decimal) + "\n" for row in table)


def ply(body: bytes, header: str = "", eol: str = "\n", encoding: str = "ascii", names: str = "xyz", faces: str = "vertex_indices") -> bytes:
    lines = ["ply", f"format {encoding} 1.0", *header.splitlines(), f"element vertex {len(POINTS)}", *(f"property float {name}" for name in names)]
    if faces:
        lines += [f"element face {len(FACES)}", f"property list uchar int {faces}"]
    return eol.join([*lines, "end_header", ""]).encode() + body


ROWS = text(POINTS).encode()
FACE_ROWS = b"".join(b"3 %d %d %d\n" % tuple(face) for face in FACES)
OBJ = "".join(f"v {x:.3f} {y:.3f} {z:.3f}\n" for x, y, z in POINTS) + "".join(f"f {a + 1} {b + 1} {c + 1}\n" for a, b, c in FACES)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cr.ply", ply(ROWS + FACE_ROWS, eol="\r").replace(b"\n", b"\r")),
        ("crlf.ply", ply(ROWS + FACE_ROWS, eol="\r\n")),
        ("mark.ply", b"\xef\xbb\xbf" + ply(ROWS + FACE_ROWS)),
        ("comment.ply", ply(ROWS + FACE_ROWS, header="comment end_header follows\nobj_info made by hand")),
        ("mark.obj", OBJ.encode("utf-8-sig")),
        ("continued.obj", OBJ.replace("f 1 2 3", "f 1 \\\n 2 3").encode()),
        ("title.obj", ("o t\xeate\nmtllib caf\xe9.mtl\n" + OBJ).encode("latin-1")),
    ],
)
def test_heads_and_scans_are_read_alike(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    head, scan = read_mesh(path), read_points(path)
    assert np.array_equal(head.vertices, POINTS) and np.array_equal(scan.points, POINTS)
    assert np.array_equal(head.polygons[:, :3], FACES) and scan.faces is not None and np.array_equal(scan.faces, FACES)


@pytest.mark.parametrize("first", [b"\n", b"\r", b" "])
def test_the_body_of_a_ply_starts_after_its_own_line_end(tmp_path: Path, first: bytes) -> None:
    """The first byte of binary numbers may be that of a line end."""
    points = np.frombuffer(first + POINTS.astype("<f4").tobytes()[1:], "<f4").reshape(-1, 3)
    path = tmp_path / "a.ply"
    for eol in ("\r", "\n", "\r\n"):
        path.write_bytes(ply(points.tobytes(), eol=eol, encoding="binary_little_endian", faces=""))
        assert np.array_equal(read_points(path).points, points), repr(eol)


@pytest.mark.parametrize("separator", [",", ", ", " , ", "\t", "   "])
def test_columns_of_text(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "a.xyz"
    path.write_text("\ufeff# x y z\n" + text(np.hstack([POINTS, DIRECTIONS]), separator) + "\n")
    scan = read_points(path)
    assert np.array_equal(scan.points, POINTS) and scan.normals is not None and np.abs(scan.normals - DIRECTIONS).max() < 2e-3
    path.write_text(text(POINTS, separator))
    assert np.array_equal(read_points(path).points, POINTS)


def test_points_without_a_normal_among_others(tmp_path: Path) -> None:
    table = np.hstack([POINTS, DIRECTIONS])
    table[::3, 3:] = 0.0
    np.save(tmp_path / "a.npy", table)
    normals = read_points(tmp_path / "a.npy").normals
    assert normals is not None and not normals[::3].any() and np.allclose(normals[1::3], DIRECTIONS[1::3])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (COLOURS, "columns 4 to 6 must be normals of length 1, but they lie between 0 and 255, as colours do; leave these columns out"),
        (COLOURS / 255.0, "they lie between 0 and 1, as colours do"),
        (np.tile([1.0, 0.0, 0.0], (300, 1)), "they lie between 0 and 1, as colours do"),
        (np.tile([200.0, 180.0, 160.0], (300, 1)), "they lie between 160 and 200, as colours do"),
        (COLOURS / 127.5 - 1.0, r"that of point 0 has length .* another length than 1"),
        (DIRECTIONS * 2.0, r"that of point 0 has length 2[.0-9]* \(300 of 300 have another length than 1\)"),
    ],
)
def test_columns_that_are_no_normals(tmp_path: Path, columns: np.ndarray, message: str) -> None:
    table = np.hstack([POINTS, columns])
    (tmp_path / "a.xyz").write_text(text(table))
    np.save(tmp_path / "a.npy", table)
    for name in ("a.xyz", "a.npy"):
        with pytest.raises(MeshError, match=message):
            read_points(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xyz", text(POINTS, " ", ","), "line 1: both commas and blanks stand between numbers .* write points"),
        ("a.xyz", text(POINTS, "\t", ","), "line 1: both commas and blanks stand between numbers .* write points"),
        ("a.xyz", text(POINTS, ", ", ","), "line 1: both commas and blanks stand between numbers .* write points"),
        ("a.xyz", text(POINTS, ",", ","), "must be normals of length 1.* if the commas are decimal ones, write points"),
        ("a.xyz", text(POINTS, ";", ","), "line 1: .*semicolons separate its numbers: use blanks"),
        ("a.xyz", text(POINTS, ";"), "line 1: .*semicolons separate its numbers: use blanks"),
        ("a.xyz", "1,,2,3\n4,,5,6\n", "line 1: nothing between two commas, or before one"),
        ("a.xyz", "1,2,3\n,4,5,6\n", "line 2: nothing between two commas, or before one"),
        ("a.xyz", "x y z\n" + text(POINTS), "line 1: names of columns, not numbers .* put a # before them"),
        ("a.xyz", "//X,Y,Z\n" + text(POINTS, ","), "line 1: names of columns, not numbers"),
        ("a.xyz", "300\n" + text(POINTS), "line 1: one number alone, the count of points"),
        ("a.obj", OBJ.replace(".", ","), "line 1: a vertex coordinate is not a number .*decimal commas: write points"),
        ("a.obj", OBJ.replace("v ", "V "), "line 1: looks like a vertex or a face"),
        ("a.obj", OBJ.replace("f 1", "F 1"), "line 301: looks like a vertex or a face"),
        ("a.obj", OBJ.replace("v ", "v\u00a0"), "line 1: looks like a vertex or a face"),
        ("a.obj", "# a\n\ufeff" + OBJ, "line 2: looks like a vertex or a face"),
        ("a.obj", OBJ.replace("v ", "\fv ", 1), "line 1: looks like a vertex or a face"),
        ("a.ply", ply(text(POINTS, " ", ",").encode() + FACE_ROWS), "not a number .*decimal commas: write points"),
        ("a.ply", ply(ROWS + FACE_ROWS, faces="corners"), "no faces can be read: they have no list vertex_indices or vertex_index .there is corners.; rename"),
        ("a.ply", ply(ROWS + FACE_ROWS, names="XYZ"), "vertices have no x, y and z .there is X, Y, Z.; rename"),
        ("a.ply", ply(text(np.hstack([POINTS, COLOURS])).encode(), faces=""), "900 more numbers in the PLY body than its header says"),
        (
            "a.ply",
            ply(POINTS.tobytes(), encoding="binary_little_endian", faces=""),
            "3600 more bytes in the PLY body than its header says",
        ),
        ("a.ply", ply(ROWS + FACE_ROWS).decode().encode("utf-16"), "UTF-16 text, not a PLY file"),
        ("a.obj", OBJ.encode("utf-16"), "UTF-16 text, not an OBJ file"),
    ],
)
def test_what_is_ambiguous_is_refused_by_name(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(MeshError, match=message) as error:
        read_points(path)
    assert "\n" not in str(error.value)
    if path.suffix != ".xyz":  # heads are read by the same reader
        with pytest.raises(MeshError):
            read_mesh(path)


def test_colours_are_no_points(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", COLOURS.astype(np.uint8))
    with pytest.raises(MeshError, match=r"numbers of one byte \(uint8\) are colours, not points"):
        read_points(tmp_path / "a.npy")


def test_a_few_bytes_after_the_end_of_a_binary_ply(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    path.write_bytes(ply(POINTS.astype("<f4").tobytes(), encoding="binary_little_endian", faces="") + b"written by hand\n")
    assert np.array_equal(read_points(path).points, POINTS.astype("<f4"))
