"""`facegraft paper`: the paper's tables and figures on one page."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from facegraft_model.decoding.extract import EmptyFieldError
from facegraft_model.errors import ModelError
from pages import commands_on, parsed, tables_on

from facegraft.cli.main import cli
from facegraft.cli.model.paper import QUICK, _words
from facegraft.paper import making
from facegraft.paper.making import five_of


def test_a_folder_without_samples_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["paper", str(tmp_path)])
    assert result.exit_code != 0 and "has no finished samples" in str(result.exception)


def test_the_command_on_the_page_has_the_values_of_the_comparison() -> None:
    values = {**QUICK, "seeds": "0,1", "seconds": None, "align": "icp", "seed": 0, "device": "auto", "surfaces": None, "quiet": True}
    read = parsed(f"facegraft model compare samples -o out {' '.join(_words(values))}")
    assert {name: read[name] for name in values if name != "quiet"} == {name: value for name, value in values.items() if name != "quiet"}
    assert _words({"resolution": 256, "pairs": 20, "settings": ()}) == [], "defaults are left out"


@pytest.mark.parametrize(
    ("name", "five"),
    [("paper", "paper-five"), ("paper-small", "paper-small@model.landmarks=five"), ("paper-five", None), ("facegraft", None), ("linear", None), ("imface-small", None)],
)
def test_methods_that_blend_by_landmarks_have_a_sibling_with_five(name: str, five: str | None) -> None:
    assert five_of(name) == five


def test_an_unknown_method_is_refused_before_anything_is_made(bears: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["paper", str(bears), "-o", str(tmp_path / "page"), "--methods", "papr"])
    assert isinstance(result.exception, ModelError) and "papr" in str(result.exception)
    assert not (tmp_path / "page").exists()


def test_a_page_of_what_a_folder_allows(bears: Path, tmp_path: Path) -> None:
    """Spheres have no heads, composites or registered model: the page says so, and has the rest."""
    arguments = ["paper", str(bears), "-o", str(tmp_path), "--methods", "linear", "--points", "500", "--part-points", "100", "--pairs", "0", "--quiet"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    page = tmp_path / "index.html"
    text = page.read_text()
    places = [text.index(f'<section id="{name}"') for name in ("figure-1", "figure-2-8", "figure-4", "reconstruction", "figure-7", "landmarks")]
    assert places == sorted(places)
    assert "No method with codes of parts was trained" in text and "add paper or paper-small to --methods" in text
    ((row,),) = tables_on(page)
    assert row[0] == "linear" and all(float(cell) >= 0 for cell in row[1:])
    assert parsed(next(command for command in commands_on(page) if "compare" in command))["methods"] == "linear"


@pytest.mark.slow
def test_a_head_without_a_surface_does_not_cost_the_page(bears: Path, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(*_: object, **__: object) -> None:
        raise EmptyFieldError("extraction: no surface")

    monkeypatch.setattr(making, "figure_heads", empty)
    arguments = ["paper", str(bears), "-o", str(tmp_path), "--quick", "--methods", "linear,tiny", "--steps", "10", "--quiet", *small]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "index.html").read_text()
    assert "extraction: no surface" in text and len(tables_on(tmp_path / "index.html")[0]) == 2
    assert (tmp_path / "components" / "sheet.png").exists() and (tmp_path / "interpolated" / "sheet.png").exists()
