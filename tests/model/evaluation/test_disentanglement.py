"""The table of leakage and swap error: a column for each part, whatever the parts are, and as wide as it must be."""

from __future__ import annotations

from typing import Any

import pytest
from facegraft_model.evaluation.disentanglement import counted, disentanglement_table
from facegraft_model.evaluation.records import Scores, regions_of
from facegraft_model.testing import made_up_parts
from toy_parts import EYES


def scores(method: str, parts: tuple[str, ...], offset: float = 0.0, **changes: Any) -> Scores:
    """Leakage of part k is 0.1 k, swap error of region k 1 + k, of the unchanged host 2 + k, all with an offset."""

    def summary(first: float) -> dict[str, Any]:
        regions = {region: {"p2s_mm": {"mean": first + k + offset}} for k, region in enumerate(regions_of(parts))}
        return {"summary": {"none": regions}}

    measured: dict[str, Any] = {
        "leakage": {"parts": {part: {"ratio": {"mean": 0.1 * k + offset}} for k, part in enumerate(parts)}},
        "swap_error": {"swapped": summary(1.0), "host unchanged": summary(2.0)},
    }
    return Scores(method, {"parts": list(parts)}, {}, [0], [], [], disentanglement={**measured, **changes})


@pytest.mark.parametrize("parts", [EYES.names, made_up_parts(1).names, made_up_parts(7).names, ("jaw", "a_very_long_name_of_a_part")])
def test_the_table_has_a_column_for_each_part_and_its_numbers_stand_below(parts: tuple[str, ...]) -> None:
    lines = disentanglement_table([scores("ours", parts), scores("theirs", parts, 0.5)]).splitlines()
    count = len(parts)
    assert lines[2].split() == ["method", *parts, "full", *parts, *parts]
    numbers = [0.1 * k for k in range(count)] + [1.0 + k for k in range(count + 1)] + [3.0 + k for k in range(count)]
    for line, name, offset in ((lines[3], "ours", 0.0), (lines[4], "theirs", 0.5)):
        assert line.split() == [name, *(f"{value + offset:.3f}" for value in numbers)]
        assert len(line) == len(lines[2])
    ends = [index for index, letter in enumerate(lines[2] + " ") if letter == " " and lines[2][index - 1] != " "]
    for end in ends[1:]:
        assert lines[3][end - 1].isdigit() and (end == len(lines[3]) or lines[3][end] == " ")
    starts = [lines[1].index(heading) for heading in ("leakage", "swap error, p2s mm", "host unchanged")]
    assert starts == sorted(starts) and starts[0] >= len("method")
    full = lines[2].index(" full")
    assert starts[0] + len("leakage") <= full + 5 <= starts[1] + len("swap error, p2s mm")


def test_a_part_that_did_not_move_and_a_model_without_surface_are_shown_as_such() -> None:
    still = scores("still", EYES.names)
    still.disentanglement["leakage"]["parts"]["eyes"]["ratio"] = None
    empty = Scores("empty", {"parts": list(EYES)}, {}, [0], [], [], disentanglement={"failed": "no surface"})
    none = Scores("none", {"parts": list(EYES)}, {}, [0], [], [])
    table = disentanglement_table([none, empty, still])
    assert table.splitlines()[3].split()[:4] == ["still", "0.000", "-", "0.200"]
    assert table.endswith("empty: no leakage and no swap error: no surface\n")
    assert disentanglement_table([empty]) == "\nempty: no leakage and no swap error: no surface\n"
    assert disentanglement_table([none]) == ""


def test_progress_counts_what_is_done() -> None:
    seen: list[tuple[str, int, int]] = []
    one_more = counted("scores", 2, lambda *step: seen.append(step))
    one_more(object())
    one_more(object())
    assert seen == [("scores", 1, 2), ("scores", 2, 2)]
