"""Values of `--set` and of recipes: names stay as they were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from facegraft.cli.options import count_or_names
from facegraft.heads.errors import SourceError
from facegraft.heads.split import read_subject_list
from facegraft.recipe import load_recipe
from facegraft.settings import parse_setting, read_yaml
from facegraft.stages.ingest import IngestParameters
from facegraft.stages.parameters import ParameterError


@pytest.mark.parametrize(
    "text", ["010", "08", "00", "-0", "+5", "1_000", "0x10", "0b11", "0o7", "1:30", "12:30:45", "2024-01-05", "2001-99-99", "1e3", "=", "y", "n"]
)
def test_text_that_yaml_reads_as_something_else(text: str) -> None:
    assert read_yaml(text) == text
    assert read_yaml(f"[{text}, a]") == [text, "a"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("-7", -7), ("10", 10), ("1.5", 1.5), ("-.5", -0.5), ("1.0e-3", 1e-3), (".inf", float("inf")), ("true", True), ("False", False), ("on", True), ("No", False), ("null", None), ("~", None), ("", None)],
)
def test_what_is_not_text(text: str, value: Any) -> None:
    read = read_yaml(text)
    assert read == value and type(read) is type(value)


def test_test_subjects_stay_as_they_are_written(tmp_path: Path) -> None:
    _, name, value = parse_setting("ingest.test_subjects=[010, 012, 7]")
    assert IngestParameters.parse({"kind": "meshes", name: value}).test_subjects == ("010", "012", "7")
    (tmp_path / "r.yaml").write_text("ingest: {kind: meshes, test_subjects: [010, 2024-01-05, 'no'], expressions: [02, 3]}\n")
    chosen = IngestParameters.parse(load_recipe(tmp_path / "r.yaml").of("ingest"))
    assert (chosen.test_subjects, chosen.expressions) == (("010", "2024-01-05", "no"), ("02", "3"))
    assert IngestParameters.parse(chosen.as_json()) == chosen
    (tmp_path / "list.txt").write_text("\ufeff010\n012\n", "utf-8")
    assert read_subject_list(str(tmp_path / "list.txt")) == ["010", "012"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("test_subjects=3", r"test_subjects=3: write a list of names, \[3\], or the path of a text file of them; a share of the subjects is test_fraction"),
        ("test_subjects=0.2", r"write a list of names, \[0.2\], or the path"),
        ("test_subjects=[1.10]", "a name is text, and this was read as the number 1.1: write the name in quotes"),
        ("test_subjects=[true]", "a name is text, and this was read as true: write the name in quotes"),
        ("expressions=[no, smile]", "a name is text, and this was read as false: write the name in quotes"),
        ("test_subjects=[~]", "a name is text, and this was read as nothing"),
        ("test_subjects=[[1]]", "a name is text, not a list"),
        ("expressions=neutral,smile", r"write a number, or a list of names: \[neutral,smile\]"),
        ("expressions=1.5", "write a number, or a list of names"),
    ],
)
def test_what_is_no_list_of_names_is_answered_in_words(setting: str, message: str) -> None:
    _, name, value = parse_setting(setting)
    with pytest.raises(ParameterError, match=message):
        IngestParameters.parse({"kind": "meshes", name: value})


def test_names_without_a_list() -> None:
    with pytest.raises(SourceError, match=r"3,4: cannot read the list .* or the names themselves as a list: \[3,4\]"):
        read_subject_list("3,4")


def test_counts_and_names_of_an_option() -> None:
    assert count_or_names(None, None, "3") == 3  # type: ignore[arg-type]
    for text in ("010", "\u00b2", "\u0663", "a"):
        assert count_or_names(None, None, text) == [text]  # type: ignore[arg-type]
    assert count_or_names(None, None, "1, b") == ["1", "b"]  # type: ignore[arg-type]
