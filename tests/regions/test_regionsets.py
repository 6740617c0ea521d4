"""Region sets as people write them: YAML, masks, expressions; wrong ones get one clear line each."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from facegraft.regions import build as builder
from facegraft.regions.build import build_region_map
from facegraft.regions.check import check_region_map
from facegraft.regions.expressions import evaluate
from facegraft.regions.regionmap import RegionMapError
from facegraft.regions.regionsets import RegionSetError, read_region_set, read_region_sets, shipped_sets
from facegraft.surfaces.topology import grow_rings, vertex_adjacency

DISK = {
    "name": "forehead",
    "seed": [0, "y27 + 45"],
    "let": {"top": "y27 + 70", "low": "y24 + 12"},
    "half": [[0, "top"], ["x24", "top - 4"], ["1.2 * x26", "0.5 * (top + low)"], ["x25", "low"], [0, "low"]],
    "medial": [[0, "0.5 * (top + low)"], ["0.6 * x26", "0.5 * (top + low)"]],
}
PART = {"name": "forehead", "landmarks": [19, 21, 22, 24, 27], "holds": [], "disks": [DISK]}


def write(path, document):
    plain = json.loads(json.dumps(document))  # without YAML's aliases
    path.write_text(yaml.safe_dump(plain, sort_keys=False))
    return path


def with_disk(**changes):
    disk = {key: value for key, value in {**DISK, **changes}.items() if value is not None}
    return {"parts": [{**PART, "disks": [disk]}]}


def build(template, *specs, **kwargs):
    args = template.vertices, template.faces, template.region_map.landmarks68, "synthetic", 1.0
    return build_region_map(*args, groups=dict(template.region_map.groups), sets=list(specs), **kwargs)


# -- expressions --------------------------------------------------------------------------------------------------------

names = {"x42": 21.5, "y8": -109.25, "half": 15.0}
leaves = st.one_of(
    st.integers(0, 1000).map(str), st.floats(0.001, 1000.0, allow_nan=False).map(repr), st.sampled_from(sorted(names))
)
texts = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        inner.map(lambda t: f"-{t}"),
        st.tuples(st.sampled_from(["min", "max", "mean"]), st.lists(inner, min_size=2, max_size=4)).map(
            lambda t: f"{t[0]}({', '.join(t[1])})"
        ),
    ),
    max_leaves=12,
)


@given(texts)
def test_evaluate_gives_what_python_gives(text: str) -> None:
    if len(text) > 500:
        with pytest.raises(ValueError, match="neither a number nor an expression"):
            evaluate(text, names)
        return
    functions = {"min": min, "max": max, "mean": lambda *values: float(np.mean(values))}
    try:
        wanted = float(eval(text, {"__builtins__": {}}, {**names, **functions}))
    except ZeroDivisionError:
        with pytest.raises(ValueError, match="cannot be computed"):
            evaluate(text, names)
        return
    assert evaluate(text, names) == pytest.approx(wanted, rel=1e-12, abs=1e-300, nan_ok=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__import__('os')", "not understood"),
        ("x42.real", "not understood"),
        ("x42 ** 2", "not understood"),
        ("[1, 2]", "not understood"),
        ("max()", "not understood"),
        ("x99", "'x99' is not known here"),
        ("1 +", "cannot be computed"),
        ("1 / 0", "cannot be computed"),
        ("True", "not understood"),
        (True, "neither a number"),
        ("1" * 600, "neither a number"),
        ("(" * 240 + ")" * 240, "cannot be computed"),
    ],
)
def test_other_texts_are_refused_in_one_line(text, message) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        evaluate(text, names)
    assert "\n" not in str(caught.value)


# -- YAML ---------------------------------------------------------------------------------------------------------------


def test_the_shipped_sets_are_read_in_order_and_only_full_is_optional() -> None:
    found = {spec.name: spec for spec in shipped_sets()}
    assert list(found) == ["eyes", "full", "goggles"]
    assert [name for name, spec in found.items() if spec.optional] == ["full"]
    for spec in found.values():
        assert all(len(part.landmarks) == 5 for part in spec.parts)


def test_a_borrowed_part_is_the_other_set_s(tmp_path) -> None:
    path = write(tmp_path / "mine.yaml", {"name": "mine", "parts": [{"name": "mouth", "from": "eyes"}, PART]})
    mouth, forehead = read_region_set(path).parts
    assert mouth == next(part for part in read_shipped("eyes").parts if part.name == "mouth")
    assert forehead.landmarks == (19, 21, 22, 24, 27) and forehead.holds == ()
    # a set beside the file comes before the shipped one of the same name
    write(tmp_path / "eyes.yaml", {"name": "eyes", "parts": [{**PART, "name": "mouth"}]})
    write(path, {"name": "mine", "parts": [{"name": "mouth", "from": "eyes"}]})
    assert read_region_set(path).parts[0].landmarks == (19, 21, 22, 24, 27)


def read_shipped(name):
    return next(spec for spec in shipped_sets() if spec.name == name)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "maps `name` to its name and `parts` to a list"),
        ({"name": "a"}, "maps `name` to its name and `parts` to a list"),
        ({"parts": [PART], "colour": 1}, "the set: unknown entry 'colour'"),
        ({"name": "Two words", "parts": [PART]}, "region set name .* must be lower case"),
        ({"parts": ["nose"]}, "each part needs `name`, `landmarks` and `disks`"),
        ({"parts": [{**PART, "disks": []}]}, "each part needs"),
        ({"parts": [{**PART, "name": "rem"}]}, "cannot be called 'rem'"),
        ({"parts": [{**PART, "color": "red"}]}, "part forehead: unknown entry 'color'"),
        ({"parts": [{**PART, "landmarks": [1, 2, 3, 4, 68]}]}, "part forehead: landmarks: must be iBUG landmarks"),
        ({"parts": [{**PART, "landmarks": [1, 2, 3]}]}, "needs five landmarks"),
        ({"parts": [{**PART, "holds": "all"}]}, "part forehead: holds"),
        ({"parts": [PART, {**PART, "name": "brow"}]}, "disk 'forehead' comes twice"),
        ({"parts": [PART, {**PART, "disks": [{**DISK, "name": "other"}]}]}, "names part 'forehead' twice"),
        ({"parts": [{"name": "nose", "from": "nowhere"}]}, "there is no other region set 'nowhere'"),
        ({"parts": [{"name": "tongue", "from": "eyes"}]}, "region set eyes has no such part"),
        ({"parts": [{"name": "nose", "from": "eyes", "disks": []}]}, "a part of another set: unknown entry 'disks'"),
        ({"parts": [{**PART, "disks": ["one"]}]}, "a disk maps names to values"),
        (with_disk(radius=1), "disk forehead: unknown entry 'radius'"),
        (with_disk(half=None), "give either `half`"),
        (with_disk(outline=DISK["half"]), "give either `half`"),
        (with_disk(mirror_of="nose"), "has both mirror_of and seed"),
        ({"parts": [{**PART, "disks": [{"name": "a", "mirror_of": "b"}]}]}, "mirror_of names 'b', which is not a disk before it"),
        (with_disk(half=[[0, 1]]), "disk forehead: outline must be at least 3 points"),
        (with_disk(half=[[0, 1], [1, 2], [0]]), "disk forehead: outline must be at least 3 points"),
        (with_disk(medial=None), "disk forehead: medial must be at least 2 points"),
        (with_disk(seed=None), "disk forehead: seed"),
        (with_disk(seed=70), "disk forehead: seed"),
        (with_disk(seed=[1]), "disk forehead: seed must be at least 1 point"),
        (with_disk(let=[1]), "disk forehead: let maps names to expressions"),
        (with_disk(features=3), "disk forehead: features is a list"),
        (with_disk(features=[[99]]), "disk forehead: features"),
        (with_disk(features=[[]]), "disk forehead: features: a polygon needs two landmarks or more"),
        (with_disk(features=[[54]]), "disk forehead: features: a polygon needs two landmarks or more"),
        (with_disk(let={"x24": 3}), "disk forehead: let names 'x24', which is a coordinate of a landmark"),
        (with_disk(carries=[["mouth"]]), "disk forehead: carries lists some of"),
        ({"parts": [PART], "optional": "no"}, "optional is true or false, not 'no'"),
        (with_disk(carries=["nose"]), "disk forehead: carries lists some of eye_left, eye_right, mouth"),
        (with_disk(residual_mm=[1]), "disk forehead: residual_mm is two lengths"),
    ],
)
def test_wrong_yaml_gets_one_line_with_file_and_place(tmp_path, document, message) -> None:
    path = write(tmp_path / "mine.yaml", document)
    with pytest.raises(RegionSetError, match=message) as caught:
        read_region_set(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.yaml", None, "cannot be read"),
        ("a.txt", b"", "a region set is a .yaml file of outlines, or a .json or .npz file"),
        ("a.yaml", b"parts: [", "a.yaml"),
        ("a.yaml", b"\xff\xfe", "a.yaml"),
        ("a.json", b"{", "not a JSON file"),
        ("a.json", b"[1]", "masks are a JSON object"),
        ("a.json", b"{}", "holds no masks"),
        ("a.json", b'{"nose": ["a"]}', "mask nose: must be vertex indices"),
        ("a.json", b'{"nose": []}', "mask nose: must be vertex indices"),
        ("a.json", b'{"nose": [[1, 2], [3]]}', "a.json"),
        ("a.json", b'{"Nose!": [1, 2]}', "part name"),
        ("a.json", b'{"nose": [1, 2], "nose": [3]}', "field 'nose' comes twice"),
        ("a.json", b'{"nose": [false, false]}', "mask nose: .* names no vertex"),
        ("a.npz", b"nonsense", "a.npz: not an npz file of arrays of numbers"),
        ("a.npz", b"", "a.npz: not an npz file of arrays of numbers"),
        ("a.npz", b"PK\x03\x04 and no more", "a.npz: not an npz file of arrays of numbers"),
    ],
)
def test_unreadable_files_are_named(tmp_path, name, content, message) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RegionSetError, match=message) as caught:
        read_region_set(path)
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("lone", [np.arange(9), np.array([None, 1], dtype=object)])
def test_an_npz_of_something_else_is_named(tmp_path, lone) -> None:
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        np.save(file, lone, allow_pickle=True)
    with pytest.raises(RegionSetError, match=r"a.npz: not an npz file of arrays of numbers"):
        read_region_set(path)


def test_two_files_of_one_name_are_refused(tmp_path) -> None:
    (tmp_path / "b").mkdir()
    one, two = write(tmp_path / "one.yaml", {"name": "mine", "parts": [PART]}), tmp_path / "b" / "mine.json"
    two.write_text('{"nose": [1, 2, 3]}')
    with pytest.raises(RegionSetError, match="gives a region set 'mine' too"):
        read_region_sets([one, two])


def test_a_set_of_one_s_own_is_traced_from_a_seed_that_is_a_point(load_template, tmp_path) -> None:
    template = load_template("synthetic")
    spec = read_region_set(write(tmp_path / "mine.yaml", {"name": "mine", "parts": [{"name": "mouth", "from": "eyes"}, PART]}))
    built = build(template, spec)
    assert list(built.regions) == ["mine"]
    assert built.region_set("mine").parts.names == ("mouth", "forehead")
    findings, figures = check_region_map(built, template.vertices, template.faces)
    assert findings == []
    assert set(figures["mine"]) == {"mouth", "forehead"}
    shipped = template.region_map.region_set("eyes").disks["mouth"]
    assert np.array_equal(built.region_set("mine").disks["mouth"].loop, shipped.loop)
    forehead = built.region_set("mine").disks["forehead"]
    height = template.vertices[:, 1]
    assert height[forehead.interior].min() > height[template.region_map.landmarks68[24]]


def test_the_example_of_the_manual_is_sound(load_template, tmp_path) -> None:
    manual = (Path(__file__).resolve().parents[2] / "docs" / "regions.md").read_text()
    [example] = re.findall(r"```yaml\n(# forehead\.yaml.*?)```", manual, re.DOTALL)
    (tmp_path / "forehead.yaml").write_text(example)
    template = load_template("synthetic")
    built = build(template, read_region_set(tmp_path / "forehead.yaml"))
    assert built.region_set("forehead").parts.names == ("mouth", "forehead", "temples")
    assert list(built.region_set("forehead").regions["temples"].disks) == ["temple_left", "temple_right"]
    assert check_region_map(built, template.vertices, template.faces)[0] == []


def test_a_name_that_the_mesh_lacks_stops_the_build_unless_the_set_is_optional(load_template, tmp_path, monkeypatch, caplog) -> None:
    template = load_template("synthetic")
    monkeypatch.setattr(builder, "ear_places", lambda face, skin, flat: {})
    full = read_shipped("full")
    built = build(template, full, read_shipped("goggles"))
    assert list(built.regions) == ["goggles"]
    assert "region set full is left out: disk ear_left: 'ear_front' is not known here" in caplog.text
    document = {"name": "mine", "parts": [PART]}
    path = write(tmp_path / "mine.yaml", {**document, "parts": with_disk(let={"top": "y27 + 70", "low": "ear_top"})["parts"]})
    with pytest.raises(RegionMapError, match="disk forehead: 'ear_top' is not known here"):
        build(template, read_region_set(path))


# -- masks --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def patches(load_template):
    """Two patches of skin around the outer corners of both eyes' lids, and a nose that overlaps nothing."""
    template = load_template("synthetic")
    eyes = template.region_map.region_set("eyes")
    both = np.concatenate([np.append(eyes.disks[name].loop, eyes.disks[name].interior) for name in ("eye_left", "eye_right")])
    nose = np.append(eyes.disks["nose"].loop, eyes.disks["nose"].interior)
    return template, both, nose


def test_masks_from_json_and_npz_are_the_same_set(patches, tmp_path) -> None:
    template, both, nose = patches
    (tmp_path / "My-Masks.json").write_text(json.dumps({"nose": nose.tolist(), "eyes": both.tolist()}))
    flags = np.zeros(len(template.vertices), dtype=bool)
    flags[both] = True
    np.savez(tmp_path / "my_masks.npz", nose=nose, eyes=flags)
    one, two = read_region_set(tmp_path / "My-Masks.json"), read_region_set(tmp_path / "my_masks.npz")
    assert one.name == two.name == "my_masks"
    for a, b in zip(one.parts, two.parts, strict=True):
        assert a.name == b.name and np.array_equal(a.disks[0].mask, b.disks[0].mask)


def test_a_mask_of_two_pieces_is_a_left_and_a_right_disk_that_carry_their_eyeballs(patches, tmp_path) -> None:
    template, both, nose = patches
    (tmp_path / "masks.json").write_text(json.dumps({"nose": nose.tolist(), "eyes": both.tolist()}))
    built = build(template, read_region_set(tmp_path / "masks.json"))
    found = built.region_set("masks")
    assert found.parts.names == ("nose", "eyes")
    assert list(found.regions["eyes"].disks) == ["eyes_left", "eyes_right"]
    shipped = template.region_map.region_set("eyes").disks
    for side in ("left", "right"):
        assert set(found.disks[f"eyes_{side}"].interior) == set(shipped[f"eye_{side}"].interior)
        assert np.array_equal(found.disks[f"eyes_{side}"].loop, shipped[f"eye_{side}"].loop)
        assert found.disks[f"eyes_{side}"].followers == shipped[f"eye_{side}"].followers != ()
    assert set(found.regions["eyes"].landmarks) <= set(range(36, 48))
    assert check_region_map(built, template.vertices, template.faces)[0] == []


def test_masks_that_overlap_give_way_to_the_parts_before_them(patches, tmp_path) -> None:
    template, _, nose = patches
    skin = template.region_map.skin_faces(template.faces)
    adjacency = vertex_adjacency(skin, len(template.vertices))
    wide = np.concatenate([nose, *grow_rings(adjacency, nose, 12)])
    wide = wide[template.vertices[wide, 0] > -2.0]  # the nose's left half with much around it
    (tmp_path / "masks.json").write_text(json.dumps({"nose": nose.tolist(), "flank": wide.tolist()}))
    built = build(template, read_region_set(tmp_path / "masks.json"))
    disks = built.region_set("masks").disks
    assert set(disks["nose"].interior) == set(template.region_map.region_set("eyes").disks["nose"].interior)
    findings, figures = check_region_map(built, template.vertices, template.faces)
    assert not any("share" in finding or "only" in finding for finding in findings), findings
    assert all(values["gap"] >= 2 for values in figures["masks"].values())


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([10**6], "mask nose: names vertex 1000000, but the mesh has 16324"),
        ([-1, 3], "mask nose: names vertex -1"),
        ([1 << 63], "region set masks: mask nose: names vertex 9223372036854775807"),
        ([0], "mask nose: covers no whole triangle"),
        ([True] * 16323, "mask nose: says of 16323 vertices .* but the mesh has 16324"),
        ([True] * 16325, "mask nose: says of 16325 vertices .* but the mesh has 16324"),
    ],
)
def test_masks_that_do_not_fit_the_mesh_are_refused(load_template, tmp_path, mask, message) -> None:
    (tmp_path / "masks.json").write_text(json.dumps({"nose": mask}))
    with pytest.raises(RegionMapError, match=message) as caught:
        build(load_template("synthetic"), read_region_set(tmp_path / "masks.json"))
    assert "\n" not in str(caught.value)


def test_pieces_of_masks_get_names_that_a_region_map_may_have(patches, tmp_path) -> None:
    template, both, nose = patches
    (tmp_path / "masks.json").write_text(json.dumps({"eye": both.tolist(), "eye_left": nose.tolist()}))
    with pytest.raises(RegionMapError, match="mask eye_left: there is a disk 'eye_left' already"):
        build(template, read_region_set(tmp_path / "masks.json"))
    (tmp_path / "masks.json").write_text(json.dumps({"a" * 30: both.tolist()}))
    with pytest.raises(RegionMapError, match=r"mask a{30}: of a piece of it, .*a_left' must be lower case letters, .* 30 at most"):
        build(template, read_region_set(tmp_path / "masks.json"))


def test_a_mask_inside_those_before_it_is_told_to_whom_it_gives_way(patches, tmp_path) -> None:
    template, _, nose = patches
    (tmp_path / "masks.json").write_text(json.dumps({"nose": nose.tolist(), "tip": nose.tolist()}))
    with pytest.raises(RegionMapError, match=r"mask tip: lies inside the disks before it, .* \(nose\)"):
        build(template, read_region_set(tmp_path / "masks.json"))


@pytest.mark.parametrize("number", [".nan", ".inf", "1e308 * 1e308"])
def test_points_that_are_nowhere_are_refused(load_template, tmp_path, number) -> None:
    path = write(tmp_path / "mine.yaml", with_disk(half=[*DISK["half"][:-1], [0, "LAST"]]))
    path.write_text(path.read_text().replace("LAST", number))
    with pytest.raises(RegionMapError, match=r"region set mine: disk forehead: .* is not a finite number"):
        build(load_template("synthetic"), read_region_set(path))


def test_a_map_that_could_not_be_read_is_not_written(load_template, tmp_path) -> None:
    template = load_template("synthetic")
    with pytest.raises(RegionMapError, match="name must be a line of text"):
        replace(template.region_map, name="two\nlines").save(tmp_path / "map.json")
    assert not (tmp_path / "map.json").exists()


def test_a_mask_of_one_strip_has_no_inside(load_template, tmp_path) -> None:
    template = load_template("synthetic")
    (tmp_path / "masks.json").write_text(json.dumps({"strip": template.faces[5000].tolist()}))
    with pytest.raises(RegionMapError, match="mask strip: is only a strip one triangle wide"):
        build(template, read_region_set(tmp_path / "masks.json"))
