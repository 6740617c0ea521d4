"""The builder on altered templates: other vertex order, no symmetry, other units; and the checker on spoilt maps."""

from dataclasses import replace

import numpy as np
import pytest

from facegraft.colours import part_colours
from facegraft.geometry.outline import roughness
from facegraft.regions import build as builder
from facegraft.regions.build import build_region_map
from facegraft.regions.check import check_region_map
from facegraft.regions.groups import as_ranges, groups_by_connectivity
from facegraft.regions.landmarks import LandmarkError
from facegraft.regions.raggedness import SHORT_LOOP, loop_smoothing, roughness_limit
from facegraft.regions.regionmap import Disk, RegionMap, RegionMapError
from facegraft.regions.show import show_region_map


def members(disk: Disk) -> set[int]:
    return set(disk.loop.tolist()) | set(disk.interior.tolist())


def all_disks(region_map: RegionMap) -> dict[tuple[str, str], Disk]:
    return {(s, name): disk for s, found in region_map.regions.items() for name, disk in found.disks.items()}


@pytest.mark.slow
def test_map_does_not_depend_on_vertex_order_or_unit(load_template) -> None:
    template = load_template("synthetic")
    order = np.random.default_rng(1).permutation(len(template.vertices))
    place = np.argsort(order)
    shuffled = build_region_map(
        template.vertices[order] / 1000.0, place[template.faces], place[template.region_map.landmarks68], "shuffled"
    )
    assert shuffled.mm_per_unit == 1000.0
    assert shuffled.groups["skin"].role == "surface"
    assert {g.behind for g in shuffled.groups.values() if g.role == "inner"} == {"eye_left", "eye_right"}
    shipped, anew = all_disks(template.region_map), all_disks(shuffled)
    assert set(shipped) == set(anew)
    for name, disk in shipped.items():
        ours, found = {int(place[i]) for i in members(disk)}, members(anew[name])
        assert len(ours & found) / len(ours | found) > 0.99, name  # equal costs may fall the other way


@pytest.mark.slow
def test_a_template_without_symmetry_is_built_from_whole_loops(load_template, monkeypatch) -> None:
    template = load_template("synthetic")
    monkeypatch.setattr(builder, "mirror_map", lambda vertices, faces: None)
    built = build_region_map(template.vertices, template.faces, template.region_map.landmarks68, "plain", 1.0)
    assert built.symmetry is None
    findings, _ = check_region_map(built, template.vertices, template.faces)
    assert findings == []
    shipped, anew = all_disks(template.region_map), all_disks(built)
    assert set(shipped) == set(anew)
    for name, disk in shipped.items():
        ours, found = members(disk), members(anew[name])
        assert len(ours & found) / len(ours | found) > 0.9, name


def test_bad_meshes_are_refused_by_name(load_template) -> None:
    template = load_template("synthetic")
    v, f, marks = template.vertices, template.faces, template.region_map.landmarks68
    hurt = v.copy()
    hurt[7, 1] = np.nan
    for args, message in (
        ((hurt, f, marks), "vertex 7 is not finite"),
        ((v, f[:, :2], marks), r"triangles \[F, 3\]"),
        ((v[:100], f, marks), "a face names vertex"),
    ):
        with pytest.raises(RegionMapError, match=message):
            build_region_map(*args, "head")
    with pytest.raises(LandmarkError, match="another topology"):
        build_region_map(v, f, np.arange(68), "head", 1.0)


def test_groups_follow_the_part_they_lie_in(load_template) -> None:
    template = load_template("synthetic")
    groups = groups_by_connectivity(template.vertices, template.faces, template.region_map.landmarks68)
    x = template.vertices[:, 0]
    assert (x[groups["inside_eye_left"].vertices] > 0).all()
    assert (x[groups["inside_eye_right"].vertices] < 0).all()
    assert sum(len(g.vertices) for g in groups.values()) == len(template.vertices)


def test_ranges_hold_exactly_their_indices() -> None:
    index = np.array([9, 1, 2, 3, 7, 9, 10])
    assert as_ranges(index) == ((1, 4), (7, 8), (9, 11))
    assert as_ranges([]) == ()


def test_checker_finds_spoilt_maps(load_template) -> None:
    template = load_template("synthetic")
    good = template.region_map
    eyes = good.region_set("eyes")
    nose, mouth = eyes.disks["nose"], eyes.disks["mouth"]

    def with_disk(name: str, disk: Disk) -> list[str]:
        part = eyes.part_of[name]
        region = replace(eyes.regions[part], disks={**eyes.regions[part].disks, name: disk})
        spoilt = replace(good, regions={"eyes": replace(eyes, regions={**eyes.regions, part: region})})
        return check_region_map(spoilt, template.vertices, template.faces)[0]

    assert check_region_map(good, template.vertices, template.faces)[0] == []

    assert any(
        "share" in finding
        for finding in with_disk("mouth", Disk(mouth.loop, np.append(mouth.interior, nose.interior[:3])))
    )
    assert any("encloses to the left" in finding for finding in with_disk("nose", Disk(nose.loop[::-1], nose.interior)))
    assert any("encloses" in finding for finding in with_disk("nose", Disk(nose.loop, nose.interior[1:])))
    assert any(
        "not edges" in finding for finding in with_disk("nose", Disk(np.delete(nose.loop, [3, 5]), nose.interior))
    )
    lips = replace(eyes.regions["mouth"], holds=(48, 54, 30, 8))
    far = replace(good, regions={"eyes": replace(eyes, regions={**eyes.regions, "mouth": lips})})
    assert "eyes: part mouth does not hold its landmarks 30, 8" in check_region_map(far, template.vertices, template.faces)[0]
    sunk = replace(good, neck_crop_drop=np.append(good.neck_crop_drop, nose.interior[:4]))
    assert any(
        "eyes.nose: 4 of its vertices lie below the neck cut" in finding
        for finding in check_region_map(sunk, template.vertices, template.faces)[0]
    )
    wrong = replace(good, landmarks68=np.roll(good.landmarks68, 1))
    assert any(
        "landmarks do not fit" in finding for finding in check_region_map(wrong, template.vertices, template.faces)[0]
    )
    assert good.symmetry is not None
    crooked = replace(good, symmetry=np.roll(good.symmetry, 1))
    assert any("involution" in finding for finding in check_region_map(crooked, template.vertices, template.faces)[0])
    with pytest.raises(RegionMapError, match="vertices"):
        check_region_map(good, template.vertices[:-1], template.faces)


@pytest.mark.parametrize("mean_edge", [2.0, 6.0])
def test_short_loops_may_be_round_but_not_stairs(mean_edge: float) -> None:
    """Smoothed by two vertices, a circle of 16 would be as rough as stairs are."""
    for count in (12, 16, SHORT_LOOP - 1):
        angle = 2 * np.pi * np.arange(count) / count
        circle = np.column_stack([np.cos(angle), np.sin(angle)])
        assert roughness(circle, loop_smoothing(count)) < roughness_limit(count, mean_edge)
    steps = [(1, 0), (0, 1)] * 6 + [(-1, 0), (0, 1)] + [(-1, 0), (0, -1)] * 6 + [(1, 0), (0, -1)]  # a diagonal band
    stairs = np.cumsum(steps, axis=0).astype(float)
    assert len(stairs) == 28 < SHORT_LOOP
    assert roughness(stairs, loop_smoothing(len(stairs))) > roughness_limit(len(stairs), mean_edge)


def test_picture_shows_parts_loops_and_landmarks(load_template, tmp_path) -> None:
    from PIL import Image, ImageColor

    template = load_template("synthetic")
    path = show_region_map(template.region_map, template.vertices, template.faces, tmp_path / "map.png", size=240)
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int).reshape(-1, 3)
    rows = len(template.region_map.regions)
    assert pixels.shape[0] == 3 * 240 * rows * 240  # front, three-quarter and side view of every set
    by_row = pixels.reshape(rows, -1, 3)
    for row, (set_name, found) in enumerate(template.region_map.regions.items()):
        shade = by_row[row] / np.maximum(by_row[row].max(axis=1, keepdims=True), 1)  # lit and shaded skin of one colour agree
        for part, colour in part_colours(found.parts).items():
            wanted = np.array(ImageColor.getrgb(colour), dtype=float)
            near = np.abs(shade - wanted / wanted.max()).max(axis=1) < 0.06
            assert near.sum() > 60, f"{set_name}: {part}"
    assert (pixels.max(axis=1) < 40).sum() > 200  # loops
