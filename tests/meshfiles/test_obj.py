"""OBJ reading: vertex order and count are sacred, and damage is told with its line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facegraft.meshfiles.errors import MeshError
from facegraft.meshfiles.meshfile import read_mesh
from facegraft.meshfiles.obj import parse_obj, parse_obj_vertices

# Two triangles over a texture seam: vertices 1 and 2 carry two texture coordinates each, vertex 5 belongs to no face.
SEAM = """# a comment
mtllib x.mtl
v 0 0 0
v 1 0 0
v 0 1 0
v 1 1 0
v 9 9 9
vt 0 0
vt 1 0
vt 0 1
vt 0.5 0.5
vt 0.5 1
vn 0 0 1
usemtl skin
f 1/1/1 2/2/1 3/3/1
f 2/4/1 4/1/1 3/5/1
"""
VERTICES = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [9, 9, 9]]
TRIANGLES = [[0, 1, 2, -1], [1, 3, 2, -1]]


def test_a_texture_seam_splits_no_vertex_and_drops_none():
    mesh = parse_obj(SEAM.encode(), "seam.obj")
    assert mesh.vertices.tolist() == VERTICES
    assert mesh.polygons.tolist() == TRIANGLES


@pytest.mark.parametrize(
    "edit",
    [
        lambda t: t.replace("\n", "\r\n"),
        lambda t: t.rstrip("\n"),
        lambda t: t.replace("/1/1", "").replace("f 1 ", "f   1 "),
        lambda t: t.replace("1/1/1", "1//1"),
        lambda t: t.replace("v 1 0 0\n", "v 1 0 0 0.5 0.25 1.0\n"),
        lambda t: t.replace("v 1 0 0\n", "v\t1\t0   0 # a corner\n"),
        lambda t: t.replace("v 1 0 0\n", "  v 1 0 0 1.0\n"),
        lambda t: t.replace("f 1/1/1 2/2/1 3/3/1", "f -5 -4/2 -3//1"),
        lambda t: t.replace("f 1/1/1 2/2/1 3/3/1", "f 1/1/1 2/2/1 \\\n3/3/1"),
        lambda t: t.replace("v 0 1 0\n", "v 0 1e0 -0.0\n\n# between\ng head\n"),
        lambda t: t + "l 1 2\np 1\n",
    ],
)
def test_spellings_of_the_same_mesh(edit):
    mesh = parse_obj(edit(SEAM).encode(), "seam.obj")
    assert mesh.vertices.tolist() == VERTICES
    assert mesh.polygons.tolist() == TRIANGLES


def test_negative_indices_count_back_from_the_vertices_so_far():
    mesh = parse_obj(b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf -3 -2 -1\nv 1 1 0\nf -3 -1 -2\n", "x.obj")
    assert mesh.polygons.tolist() == [[0, 1, 2, -1], [1, 3, 2, -1]]


def test_triangles_and_quads_mixed():
    mesh = parse_obj(b"v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 0 2 0\nf 1 2 3 4\nf 4 3 5\n", "x.obj")
    assert mesh.polygons.tolist() == [[0, 1, 2, 3], [3, 2, 4, -1]]
    assert not mesh.is_triangles


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SEAM.replace("v 0 1 0", "v 0 nan 0"), ["line 5", "not finite", "repair or leave out"]),
        (SEAM.replace("v 0 1 0", "v 0 inf 0"), ["line 5", "not finite"]),
        (SEAM.replace("v 0 1 0", "v 0 1e999 0"), ["line 5", "not finite"]),
        (SEAM.replace("v 0 1 0", "v 0 1"), ["line 5", "2 coordinates", "truncated"]),
        (SEAM.replace("v 0 1 0", "v"), ["line 5", "0 coordinates", "truncated"]),
        (SEAM.replace("v 0 1 0", "v 0 1 x7"), ["line 5", "not a number", "damaged"]),
        (SEAM.replace("4/1/1", "7/1/1"), ["line 16", "does not exist", "there are 5", "truncated"]),
        (SEAM.replace("4/1/1", "0/1/1"), ["line 16", "does not exist"]),
        (SEAM.replace("4/1/1", "-9/1/1"), ["line 16", "does not exist"]),
        (SEAM.replace("4/1/1", "4.5/1/1"), ["line 16", "not a vertex index", "damaged"]),
        (SEAM.replace("f 2/4/1 4/1/1 3/5/1\n", "f 2/4/1 4/"), ["line 16", "2 corners", "truncated"]),
        (SEAM[: SEAM.index("f 1")], ["5 vertices but no faces", "truncated"]),
        (
            SEAM.replace("f 2/4/1 4/1/1 3/5/1", "f 1 2 4 3 5"),
            ["line 16", "5 corners", "triangulate the mesh on export"],
        ),
        ("hello\nworld\n", ["no vertices", "is this an OBJ file"]),
        ("", ["no vertices"]),
        ("v 1 2 \0 3\n", ["binary", "export it again"]),
    ],
)
def test_damage_is_one_line_with_file_line_and_remedy(text, says, tmp_path):
    path = tmp_path / "broken.obj"
    path.write_text(text)
    with pytest.raises(MeshError) as caught:
        read_mesh(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for words in says:
        assert words in message


def test_a_file_cut_anywhere_never_gives_other_numbers(toy, tmp_path):
    path = toy.write_obj(tmp_path / "whole.obj")
    data = path.read_bytes()
    whole = parse_obj(data, "whole")
    for end in range(0, len(data), 7):
        try:
            cut = parse_obj(data[:end], "cut")
        except MeshError:
            continue
        assert np.array_equal(cut.vertices, whole.vertices)  # only faces can be missing, and the last one be cut
        assert np.array_equal(cut.polygons[:-1], whole.polygons[: len(cut.polygons) - 1])


def test_what_cannot_be_read_is_told_with_the_reason(tmp_path):
    (tmp_path / "folder.obj").mkdir()
    with pytest.raises(MeshError, match=r"folder\.obj: cannot be read \(Is a directory\)"):
        read_mesh(tmp_path / "folder.obj")
    with pytest.raises(MeshError, match=r"gone\.obj: cannot be read \(No such file"):
        read_mesh(tmp_path / "gone.obj")
    with pytest.raises(MeshError, match=r"must be an \.obj or \.ply"):
        read_mesh(tmp_path / "head.stl")


finite = st.floats(allow_nan=False, allow_infinity=False, width=64)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(finite, finite, finite), min_size=3, max_size=30), st.randoms(use_true_random=False))
def test_any_vertices_come_back_to_the_last_bit(vertices, random):
    lines = []
    for v in vertices:
        lines += random.choices(["# note", "", "vn 0 0 1", "g part", "vt 0.1 0.2"], k=random.randint(0, 2))
        lines.append("v " + " ".join(repr(x) for x in v))
    lines.append("f 1 2 3")
    mesh = parse_obj("\n".join(lines).encode(), "x.obj")
    assert np.array_equal(mesh.vertices, np.array(vertices))
    assert np.array_equal(parse_obj_vertices("\n".join(lines).encode(), "x.obj"), np.array(vertices))


def test_the_facescape_sample_keeps_its_vertices_and_faces(facescape_folder: Path):
    path = facescape_folder / "1" / "1_neutral.obj"
    mesh = read_mesh(path)
    words = [line.split() for line in path.read_text().splitlines()]
    vertices = np.array([[float(x) for x in w[1:4]] for w in words if w and w[0] == "v"])
    faces = np.array([[int(corner.split("/")[0]) - 1 for corner in w[1:]] for w in words if w and w[0] == "f"])
    assert mesh.vertices.shape == (26278, 3)
    assert np.array_equal(mesh.vertices, vertices)
    assert np.array_equal(mesh.polygons[:, :3], faces)
    assert mesh.is_triangles


def calls_of(data: bytes) -> int:
    """How many functions, Python's and C's, are called while this OBJ file is read."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        parse_obj(data, "x.obj")
    finally:
        sys.setprofile(None)
    return calls


def test_a_file_is_read_as_a_whole_and_not_line_by_line():
    """As many calls for ten thousand vertices as for ten, whatever the machine: that is what makes reading fast."""

    def grid(lines: int) -> bytes:
        vertices = "".join(f"v {i} {i % 7} 0.5\n" for i in range(lines))
        return (vertices + "".join(f"f {i + 1}/1 {i + 2}/2 {i + 3}/3\n" for i in range(lines - 2))).encode()

    assert calls_of(grid(10_000)) <= calls_of(grid(10)) + 50
