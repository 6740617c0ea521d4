"""Masks as others publish them, named in a region set: a pickle of index lists, a coloured mesh, an image in texture space."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from facegraft.meshfiles import read_triangles, write_mesh
from facegraft.regions.build import build_region_map
from facegraft.regions.check import check_region_map
from facegraft.regions.masks import texture_coordinates
from facegraft.regions.regionmap import load_region_map
from facegraft.regions.regionsets import RegionSetError, RegionSetSpec, read_region_set

RED, GREEN = [255, 0, 0], [0, 255, 0]
SET = "name: mine\nmasks: {file}\n{mesh}parts:\n- {{name: nose, mask: {nose}}}\n- {{name: eyes, mask: [{eyes}]}}\n"


def write_set(folder: Path, file: str, nose: str, eyes: str, mesh: str = "") -> RegionSetSpec:
    (folder / "mine.yaml").write_text(SET.format(file=file, mesh=f"mesh: {mesh}\n" if mesh else "", nose=nose, eyes=eyes))
    return read_region_set(folder / "mine.yaml")


def masks_of(spec: RegionSetSpec) -> dict[str, list[int]]:
    return {part.name: part.disks[0].mask.tolist() for part in spec.parts if part.disks[0].mask is not None}


@pytest.fixture
def wanted(toy: ModuleType) -> dict[str, list[int]]:
    grid = np.arange(toy.SIDE**2).reshape(toy.SIDE, toy.SIDE)
    return {"nose": grid[3:5, 3:6].ravel().tolist(), "eyes": grid[6:8, 1:8].ravel().tolist()}


def test_a_pickle_of_index_lists(wanted: dict[str, list[int]], tmp_path: Path) -> None:
    """FLAME_masks.pkl: overlapping regions by name, as arrays; a part may be the union of several."""
    half = len(wanted["eyes"]) // 2
    data = {
        "nose": np.array(wanted["nose"]), "left_eye_region": np.array(wanted["eyes"][:half]),
        "right_eye_region": np.array(wanted["eyes"][half - 1 :]), "about": "text",
    }  # fmt: skip
    (tmp_path / "FLAME_masks.pkl").write_bytes(pickle.dumps(data, protocol=2))
    assert masks_of(write_set(tmp_path, "FLAME_masks.pkl", "nose", "left_eye_region, right_eye_region")) == wanted
    with pytest.raises(RegionSetError, match=r"there is no mask 'lips'; there are nose, left_eye_region, right_eye_region"):
        write_set(tmp_path, "FLAME_masks.pkl", "lips", "left_eye_region")
    (tmp_path / "FLAME_masks.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(RegionSetError, match=r"FLAME_masks\.pkl: not read: it names os\.system"):
        write_set(tmp_path, "FLAME_masks.pkl", "nose", "nose")


def coloured(wanted: dict[str, list[int]], count: int) -> NDArray[np.uint8]:
    colours = np.full((count, 3), 128, dtype=np.uint8)
    colours[wanted["nose"]], colours[wanted["eyes"]] = RED, GREEN
    return colours


def test_a_coloured_mesh(toy: ModuleType, wanted: dict[str, list[int]], tmp_path: Path) -> None:
    write_mesh(tmp_path / "template.ply", toy.vertices(), toy.faces(), colours=coloured(wanted, toy.SIDE**2))
    assert masks_of(write_set(tmp_path, "template.ply", "'#ff0000'", "'#00ff00'")) == wanted
    with pytest.raises(RegionSetError, match=r"there is no mask '#0000ff'; there are #00ff00, #808080, #ff0000"):
        write_set(tmp_path, "template.ply", "'#0000ff'", "'#00ff00'")
    draw = np.random.default_rng(0)
    write_mesh(tmp_path / "photo.ply", toy.vertices(), toy.faces(), colours=draw.integers(0, 255, (toy.SIDE**2, 3)).astype(np.uint8))
    with pytest.raises(RegionSetError, match=r"photo\.ply has \d+ colours, so it is a texture"):
        write_set(tmp_path, "photo.ply", "'#ff0000'", "'#00ff00'")
    write_mesh(tmp_path / "plain.ply", toy.vertices(), toy.faces())
    with pytest.raises(RegionSetError, match=r"plain\.ply has no colours of vertices"):
        write_set(tmp_path, "plain.ply", "'#ff0000'", "'#00ff00'")


def test_an_image_in_texture_space(toy: ModuleType, wanted: dict[str, list[int]], tmp_path: Path) -> None:
    """Each vertex of the grid has a block of the image; the image's first row is at the top, v = 1."""
    blocks = coloured(wanted, toy.SIDE**2).reshape(toy.SIDE, toy.SIDE, 3)[::-1]
    Image.fromarray(np.kron(blocks, np.ones((4, 4, 1), dtype=np.uint8))).save(tmp_path / "mask.png")
    lines = toy.write_obj(tmp_path / "bare.obj").read_text().splitlines()
    order = np.random.default_rng(0).permutation(toy.SIDE**2)  # texture coordinates in another order than the vertices
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    uv = [f"vt {(i % toy.SIDE + 0.5) / toy.SIDE:.6f} {(i // toy.SIDE + 0.5) / toy.SIDE:.6f}" for i in order]
    faces = [" ".join(["f", *(f"{v}/{place[int(v) - 1] + 1}" for v in line.split()[1:])]) for line in lines if line.startswith("f")]
    (tmp_path / "head.obj").write_text("\n".join([*(line for line in lines if line.startswith("v")), *uv, *faces]) + "\n")
    assert masks_of(write_set(tmp_path, "mask.png", "'#ff0000'", "'#00ff00'", "head.obj")) == wanted
    with pytest.raises(RegionSetError, match=r"mask\.png is an image: name a mesh with texture coordinates too"):
        write_set(tmp_path, "mask.png", "'#ff0000'", "'#00ff00'")
    with pytest.raises(RegionSetError, match=r"bare\.obj has no texture coordinates"):
        write_set(tmp_path, "mask.png", "'#ff0000'", "'#00ff00'", "bare.obj")


def test_texture_coordinates_of_an_obj(tmp_path: Path) -> None:
    """Groups that count back, tabs, and a vertex without any."""
    group = "v 0 0 0\nv 1 0 0\nv\t0 1 0\nvt {a} 0\nvt\t{b} 0.5 0\nvt 1\nf -3/-3 -2/-2 -1/-1\n"
    (tmp_path / "head.obj").write_text(group.format(a=0.1, b=0.2) + group.format(a=0.3, b=0.4) + "v 9 9 9\n")
    found = texture_coordinates(tmp_path / "head.obj")
    assert np.array_equal(found[:6], [[0.1, 0], [0.2, 0.5], [1, 0], [0.3, 0], [0.4, 0.5], [1, 0]]) and np.isnan(found[6]).all()
    (tmp_path / "tiles.obj").write_text(group.format(a=1.1, b=0.2))
    Image.new("RGB", (2, 2)).save(tmp_path / "mask.png")
    with pytest.raises(RegionSetError, match=r"tiles\.obj: 1 vertices have texture coordinates outside 0 to 1"):
        write_set(tmp_path, "mask.png", "'#000000'", "'#000000'", "tiles.obj")
    (tmp_path / "bad.obj").write_text("v 0 0 0\nvt 0 0\nf 1/2 1/2 1/2\n")
    with pytest.raises(ValueError, match=r"bad\.obj names texture coordinates that it does not have"):
        texture_coordinates(tmp_path / "bad.obj")


def test_a_part_of_a_set_of_masks_may_be_borrowed(toy: ModuleType, wanted: dict[str, list[int]], tmp_path: Path) -> None:
    write_mesh(tmp_path / "template.ply", toy.vertices(), toy.faces(), colours=coloured(wanted, toy.SIDE**2))
    write_set(tmp_path, "template.ply", "'#FF0000'", "'#00ff00'")
    (tmp_path / "other.yaml").write_text("name: other\nparts:\n- {name: nose, from: mine}\n")
    assert masks_of(read_region_set(tmp_path / "other.yaml")) == {"nose": wanted["nose"]}


def test_files_that_are_not_there_or_no_masks(tmp_path: Path) -> None:
    with pytest.raises(RegionSetError, match=r"masks names the file 'gone\.pkl', which is not there"):
        write_set(tmp_path, "gone.pkl", "nose", "eyes")
    (tmp_path / "notes.txt").write_text("nose")
    with pytest.raises(RegionSetError, match=r"masks are read from \.json, \.npz, \.pkl, \.ply, .*, not from notes\.txt"):
        write_set(tmp_path, "notes.txt", "nose", "eyes")
    (tmp_path / "mine.yaml").write_text("name: mine\nparts:\n- {name: nose, mask: nose}\n")
    with pytest.raises(RegionSetError, match="part nose: `mask` is a name, or names, of masks in the file that `masks` names"):
        read_region_set(tmp_path / "mine.yaml")


def test_flames_own_division_can_be_grafted(data_dir: Path, tmp_path: Path) -> None:
    """Stand-ins of FLAME's masks on its real template: the shipped parts, a little larger, so that they touch."""
    vertices, faces = read_triangles(data_dir / "flame" / "template.ply")
    flame = load_region_map("flame")
    labels = flame.vertex_labels("goggles")
    names = flame.region_set("goggles").parts.names
    masks = {}
    for name in names:
        inside = labels == flame.region_set("goggles").parts.label(name)
        masks[f"{name}_region"] = np.unique(faces[inside[faces].any(axis=1)])
    (tmp_path / "FLAME_masks.pkl").write_bytes(pickle.dumps(masks, protocol=2))
    parts = "".join(f"- {{name: {name}, mask: {name}_region}}\n" for name in names)
    (tmp_path / "own.yaml").write_text(f"name: own\nmasks: FLAME_masks.pkl\nparts:\n{parts}")
    built = build_region_map(vertices, faces, flame.landmarks68, "flame", sets=[read_region_set(tmp_path / "own.yaml")])
    findings, _ = check_region_map(built, vertices, faces)
    assert not findings and built.region_set("own").parts.names == names
    for name in names:
        found = built.vertex_labels("own") == built.region_set("own").parts.label(name)
        shipped = labels == flame.region_set("goggles").parts.label(name)
        assert (found & shipped).sum() > 0.9 * shipped.sum()
