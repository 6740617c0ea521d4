"""`facegraft model swap`, `interpolate`, `generate` and `components`."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import refused, run_model
from facegraft_model.editing.commands import swap_fitted
from facegraft_model.editing.edit import DecodeSettings
from facegraft_model.evaluation.evaluate import fit_pictures
from facegraft_model.fitting.fits import load_fits

from facegraft.errors import FacegraftError
from facegraft.report import modelsheets
from facegraft.surfaces.surface import Surface


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


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The sheets that commands would draw: rows and options of each."""
    drawn: list[dict[str, Any]] = []
    monkeypatch.setattr(modelsheets, "write_face_sheet", lambda path, rows, **options: drawn.append({"rows": rows, **options}))
    return drawn


def test_an_interpolation_shows_the_true_heads_and_the_parts_close_up(
    bears: Path, tmp_path: Path, sheets: list[dict[str, Any]]
) -> None:
    walk = [bears / "fits", "--from", "eve_neutral", "--to", "dave_neutral", "--steps", 1, "--order", "beak,rem"]
    quick = ["--resolution", 32, "--quiet", "-o", tmp_path / "walk"]
    said = run_model("interpolate", *walk, *quick)
    assert "without the true heads" not in said
    (sheet,) = sheets
    assert sheet["row_titles"] == ["from, to", "beak", "rem"] and sheet["colour_limit_mm"] == 4.0
    ends, beak, rem = sheet["rows"]
    assert [tile.caption for tile in ends[:3]] == [f"eve_neutral, {what}" for what in ("truth", "fit", "distance")]
    # Truth and fit are where the other heads of the sheet are: the walk begins with the first fit.
    np.testing.assert_allclose(ends[1].vertices, beak[0].vertices, atol=1e-4)
    for truth, fit, distance in (ends[:3], ends[3:]):
        nearest = Surface(truth.vertices, truth.faces).nearest(fit.vertices).distance
        np.testing.assert_allclose(distance.values, nearest, atol=1e-4)
        assert np.array_equal(fit.vertices, distance.vertices) and np.median(nearest) < 10 < np.ptp(truth.vertices[:, 0])
    assert [tile is None or tile.close_up is None for tile in beak] == [True] * 4 + [False] * 2
    assert [tile is None for tile in rem] == [False] * 4  # no close-up of the remainder
    # The first head of a group shows what the last part has changed, as the last head of that part's group does.
    assert beak[2] is None and rem[2].caption == "displacement by beak"
    assert np.array_equal(rem[2].values, beak[3].values) and rem[2].values.max() > 0
    assert np.array_equal(rem[2].vertices, rem[0].vertices)

    fits = shutil.copytree(bears / "fits", tmp_path / "fits")
    document = json.loads((fits / "fits.json").read_text())
    (fits / "fits.json").write_text(json.dumps({**document, "samples": str(tmp_path / "gone")}))
    said = run_model("interpolate", fits, *walk[1:], *quick, "--limit-mm", 2.5)
    assert "The picture is without the true heads: " in said and "gone" in said
    assert sheets[1]["row_titles"] == ["beak", "rem"] and sheets[1]["colour_limit_mm"] == 2.5
    run_model("interpolate", fits, *walk[1:], *quick, "--samples", bears / "samples", "--surfaces", bears / "surfaces")
    assert sheets[2]["row_titles"] == ["from, to", "beak", "rem"]
    with pytest.raises(FacegraftError, match="gone"):
        run_model("interpolate", fits, *walk[1:], *quick, "--samples", tmp_path / "gone")


def test_true_heads_are_shown_in_the_frame_of_the_model(bears: Path) -> None:
    """The pose that a fit found is applied to the truth, and the fit itself stays as it is decoded."""
    fits = load_fits(bears / "fits")
    turn, scale = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]), fits.field.mm_per_unit
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = 0.9 * turn, (0.1, 0.0, -0.2)
    posed = replace(fits, alignment=torch.from_numpy(pose).repeat(len(fits), 1, 1))
    plain, moved = (
        fit_pictures(which, bears / "samples", keys=["eve_neutral"], resolution=24, in_model=True)[0] for which in (fits, posed)
    )
    assert plain["key"] == "eve_neutral"
    np.testing.assert_allclose(moved["fit"][0], plain["fit"][0], atol=1e-6)
    np.testing.assert_allclose(moved["truth"][0], 0.9 * plain["truth"][0] @ turn.T + scale * pose[:3, 3], atol=1e-6)


def test_a_figure_of_random_parts_takes_the_first_neutral_heads(
    bears: Path, tmp_path: Path, sheets: list[dict[str, Any]]
) -> None:
    quick = ["--resolution", 24, "--quiet", "--parts", "snout,rem"]
    run_model("generate", bears / "fits", "--figure", *quick, "--count", 1, "-o", tmp_path / "first")
    numbers = numbers_of(tmp_path / "first")
    assert numbers["bases"] == ["dave_neutral", "eve_neutral"] and numbers["draws"] == 1
    assert sheets[0]["column_titles"] == ["original", "Snout", "Rem"]
    assert sheets[0]["row_titles"] == ["dave_neutral", "", "eve_neutral", ""]
    assert [[tile is None for tile in row] for row in sheets[0]["rows"][:2]] == [[False] * 3, [True, False, False]]
    again = ["--base", "eve_neutral", "--base", "dave_neutral", "--no-picture"]
    run_model("generate", bears / "fits", "--figure", *quick, *again, "-o", tmp_path / "again")
    assert numbers_of(tmp_path / "again")["bases"] == ["eve_neutral", "dave_neutral"]
    # eve's first random snout
    assert (tmp_path / "first" / "head_04.ply").read_bytes() == (tmp_path / "again" / "head_01.ply").read_bytes()
    said = refused("generate", bears / "fits", *again[:4], "-o", tmp_path / "none")
    assert said.splitlines()[-1] == "Error: several heads (--base) need --figure"


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
