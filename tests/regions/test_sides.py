"""Both halves of each part, on topologies that are no mirror image of themselves too, and a checker that asks for them."""

from dataclasses import replace

import numpy as np
import pytest

from facegraft.regions.build import build_region_map
from facegraft.regions.check import check_region_map
from facegraft.regions.regionmap import RegionMap
from facegraft.regions.regionsets import shipped_sets
from facegraft.regions.tracing import enclosed_disk

GOGGLES = [spec for spec in shipped_sets() if spec.name == "goggles"]


def lopsided(vertices: np.ndarray, faces: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A vertex in the middle of every tenth triangle of the left side."""
    centre = vertices[faces].mean(axis=1)
    chosen = np.flatnonzero((centre[:, 0] > 5.0) & (np.random.default_rng(seed).random(len(faces)) < 0.1))
    new = len(vertices) + np.arange(len(chosen))
    a, b, c = faces[chosen].T
    more = [np.column_stack(corners) for corners in ((a, b, new), (b, c, new), (c, a, new))]
    return np.vstack([vertices, centre[chosen]]), np.vstack([np.delete(faces, chosen, axis=0), *more])


def uneven(vertices: np.ndarray, seed: int) -> np.ndarray:
    """The head a little asymmetric, as people are."""
    wave = np.random.default_rng(seed).normal(0.0, 1.0, 3)
    return vertices + 1.5 * np.sin(vertices[:, [1, 0, 0]] / 40.0 + wave)


@pytest.fixture(scope="module")
def template(load_template):
    found = load_template("synthetic")
    return found.vertices, np.asarray(found.faces, dtype=np.int64), found.region_map.landmarks68


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_goggles_go_around_both_eyes_on_an_asymmetric_topology(template, seed: int) -> None:
    vertices, faces, marks = template
    v, f = lopsided(uneven(vertices, seed), faces, seed)
    built = build_region_map(v, f, marks, "asymmetric", 1.0, sets=GOGGLES)
    assert built.symmetry is None
    disk = built.region_set("goggles").disks["goggles"]
    assert np.isin(marks[36:48], disk.interior).all()
    assert set(disk.followers) == {"inside_eye_left", "inside_eye_right"}
    assert check_region_map(built, v, f)[0] == []


@pytest.mark.slow
def test_all_sets_are_sound_on_an_asymmetric_topology(template) -> None:
    vertices, faces, marks = template
    v, f = lopsided(vertices, faces)
    built = build_region_map(v, f, marks, "asymmetric", 1.0)
    assert set(built.regions) == {"eyes", "goggles", "full"}
    assert check_region_map(built, v, f)[0] == []


@pytest.mark.parametrize("places", [[[9999.0] * 3], [[9999.0] * 3, [-5000.0, 20.0, 3.0]], [[np.nan] * 3]])
def test_vertices_in_no_face_change_nothing(template, load_template, places: list[list[float]]) -> None:
    vertices, faces, marks = template
    v = np.vstack([vertices, places])
    built = build_region_map(v, faces, marks, "loose", 1.0, sets=GOGGLES)
    assert built.symmetry is not None and np.array_equal(built.symmetry[-len(places) :], np.arange(len(vertices), len(v)))
    assert np.array_equal(built.symmetry[: len(vertices)], load_template("synthetic").region_map.symmetry)
    shipped = load_template("synthetic").region_map.region_set("goggles").disks
    for name, disk in built.region_set("goggles").disks.items():
        assert np.array_equal(disk.loop, shipped[name].loop) and np.array_equal(disk.interior, shipped[name].interior)
    assert check_region_map(built, v, faces)[0] == []


def with_goggles(region_map: RegionMap, loop: np.ndarray, faces: np.ndarray, holds: tuple[int, ...]) -> RegionMap:
    """The map with other goggles, around the left eye."""
    found = region_map.region_set("goggles")
    disk = enclosed_disk(faces, region_map.vertex_count, loop, int(region_map.landmarks68[44]), "goggles")
    part = found.regions["eyes"]
    disk = replace(disk, followers=part.disks["goggles"].followers)
    regions = found.regions | {"eyes": replace(part, holds=holds, disks={"goggles": disk})}
    return replace(region_map, symmetry=None, regions={"goggles": replace(found, regions=regions)})


def test_goggles_of_half_a_face_are_not_sound(template, load_template) -> None:
    vertices, faces, _ = template
    region_map = load_template("synthetic").region_map
    skin = faces[np.isin(faces, region_map.vertices_of("surface", "socket")).all(axis=1)]
    half = region_map.region_set("eyes").disks["eye_left"].loop
    for holds in ((36, 39, 42, 45), ()):  # a set of one's own may declare nothing
        findings, _ = check_region_map(with_goggles(region_map, half, skin, holds), vertices, faces)
        texts = "\n".join(findings)
        assert ("part eyes does not hold its landmarks 36, 39" in texts) == bool(holds)
        assert "mm² on the right, and no disk is its mirror image; is it half a part?" in texts
        assert "goggles.goggles: holds landmarks whose mirror images 36, 37, 38, 39, 40, 41 it does not hold" in texts
        assert "goggles.goggles: carries eye_right, but not its landmarks 36, 37, 38, 39, 40, 41" in texts


def test_left_and_right_disks_of_other_sizes_are_not_sound(template, load_template) -> None:
    vertices, faces, _ = template
    region_map = replace(load_template("synthetic").region_map, symmetry=None)
    eyes, small = region_map.region_set("eyes"), region_map.region_set("full").disks["brow_right"]
    part = eyes.regions["eyes"]
    spoilt = eyes.regions | {"eyes": replace(part, holds=(), disks=part.disks | {"eye_right": small})}
    findings, _ = check_region_map(replace(region_map, regions={"eyes": replace(eyes, regions=spoilt)}), vertices, faces)
    assert any("holds landmarks whose mirror images" in finding for finding in findings)


def test_a_symmetry_that_mirrors_nothing_is_not_sound(template, load_template) -> None:
    vertices, faces, _ = template
    region_map = load_template("synthetic").region_map
    same = replace(region_map, symmetry=np.arange(region_map.vertex_count))
    assert any("from being mirror images" in finding for finding in check_region_map(same, vertices, faces)[0])
