"""`facegraft regions build --set`, `check` and `show`, end to end on files: outlines, masks as JSON and as npz."""

import json
import re

import click.testing
import numpy as np
import pytest
import yaml

from facegraft.cli.regions import regions
from facegraft.regions.regionmap import load_region_map

CHIN = {
    "name": "chin",
    "parts": [{"name": "nose", "from": "eyes"}, {"name": "chin", "from": "full"}],
}


def invoke(*arguments: object) -> click.testing.Result:
    return click.testing.CliRunner().invoke(regions, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def files(load_template, tmp_path_factory):
    """The synthetic template as OBJ, its landmarks, and one set in each of the three forms."""
    folder, template = tmp_path_factory.mktemp("regions"), load_template("synthetic")
    lines = [f"v {x!r} {y!r} {z!r}" for x, y, z in template.vertices.tolist()]
    lines += [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in template.faces.tolist()]
    (folder / "head.obj").write_text("\n".join(lines) + "\n")
    (folder / "marks.json").write_text(json.dumps(template.region_map.landmarks68.tolist()))
    (folder / "chin.yaml").write_text(yaml.safe_dump(CHIN))
    eyes = template.region_map.region_set("eyes").disks
    masks = {name: np.append(eyes[name].loop, eyes[name].interior) for name in ("mouth", "nose")}
    (folder / "listed.json").write_text(json.dumps({name: mask.tolist() for name, mask in masks.items()}))
    np.savez(folder / "packed.npz", **masks)
    return folder


def build(files, output, *more: object) -> click.testing.Result:
    marks = ("--landmarks", files / "marks.json", "--name", "mine", "--mm-per-unit", 1)
    return invoke("build", files / "head.obj", *marks, *more, "-o", output)


def test_given_sets_are_built_checked_and_drawn(files, tmp_path) -> None:
    from PIL import Image

    path = tmp_path / "mine.json"
    sets = [argument for name in ("chin.yaml", "listed.json", "packed.npz") for argument in ("--set", files / name)]
    result = build(files, path, *sets)
    assert result.exit_code == 0, result.output
    for figures in ("chin.chin", "chin.nose", "listed.mouth", "listed.nose", "packed.mouth", "packed.nose"):
        assert f"  {figures}: loop " in result.output
    assert result.output.endswith("  sound\n")
    built = load_region_map(path)
    assert {name: found.parts.names for name, found in built.regions.items()} == {
        "chin": ("nose", "chin"),
        "listed": ("mouth", "nose"),
        "packed": ("mouth", "nose"),
    }
    again = invoke("check", path, files / "head.obj")
    assert again.exit_code == 0 and again.output == result.output.split("\n", 1)[1]
    drawn = invoke("show", path, files / "head.obj", "-o", tmp_path / "mine.png")
    assert drawn.exit_code == 0, drawn.output
    width, height = Image.open(tmp_path / "mine.png").size
    assert width == height  # three views of three sets


def test_a_set_that_cannot_be_read_stops_before_anything_is_written(files, tmp_path) -> None:
    (tmp_path / "bad.yaml").write_text("parts: [{name: nose, from: nowhere}]\n")
    result = build(files, tmp_path / "mine.json", "--set", tmp_path / "bad.yaml")
    assert result.exit_code != 0
    assert "bad.yaml: part nose: there is no other region set 'nowhere'" in str(result.exception)
    assert not (tmp_path / "mine.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda faces: faces.__setitem__(2000, faces[2000][::-1]), "head.obj: face 2000 .* is wound against its neighbours: flip it"),
        (lambda faces: faces.reverse() or faces.__setitem__(slice(None), [face[::-1] for face in faces]), "the faces look inwards"),
        (lambda faces: faces.append(faces[2000]), "lies on the same vertices as another"),
    ],
)
def test_a_fault_of_the_mesh_stops_the_build_and_is_named(files, load_template, tmp_path, change, message) -> None:
    template = load_template("synthetic")
    faces = template.faces.tolist()
    change(faces)
    lines = [f"v {x!r} {y!r} {z!r}" for x, y, z in template.vertices.tolist()] + [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in faces]
    (tmp_path / "head.obj").write_text("\n".join(lines) + "\n")
    result = invoke("build", tmp_path / "head.obj", "--landmarks", files / "marks.json", "--name", "mine", "-o", tmp_path / "mine.json")
    assert result.exit_code != 0 and "sound" not in result.output
    assert re.search(message, str(result.exception)) and "\n" not in str(result.exception) and "landmark" not in str(result.exception)
    assert not (tmp_path / "mine.json").exists()


def test_help_says_what_set_leaves_out() -> None:
    text = " ".join(invoke("build", "--help").output.split())
    assert "With it, the map has only the given sets; without it, those that facegraft ships." in text
