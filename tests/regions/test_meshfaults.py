"""Meshes with one fault each: it is named, with where and what to do, before landmarks or outlines are blamed. Good topologies have none."""

import numpy as np
import pytest

from facegraft.regions.build import build_region_map
from facegraft.regions.check import check_region_map
from facegraft.regions.meshfaults import mesh_faults
from facegraft.regions.regionmap import RegionMapError, faces_sha256


@pytest.fixture(scope="module")
def head(load_template):
    template = load_template("synthetic")
    return template.vertices, np.asarray(template.faces, dtype=np.int64), template.region_map.landmarks68


def turned(faces: np.ndarray, which) -> np.ndarray:
    new = faces.copy()
    new[which] = new[which][:, ::-1]
    return new


def torn(vertices: np.ndarray, faces: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The mesh with the rim of a part (mask [F]) doubled, and how many vertices that are."""
    rim = np.intersect1d(faces[part], faces[~part])
    new = faces.copy()
    new[part] = np.where(np.isin(faces[part], rim), len(vertices) + np.searchsorted(rim, faces[part]), faces[part])
    return np.vstack([vertices, vertices[rim]]), new, len(rim)


@pytest.mark.parametrize("name", ["synthetic", "ict", "facescape_v16", "flame"])
def test_good_topologies_have_no_fault(load_template, name: str) -> None:
    template = load_template(name)
    region_map = template.region_map
    assert mesh_faults(template.vertices, template.faces, region_map.landmarks68) == []
    inward = mesh_faults(template.vertices, np.asarray(template.faces)[:, ::-1], region_map.landmarks68)
    assert len(inward) == 1 and inward[0].startswith("the faces look inwards: reverse all of them")


def test_flipped_faces_are_named(head) -> None:
    v, f, marks = head
    (one,) = mesh_faults(v, turned(f, [2000]), marks)
    assert one == f"face 2000 (on vertices {f[2000, 2]}, {f[2000, 1]}, {f[2000, 0]}) is wound against its neighbours: flip it (recalculate normals)"
    (some,) = mesh_faults(v, turned(f, [12, 15, 2000, 9000, 9001]), marks)
    assert some.startswith("faces 12, 15, 2000 and 2 more (the first on vertices ") and "are wound against their neighbours: flip them" in some
    island = np.flatnonzero(np.linalg.norm(v[f].mean(axis=1) - v[marks[30]], axis=1) < 20.0)
    (found,) = mesh_faults(v, turned(f, island), marks)
    assert f"and {len(island) - 3} more" in found and "wound against" in found
    both = mesh_faults(v, turned(f, [2000])[:, ::-1], marks)
    assert len(both) == 2 and "face 2000 " in both[0] and "look inwards" in both[1]


def test_of_a_face_that_is_half_inward_that_half_is_named(head) -> None:
    v, f, marks = head
    skin = np.arange(len(f)) < 30880  # not the eyeballs, which are pieces of their own
    for side in (1.0, -1.0):
        wrong = np.flatnonzero(skin & (side * v[f].mean(axis=1)[:, 0] > 0))
        (found,) = mesh_faults(v, turned(f, wrong), marks)
        assert found.startswith(f"faces {wrong[0]}, {wrong[1]}, {wrong[2]} and {len(wrong) - 3:,} more")


def test_doubled_degenerate_and_surplus_faces_are_named(head) -> None:
    v, f, marks = head
    for extra, message in (
        (f[2000], f"face {len(f)} .* lies on the same vertices as another: delete doubled faces"),
        (f[2000, ::-1], "lies on the same vertices as another"),
        ([3, 3, 4], rf"face {len(f)} \(on vertices 3, 3, 4\) names a vertex twice: delete degenerate faces"),
        ([*f[2000, :2], f[100, 2]], r"more than two faces meet at the edge \d+-\d+ \(vertices\): delete the faces that stand out"),
    ):
        with pytest.raises(RegionMapError, match=message) as caught:
            build_region_map(v, np.vstack([f, [extra]]), marks, "mine", 1.0, where="head.obj")
        assert str(caught.value).startswith("head.obj: ") and "landmarks" not in str(caught.value) and "\n" not in str(caught.value)


def test_unwelded_seams_are_named_wherever_they_run(head) -> None:
    v, f, marks = head
    middle = v[f].mean(axis=1)
    for part in (
        middle[:, 0] > 0,
        np.linalg.norm(middle - v[marks[48:68]].mean(axis=0), axis=1) < 25.0,
        np.linalg.norm(middle - v[marks[30]], axis=1) < 15.0,
    ):
        vertices, faces, count = torn(v, f, part)
        (found,) = mesh_faults(vertices, faces, marks)
        assert found.startswith(f"the mesh is not welded: {count} of its vertices lie on the place of another along a seam (vertices ")
        assert "merge them" in found
    wide, faces, _ = torn(v, f, middle[:, 0] > 0)
    half = turned(faces, np.flatnonzero((middle[:, 0] > 0) & (np.arange(len(f)) < 30880)))
    found = mesh_faults(wide, half, marks)
    assert len(found) == 2 and "not welded" in found[0] and "wound against" in found[1]  # a half mirrored, neither turned nor welded
    soup = mesh_faults(v[f].reshape(-1, 3), np.arange(f.size).reshape(-1, 3), np.array([np.flatnonzero(f.ravel() == i)[0] for i in marks]))
    assert len(soup) == 1 and "not welded" in soup[0]


def test_lips_that_touch_are_an_opening_and_no_seam(head, load_template) -> None:
    v, f, marks = head
    loop = load_template("synthetic").region_map.openings["mouth"]
    start = int(np.argmin(v[loop, 0]))
    loop = np.roll(loop, -start)
    shut = v.copy()
    for i in range(1, len(loop) // 2):  # from one corner to the other, both ways
        shut[loop[[i, -i]]] = 0.5 * (v[loop[i]] + v[loop[-i]])
    assert mesh_faults(shut, f, marks) == []
    moved = np.roll(marks, 20)  # landmarks that lie elsewhere: now it is a seam
    assert "not welded" in mesh_faults(shut, f, moved)[0]


def test_the_checker_names_a_fault_of_the_mesh_alone(head, load_template) -> None:
    from dataclasses import replace

    v, f, _ = head
    hurt = turned(f, [2000])
    region_map = replace(load_template("synthetic").region_map, faces_sha256=faces_sha256(hurt))
    findings, figures = check_region_map(region_map, v, hurt)
    assert len(findings) == 1 and "face 2000 " in findings[0] and figures == {}
