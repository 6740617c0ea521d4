"""PLY reading, against trimesh as the independent writer and reader."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from facegraft.meshfiles.errors import MeshError
from facegraft.meshfiles.meshfile import read_mesh

ASCII = """ply
format ascii 1.0
comment by hand
element vertex 5
property float x
property float y
property float z
property uchar red
element face 2
property list uchar int vertex_indices
end_header
0 0 0 255
1 0 0 255
1 1 0 255
0 1 0 0
9 9 9 0
4 0 1 2 3
3 0 2 4
"""


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_what_trimesh_writes(toy, tmp_path, encoding):
    mesh = trimesh.Trimesh(toy.vertices(), toy.faces(), process=False)
    path = tmp_path / "head.ply"
    path.write_bytes(trimesh.exchange.ply.export_ply(mesh, encoding=encoding))
    read = read_mesh(path)
    assert np.allclose(read.vertices, toy.vertices(), atol=1e-5)
    assert np.array_equal(read.polygons[:, :3], toy.faces())
    assert read.is_triangles


def test_quads_and_extra_properties(tmp_path):
    path = tmp_path / "x.ply"
    path.write_text(ASCII)
    mesh = read_mesh(path)
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [9, 9, 9]]
    assert mesh.polygons.tolist() == [[0, 1, 2, 3], [0, 2, 4, -1]]


@pytest.mark.parametrize("order", ["<", ">"])
def test_binary_of_either_byte_order_with_mixed_polygons_and_a_face_property(tmp_path, order):
    name = {"<": "little", ">": "big"}[order]
    header = (
        ASCII[: ASCII.index("end_header")].replace("ascii", f"binary_{name}_endian")
        + "property uchar flag\nend_header\n"
    )
    vertices = np.zeros(5, dtype=[("p", order + "f4", 3), ("red", "u1")])
    vertices["p"] = np.arange(15).reshape(5, 3)
    faces = b"".join(bytes([len(f)]) + np.array(f, order + "i4").tobytes() + b"\x01" for f in ([0, 1, 2, 3], [0, 2, 4]))
    path = tmp_path / "x.ply"
    path.write_bytes(header.encode() + vertices.tobytes() + faces)
    mesh = read_mesh(path)
    assert mesh.vertices.tolist() == np.arange(15).reshape(5, 3).tolist()
    assert mesh.polygons.tolist() == [[0, 1, 2, 3], [0, 2, 4, -1]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ASCII.replace("1 1 0 255", "1 nan 0 255"), "vertex 2 is not finite"),
        (ASCII.replace("3 0 2 4\n", "3 0 2"), "truncated"),
        (ASCII.replace("3 0 2 4", "3 0 2 5"), "names vertex 5, but the file has 5"),
        (ASCII.replace("1 1 0 255", "1 one 0 255"), "not a number"),
        (ASCII.replace("4 0 1 2 3\n", "5 0 1 2 3 4\n"), "face 0 has 5 corners"),
        (ASCII[:60], "header is cut off"),
        (ASCII.replace("format ascii 1.0\n", ""), "names no format"),
        (ASCII.replace("float x", "quaternion x"), "header line not understood: 'property quaternion x'"),
        (ASCII.replace("vertex_indices", "strips"), "no faces"),
        ("solid not a ply", "not a PLY file"),
    ],
)
def test_damage_names_the_file(tmp_path, text, says):
    path = tmp_path / "broken.ply"
    path.write_text(text)
    with pytest.raises(MeshError) as caught:
        read_mesh(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)


def test_a_truncated_binary_file(toy, tmp_path):
    data = trimesh.exchange.ply.export_ply(trimesh.Trimesh(toy.vertices(), toy.faces(), process=False))
    path = tmp_path / "cut.ply"
    path.write_bytes(data[:-5])
    with pytest.raises(MeshError, match=r"cut\.ply: the PLY file ends too early \(truncated\)"):
        read_mesh(path)


def test_the_flame_template(data_dir):
    path = data_dir / "flame" / "template.ply"
    mesh = read_mesh(path)
    other = trimesh.load(path, process=False)
    assert mesh.vertices.shape == (5023, 3)
    assert np.allclose(mesh.vertices, other.vertices)
    assert np.array_equal(mesh.polygons[:, :3], other.faces)
