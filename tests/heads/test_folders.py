"""Folders of meshes: what is found, chosen, matched to a topology, and refused."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest

from facegraft.errors import FacegraftError
from facegraft.heads.errors import SourceError
from facegraft.heads.facescape import FacescapeSource
from facegraft.heads.flame import FlameSource
from facegraft.heads.meshes import MeshesSource
from facegraft.heads.options import FlameOptions, FolderOptions
from facegraft.heads.source import make_source
from facegraft.meshfiles.errors import MeshError
from facegraft.regions.regionmap import RegionMapError
from facegraft.surfaces.topology import faces_sha256
from facegraft.surfaces.triangulate import triangulate


def options(toy_map, **more):
    return FolderOptions(region_map=toy_map, **more)


def planned(source):
    plan = source.plan()
    return plan, source.loader({"faces": plan.faces, **plan.shared}, plan.region_map)


def found(plan):
    return [(h.subject, h.expression, h.number, h.source) for h in plan.heads]


def test_meshes_naming(toy, toy_map, tmp_path):
    root = tmp_path / "heads"
    for name in (
        "ben.obj",
        "s10/neutral.obj",
        "s2/neutral.obj",
        "s2/3_mouth_stretch.obj",
        "s2/my wink.obj",
        "s2/notes.txt",
        ".hidden/x.obj",
    ):
        toy.write_obj(root / name)
    plan, load = planned(MeshesSource(root, options(toy_map), 0))
    assert found(plan) == [
        ("ben", "neutral", 1, "ben.obj"),
        ("s2", "mouth_stretch", 3, "s2/3_mouth_stretch.obj"),
        ("s2", "my_wink", None, "s2/my wink.obj"),
        ("s2", "neutral", 1, "s2/neutral.obj"),
        ("s10", "neutral", 1, "s10/neutral.obj"),
    ]
    assert np.array_equal(plan.faces, toy.faces())
    assert np.allclose(load(plan.heads[0].spec), toy.vertices(), atol=1e-6)


def test_choosing(toy, toy_map, tmp_path):
    for name in ("a/1_neutral.obj", "a/2_smile.obj", "a/wink.obj", "b/1_neutral.obj", "c/1_neutral.obj"):
        toy.write_obj(tmp_path / "h" / name)

    def chosen(**more):
        return [
            (h.subject, h.expression) for h in MeshesSource(tmp_path / "h", options(toy_map, **more), 0).plan().heads
        ]

    assert chosen(subjects=2, expressions=1) == [("a", "neutral"), ("b", "neutral")]
    assert chosen(subjects=1, expressions=2) == [("a", "neutral"), ("a", "smile")]
    assert chosen(expressions=("wink",)) == [("a", "wink")]
    with pytest.raises(SourceError, match="subjects=9, but the folder holds 3"):
        chosen(subjects=9)
    with pytest.raises(SourceError, match="expressions=4, but the folder holds 3: neutral, smile, wink"):
        chosen(expressions=4)
    with pytest.raises(SourceError, match=r"no subject has expression 'simle' \(did you mean 'smile'"):
        chosen(expressions=("simle",))


def test_triangulated_and_quad_meshes_of_one_topology_mix(toy, toy_map, tmp_path):
    faces = np.column_stack([toy.faces(), np.full(len(toy.faces()), -1)])
    toy.write_obj(tmp_path / "h" / "a.obj")
    toy.write_obj(tmp_path / "h" / "b.obj", toy.vertices() * 1.05, faces)
    plan, load = planned(MeshesSource(tmp_path / "h", options(toy_map), 0))
    for head, scale in zip(plan.heads, (1, 1.05), strict=True):
        assert np.allclose(load(head.spec), toy.vertices() * scale, atol=1e-6)


def test_quads_of_a_head_with_other_diagonals_are_still_this_topology(toy, toy_map, tmp_path):
    """Which diagonal is shorter differs from head to head; the topology does not."""
    toy.write_obj(tmp_path / "h" / "a.obj")
    bent = toy.vertices() + np.random.default_rng(0).normal(scale=4, size=(81, 3))
    toy.write_obj(tmp_path / "h" / "b.obj", bent)
    plan, load = planned(MeshesSource(tmp_path / "h", options(toy_map), 0))
    assert np.allclose(load(plan.heads[1].spec), bent, atol=1e-6)
    (tmp_path / "h" / "a.obj").rename(tmp_path / "first.obj")
    with pytest.raises(
        SourceError, match=r"splits the quads of topology toy differently .*--set ingest\.template=MESH\.obj"
    ):
        MeshesSource(tmp_path / "h", options(toy_map), 0).plan()
    plan, load = planned(MeshesSource(tmp_path / "h", options(toy_map, template=str(tmp_path / "first.obj")), 0))
    assert np.array_equal(plan.faces, toy.faces())
    assert np.allclose(load(plan.heads[0].spec), bent, atol=1e-6)


def fan(toy):
    """As other tools triangulate: every quad from corner 0 to corner 2."""
    return np.array([t for q in toy.polygons().tolist() for t in ([q[:3]] if q[3] < 0 else [q[:3], [q[0], *q[2:]]])])


def unsymmetric(toy):
    """By the shorter diagonal of one lopsided head, its mirror image not considered."""
    return triangulate(toy.polygons(), lopsided(toy))


def lopsided(toy):
    return toy.vertices() + np.random.default_rng(3).normal(scale=4, size=(81, 3))


@pytest.mark.parametrize("made_by", [fan, unsymmetric])
def test_a_region_map_whose_quads_were_split_in_another_way(toy, tmp_path, made_by):
    faces = made_by(toy)
    dataclasses.replace(toy.region_map(), faces_sha256=faces_sha256(faces)).save(tmp_path / "other.json")
    toy.write_obj(tmp_path / "h" / "a.obj", lopsided(toy))
    plan = MeshesSource(tmp_path / "h", options(str(tmp_path / "other.json")), 0).plan()
    assert np.array_equal(plan.faces, faces)
    assert not np.array_equal(plan.faces, triangulate(toy.polygons(), lopsided(toy), toy.symmetry()))


def test_bad_meshes_are_refused_one_by_one(toy, toy_map, tmp_path):
    root = tmp_path / "h"
    good = toy.write_obj(root / "a_good.obj")
    text = good.read_text()
    nan = toy.vertices()
    nan[7, 1] = np.nan
    toy.write_obj(root / "0_nan.obj", nan)  # sorts first: it must not decide the topology
    toy.write_obj(root / "count.obj", toy.vertices()[:72], toy.polygons()[:50])
    toy.write_obj(root / "shuffled.obj", p=toy.polygons()[np.random.default_rng(0).permutation(65)])
    toy.write_obj(root / "metres.obj", toy.vertices() / 1000)
    toy.write_obj(root / "mirrored.obj", toy.vertices() * [-1, 1, 1])
    (root / "cut_in_faces.obj").write_text(text[: text.rindex("f ")])
    (root / "cut_in_vertices.obj").write_text(text[:700])
    (root / "dangling.obj").symlink_to(tmp_path / "nowhere.obj")
    (root / "random.obj").write_bytes(np.random.default_rng(0).bytes(999))
    plan, load = planned(MeshesSource(root, options(toy_map), 0))
    says = {
        "0_nan": "0_nan.obj: line 8: vertex 7 is not finite",
        "count": "count.obj: 72 vertices, but topology toy has 81; is it another topology",
        "shuffled": "shuffled.obj: its faces are not those of topology toy",
        "metres": "seems to be in metres; give mm_per_unit=1000",
        "mirrored": "mirrored.obj: left and right are exchanged",
        "cut_in_faces": "126 triangles, but topology toy has 128; the file is probably truncated",
        "cut_in_vertices": "cut_in_vertices.obj: ",
        "dangling": "dangling.obj: cannot be read (No such file or directory)",
        "random": "random.obj: binary data, not an OBJ text file",
    }
    for head in plan.heads:
        if head.subject == "a_good":
            assert load(head.spec).shape == (81, 3)
            continue
        with pytest.raises((MeshError, RegionMapError)) as caught:
            load(head.spec)
        message = str(caught.value)
        assert says.pop(head.subject) in message
        assert message.startswith(head.source), "the reason goes into the index: relative names only"
        assert len(message) < 300
    assert not says


def test_a_source_without_any_usable_mesh(toy, toy_map, tmp_path):
    toy.write_obj(tmp_path / "h" / "a.obj", toy.vertices() / 1000)
    toy.write_obj(tmp_path / "h" / "b.obj", toy.vertices() / 1000)
    with pytest.raises(SourceError, match=r"a\.obj: .*seems to be in metres.*none of 1 more that were tried is usable"):
        MeshesSource(tmp_path / "h", options(toy_map), 0).plan()
    plan, load = planned(MeshesSource(tmp_path / "h", options(toy_map, mm_per_unit=1000.0), 0))
    assert np.allclose(load(plan.heads[0].spec), toy.vertices(), atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "names", "says"),
    [
        (
            "meshes",
            [],
            "no meshes found (0 folders looked into); kind meshes looks for <subject>.obj, <subject>.ply, <subject>/<expression>.obj",
        ),
        ("flame", ["x/readme.txt"], "no meshes found (1 folders looked into); kind flame looks for <subject>.obj"),
        (
            "facescape",
            ["1/notes.txt"],
            "no FaceScape meshes found (1 folders without any); kind facescape looks for <id>/<n>_<expression>.obj",
        ),
        ("meshes", ["a b.obj", "a-b.obj"], "subjects 'a b' and 'a-b' would both be called 'a_b'"),
        ("meshes", ["a.obj", "a/neutral.obj"], "a.obj and a/neutral.obj are both 'neutral' of subject a"),
        (
            "facescape",
            ["1/1_neutral.obj", "1/models_reg/1_neutral.obj"],
            "1/1_neutral.obj and 1/models_reg/1_neutral.obj are both",
        ),
    ],
)
def test_folders_that_cannot_be_used(toy, toy_map, tmp_path, kind, names, says):
    root = tmp_path / "h"
    root.mkdir()
    for name in names:
        toy.write_obj(root / name)
    with pytest.raises(SourceError) as caught:
        make_source(kind, root, {"region_map": toy_map}, 0).plan()
    assert str(caught.value).startswith(f"{root}: ")
    assert says in str(caught.value)


def test_paths_and_kinds_that_are_not_there(tmp_path):
    with pytest.raises(SourceError, match="no kind of heads 'basel'; there are facescape, flame, ict"):
        make_source("basel", tmp_path, {}, 0)
    with pytest.raises(SourceError, match="kind ict reads heads from disk: name its folder"):
        make_source("ict", None, {}, 0)
    with pytest.raises(SourceError, match="there is no such folder or file"):
        make_source("ict", tmp_path / "gone", {}, 0)
    with pytest.raises(SourceError, match="kind meshes needs a region map"):
        make_source("meshes", tmp_path, {}, 0).plan()


def test_facescape_layouts(toy, toy_map, tmp_path, caplog):
    for name in (
        "2/1_neutral.obj",
        "10/models_reg/1_neutral.obj",
        "10/models_reg/12_lip_puckerer.obj",
        "10/models_reg/base.obj",
    ):
        toy.write_obj(tmp_path / "fs" / name)
    (tmp_path / "fs" / "7").mkdir()
    with caplog.at_level(logging.WARNING, "facegraft"):
        plan = FacescapeSource(tmp_path / "fs", options(toy_map), 0).plan()
    assert found(plan) == [
        ("2", "neutral", 1, "2/1_neutral.obj"),
        ("10", "neutral", 1, "10/models_reg/1_neutral.obj"),
        ("10", "lip_puckerer", 12, "10/models_reg/12_lip_puckerer.obj"),
    ]
    assert "1 folders hold no mesh (7)" in caplog.text
    assert "1 meshes are not named <n>_<expression> (10/models_reg/base.obj)" in caplog.text


def test_facescape_topologies_by_vertex_count(toy, tmp_path):
    toy.write_obj(tmp_path / "fs" / "1" / "1_neutral.obj")
    with pytest.raises(
        SourceError,
        match=r"81 vertices; FaceScape's registered meshes have 26278 \(facescape_v16\) or 26317 \(facescape_v10\)",
    ):
        FacescapeSource(tmp_path / "fs", FolderOptions(), 0).plan()
    v10 = np.concatenate([toy.vertices(), np.zeros((26317 - 81, 3))])
    file = toy.write_obj(tmp_path / "fs" / "1" / "1_neutral.obj", v10)
    with pytest.raises(FacegraftError) as caught:
        FacescapeSource(tmp_path / "fs", FolderOptions(), 0).plan()
    assert f"{file}: topology facescape_v10 (26317 vertices) has no region map here; give `--landmarks landmark_indices.npz`" in str(caught.value)
    assert f"or put it into {tmp_path / 'fs'}, and a map is built" in str(caught.value)


def test_the_facescape_sample(facescape_folder):
    plan, load = planned(FacescapeSource(facescape_folder, FolderOptions(), 0))
    assert plan.region_map.name == "facescape_v16"
    assert found(plan) == [("1", "neutral", 1, "1/1_neutral.obj")]
    vertices = load(plan.heads[0].spec)
    assert vertices.shape == (26278, 3)
    lm = vertices[plan.region_map.landmarks68]
    assert 80 < np.linalg.norm(lm[45] - lm[36]) < 100
    assert plan.faces.shape == (52183, 3)


def test_flame_meshes_and_npz_agree(toy, tmp_path):
    path = tmp_path / "metres.json"
    toy.region_map(mm_per_unit=1000.0).save(path)
    metres = toy.vertices() / 1000
    heads = np.stack([metres, metres * 1.02, metres * 0.95])
    for i, v in enumerate(heads):
        toy.write_obj(tmp_path / "fits" / f"p{i}.obj", v)
    _, load = planned(FlameSource(tmp_path / "fits", FlameOptions(region_map=str(path)), 0))
    np.savez(tmp_path / "fits.npz", shapes=heads.astype(np.float32), subjects=["p0", "p1", "p2"], faces=toy.faces())
    plan, load_row = planned(FlameSource(tmp_path / "fits.npz", FlameOptions(region_map=str(path)), 0))
    assert found(plan) == [(f"p{i}", "neutral", 1, "fits.npz") for i in range(3)]
    for i, head in enumerate(plan.heads):
        assert np.allclose(load_row(head.spec), load({"file": f"p{i}.obj"}), atol=1e-4)
        assert np.allclose(load_row(head.spec), 1000 * heads[i], atol=1e-4)


def npz_complaint(toy, tmp_path, arrays, **more):
    path = tmp_path / "metres.json"
    toy.region_map(mm_per_unit=1000.0).save(path)
    file = tmp_path / "fits.npz"
    if isinstance(arrays, bytes):
        file.write_bytes(arrays)
    else:
        np.savez(file, **arrays)
    with pytest.raises((SourceError, MeshError, RegionMapError)) as caught:
        FlameSource(file, FlameOptions(region_map=str(path), **more), 0).plan()
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)
    return str(caught.value)


def test_npz_files_that_cannot_be_used(toy, tmp_path):
    metres = toy.vertices()[None] / 1000
    assert (
        "holds vertices but no `faces`; give the mesh of the FLAME template with `--set ingest.template="
        in npz_complaint(toy, tmp_path, {"v": metres})
    )
    assert "millimetres; give mm_per_unit=1" in npz_complaint(toy, tmp_path, {"v": metres * 1000, "faces": toy.faces()})
    assert "its faces are not those of topology toy" in npz_complaint(
        toy, tmp_path, {"v": metres, "faces": toy.faces()[::-1]}
    )
    assert "no array of registered vertices [N, 81, 3]; it holds betas [5]" in npz_complaint(
        toy, tmp_path, {"betas": np.zeros(5)}
    )
    assert "several arrays could be the vertices (a, b)" in npz_complaint(toy, tmp_path, {"a": metres, "b": metres})
    assert "`subjects` has shape [2], but there are 1 heads" in npz_complaint(
        toy, tmp_path, {"v": metres, "subjects": ["a", "b"]}
    )
    assert "holds Python objects" in npz_complaint(toy, tmp_path, {"v": np.array([{}], dtype=object)})
    assert "not an npz file, or damaged" in npz_complaint(toy, tmp_path, b"PK\x03\x04 not a zip")
    nan = metres.copy()
    nan[0, 3] = np.nan
    assert "vertex 3 is not finite" in npz_complaint(toy, tmp_path, {"v": nan, "faces": toy.faces()})


def test_an_npz_with_its_template_and_one_bad_row(toy, tmp_path):
    path = tmp_path / "metres.json"
    toy.region_map(mm_per_unit=1000.0).save(path)
    heads = np.stack([toy.vertices(), toy.vertices() * 5, toy.vertices()]) / 1000
    np.savez(tmp_path / "fits.npz", vertices=heads)
    template = toy.write_obj(tmp_path / "template.obj", toy.vertices() / 1000)
    source = FlameSource(tmp_path / "fits.npz", FlameOptions(region_map=str(path), template=str(template)), 0)
    plan, load = planned(source)
    assert [h.subject for h in plan.heads] == ["s0001", "s0002", "s0003"]
    with pytest.raises(MeshError, match=r"fits\.npz, row 1: the outer eye corners are 450 mm apart"):
        load(plan.heads[1].spec)
    assert np.allclose(load(plan.heads[2].spec), toy.vertices())


def test_the_flame_template(data_dir, tmp_path):
    (tmp_path / "fits").mkdir()
    (tmp_path / "fits" / "mean.ply").write_bytes((data_dir / "flame" / "template.ply").read_bytes())
    plan, load = planned(FlameSource(tmp_path / "fits", FlameOptions(), 0))
    lm = load(plan.heads[0].spec)[plan.region_map.landmarks68]
    assert plan.faces.shape == (9976, 3)
    assert 80 < np.linalg.norm(lm[45] - lm[36]) < 100
