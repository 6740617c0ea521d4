"""`facegraft model swap`, `interpolate`, `generate` and `components`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import refused, run_model
from facegraft_model.editing.commands import swap_fitted
from facegraft_model.editing.edit import DecodeSettings
from facegraft_model.fitting.fits import load_fits

from facegraft.errors import FacegraftError


@pytest.mark.slow
@pytest.mark.parametrize("command", ["swap", "interpolate", "generate", "components"])
def test_edits_write_meshes_numbers_and_a_sheet(house: Path, tmp_path: Path, command: str) -> None:
    keys = [
        item["key"]
        for item in json.loads((house / "fits" / "fits.json").read_text())["items"]
        if item["expression"] == "neutral"
    ]
    arguments = {
        "swap": [house / "fits", "--host", keys[0], "--nose", keys[1]],
        "interpolate": [house / "fits", "--from", keys[0], "--to", keys[1], "--steps", 1],
        "generate": [house / "run", "--count", 2],
        "components": [house / "run", "--parts", "nose", "--components", 1],
    }[command]
    run_model(command, *arguments, "-o", tmp_path, "--resolution", 48, "--quiet")
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["command"] == command
    assert all((tmp_path / name).exists() for name in numbers["files"])
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


def numbers_of(folder: Path) -> dict[str, Any]:
    """numbers.json of an edit."""
    return dict(json.loads((folder / "numbers.json").read_text()))


def test_a_part_of_any_name_is_swapped(bears: Path, tmp_path: Path) -> None:
    """An option after each part of the model, with a dash or an underscore, or --donor; all say the same."""
    common = [bears / "fits", "--host", "eve_neutral", "--resolution", 32, "--no-picture", "--quiet"]
    run_model("swap", *common, "--snout", "dave_neutral", "--lobe-left", "dave_neutral", "-o", tmp_path / "short")
    run_model("swap", *common, "--donor", "snout=dave_neutral", "--lobe_left=dave_neutral", "-o", tmp_path / "long")
    numbers = numbers_of(tmp_path / "short")
    assert numbers["donors"] == {"snout": "dave_neutral", "lobe_left": "dave_neutral"}
    assert numbers["heads"][-1]["change"]["changed"] == ["lobe_left", "snout"]
    assert set(numbers["heads"][-1]["change"]["parts"]) == {"rem", "snout", "lobe_left", "beak"}
    assert numbers == numbers_of(tmp_path / "long")
    meshes = [(tmp_path / name / "head_02.ply").read_bytes() for name in ("short", "long")]
    assert meshes[0] == meshes[1] and b"comment part: 0 rem, 1 snout, 2 lobe_left, 3 beak" in meshes[0]


def test_codes_of_a_swap_come_from_host_and_donor(bears: Path) -> None:
    fits = load_fits(bears / "fits")
    edit = swap_fitted(fits, "eve_neutral", {"beak": "dave_neutral"}, DecodeSettings(resolution=24))
    host, donor = (fits.codes_of(fits.index(key)) for key in ("eve_neutral", "dave_neutral"))
    assert set(edit.heads[-1].codes) == {"exp", "snout", "lobe_left", "beak", "rem"}
    for name, code in edit.heads[-1].codes.items():
        assert torch.equal(code, (donor if name == "beak" else host)[name]), name
    assert not torch.equal(host["beak"], donor["beak"])


def test_walks_take_all_parts_of_the_model_and_then_the_remainder(bears: Path, tmp_path: Path) -> None:
    quick = ["--resolution", 24, "--no-picture", "--quiet"]
    walk = [bears / "fits", "--from", "eve_neutral", "--to", "dave_neutral", "--steps", 1]
    run_model("interpolate", *walk, *quick, "-o", tmp_path / "walk")
    assert numbers_of(tmp_path / "walk")["order"] == ["snout", "lobe_left", "beak", "rem"]
    run_model("interpolate", *walk, "--order", "rem, beak", *quick, "-o", tmp_path / "two")
    assert numbers_of(tmp_path / "two")["order"] == ["rem", "beak"]
    run_model("components", bears / "run", "--components", 1, *quick, "-o", tmp_path / "components")
    assert numbers_of(tmp_path / "components")["parts"] == ["snout", "lobe_left", "beak", "rem"]
    run_model("generate", bears / "run", "--count", 1, *quick, "-o", tmp_path / "random")
    assert numbers_of(tmp_path / "random")["parts"] == ["snout", "lobe_left", "beak", "rem"]
    with pytest.raises(FacegraftError, match=r"no part 'beek' \(did you mean 'beak'\?\)"):
        run_model("generate", bears / "run", "--parts", "beek", *quick, "-o", tmp_path / "none")
    with pytest.raises(FacegraftError, match=r"--base eve_neutral names a fitted head, but .* is a training run"):
        run_model("generate", bears / "run", "--base", "eve_neutral", *quick, "-o", tmp_path / "none")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--snuot", "dave_neutral"], "'snuot' is neither a part nor an option (did you mean 'snout'?)"),
        (["--donor", "nose=dave_neutral"], "'nose' is neither a part nor an option; see --help"),
        (["--resolutoin", "32", "--snout", "dave_neutral"], "'resolutoin' is neither a part nor an option (did you mean 'resolution'?)"),
    ],
)  # fmt: skip
def test_a_wrong_part_is_answered_in_one_line(bears: Path, tmp_path: Path, wrong: list[str], message: str) -> None:
    said = refused("swap", bears / "fits", "--host", "eve_neutral", "-o", tmp_path / "out", "--quiet", *wrong)
    assert said.splitlines()[-1] == f"Error: the parts of this model are snout, lobe_left, beak; {message}"
    assert not (tmp_path / "out").exists()
