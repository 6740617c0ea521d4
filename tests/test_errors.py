"""What messages of errors are made of."""

from __future__ import annotations

import pytest

from facegraft.errors import did_you_mean, nearest, printable


@pytest.mark.parametrize(
    ("name", "known", "otherwise", "end"),
    [
        ("nsoe", ["nose", "mouth"], None, " (did you mean 'nose'?)"),
        ("xyz", ["mouth", "nose"], None, "; there are mouth, nose"),
        ("xyz", ["mouth"], "name one of the model's", "; name one of the model's"),
        ("moth", ["mouth"], "name one of the model's", " (did you mean 'mouth'?)"),
        ("x", [], None, "; there are none"),
        ("x", [f"part{number:02d}" for number in range(14)], None, ", part11, …"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(
    name: str, known: list[str], otherwise: str | None, end: str
) -> None:
    assert nearest(name, iter(known), otherwise).endswith(end)


def test_a_name_that_is_like_none_is_not_guessed() -> None:
    assert did_you_mean("xyz", ["nose"]) == "" and did_you_mean("noze", iter(["nose"])) == " (did you mean 'nose'?)"


def test_what_a_strangers_file_says_is_one_short_line() -> None:
    assert printable("a\nb\x1b[2J") == "a\\nb\\x1b[2J"
    assert printable("x" * 100) == "x" * 80 + "…"
