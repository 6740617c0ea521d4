"""Meshes written, against trimesh as the independent reader and against our own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from facegraft.meshfiles.errors import MeshError
from facegraft.meshfiles.meshfile import read_mesh
from facegraft.meshfiles.points import read_points
from facegraft.meshfiles.write import write_mesh

VERTICES = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.25], [1, 1, 1 / 3]])
FACES = np.array([[0, 1, 2], [2, 1, 3]])
NAMES = ("rem", "nose", "ears", "mouth")
PARTS = np.array([0, 1, 1, 3], np.uint8)
COLOURS = np.array([[255, 0, 0], [0, 128, 0], [0, 0, 255], [9, 9, 9]], np.uint8)
TEMPLATE = VERTICES / 7 + 0.1


def test_ply_holds_everything(tmp_path: Path) -> None:
    path = tmp_path / "new" / "head.ply"
    ids = np.array([7, 2, 10346, 4], dtype=np.int32)
    write_mesh(
        path, VERTICES, FACES, parts=PARTS, part_names=NAMES, colours=COLOURS, template_coords=TEMPLATE, vertex_ids=ids
    )
    loaded = trimesh.load(path, process=False)
    assert np.array_equal(loaded.vertices, VERTICES)
    assert np.array_equal(loaded.faces, FACES)
    assert np.array_equal(loaded.visual.vertex_colors[:, :3], COLOURS)
    raw = loaded.metadata["_ply_raw"]["vertex"]["data"]
    assert raw.dtype["part"] == np.uint8
    assert np.array_equal(raw["part"].ravel(), PARTS)
    assert raw.dtype["vertex_id"] == np.int32 and np.array_equal(raw["vertex_id"].ravel(), ids)
    assert np.array_equal(np.column_stack([raw[axis].ravel() for axis in ("tx", "ty", "tz")]), TEMPLATE)
    assert b"\ncomment part: 0 rem, 1 nose, 2 ears, 3 mouth\n" in path.read_bytes()
    again = read_points(path)
    assert np.array_equal(again.points, VERTICES)
    assert again.faces is not None and np.array_equal(again.faces, FACES)
    assert again.normals is None


def test_glb_carries_attributes(tmp_path: Path) -> None:
    path = tmp_path / "head.glb"
    write_mesh(path, VERTICES, FACES, parts=PARTS, part_names=NAMES, colours=COLOURS, template_coords=TEMPLATE)
    loaded = trimesh.load(path, process=False, force="mesh")
    assert np.allclose(loaded.vertices, VERTICES, atol=1e-7)
    assert np.array_equal(loaded.faces, FACES)
    assert np.array_equal(loaded.visual.vertex_colors[:, :3], COLOURS)
    assert np.array_equal(loaded.vertex_attributes["_PART"].ravel(), PARTS)
    assert np.allclose(loaded.vertex_attributes["_TEMPLATE"], TEMPLATE, atol=1e-7)


def test_obj_groups_faces_by_part(tmp_path: Path) -> None:
    path = tmp_path / "head.obj"
    write_mesh(path, VERTICES, FACES, parts=PARTS, part_names=NAMES, colours=COLOURS)
    assert [line for line in path.read_text().splitlines() if line[0] in "gf"] == ["g nose", "f 1 2 3", "f 3 2 4"]
    again = read_points(path)
    assert np.allclose(again.points, VERTICES, atol=1e-9)
    assert again.faces is not None and np.array_equal(again.faces, FACES)
    with pytest.raises(MeshError, match="no place for template coordinates"):
        write_mesh(path, VERTICES, FACES, template_coords=TEMPLATE)


def test_write_refusals(tmp_path: Path) -> None:
    with pytest.raises(MeshError, match=r"cannot write \.stl"):
        write_mesh(tmp_path / "head.stl", VERTICES, FACES)
    with pytest.raises(MeshError, match="no faces"):
        write_mesh(tmp_path / "head.ply", VERTICES, np.empty((0, 3), np.int64))
    with pytest.raises(MeshError, match=r"parts must be u8 \[4\]"):
        write_mesh(tmp_path / "head.ply", VERTICES, FACES, parts=PARTS[:3], part_names=NAMES)
    with pytest.raises(MeshError, match=r"colours must be u8 \[4, 3\], not float64"):
        write_mesh(tmp_path / "head.ply", VERTICES, FACES, colours=COLOURS / 255)
    with pytest.raises(MeshError, match=r"vertex_ids must be i32 \[4\], not int64"):
        write_mesh(tmp_path / "head.ply", VERTICES, FACES, vertex_ids=np.arange(4))
    with pytest.raises(MeshError, match="only a PLY file has a place for the ids"):
        write_mesh(tmp_path / "head.glb", VERTICES, FACES, vertex_ids=np.arange(4, dtype=np.int32))
    with pytest.raises(MeshError, match="part label 3 has no name"):
        write_mesh(tmp_path / "head.ply", VERTICES, FACES, parts=PARTS, part_names=NAMES[:3])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".ply", ".obj"])
def test_what_is_written_is_a_registered_head(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"head{suffix}"
    write_mesh(path, VERTICES, FACES)
    again = read_mesh(path)
    assert np.allclose(again.vertices, VERTICES, atol=1e-9)
    assert again.is_triangles and np.array_equal(again.polygons[:, :3], FACES)
