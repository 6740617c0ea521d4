"""Sheets of edits: which tiles they have."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toy_parts import EYES

from facegraft.report import modelsheets
from facegraft.report.modelsheets import INTERPOLATION_LIMIT_MM, write_edit_sheet


@pytest.fixture
def walk(egg_heads: ModuleType) -> list[Any]:
    """A walk of one step for the nose (label 1), then one for the remainder; the nose grows to the front by 2 mm."""
    directions, faces = egg_heads.unit_mesh()
    vertices = np.asarray(egg_heads.head(directions, 1, False), dtype=np.float64)
    labels = (vertices[:, 2] > np.percentile(vertices[:, 2], 95)).astype(np.uint8)
    moved = vertices + np.where(labels[:, None] == 1, [0.0, 0.0, 2.0], 0.0)
    by_nose, by_rem = np.where(labels == 1, 2.0, 0.0), np.full(len(vertices), np.nan)

    def head(at: Any, row: int, column: int, **others: Any) -> Any:
        default = {"label": "", "part": None, "amount": None, "base": None, "displacement_mm": None, "parts": labels}
        return SimpleNamespace(vertices_mm=at, faces=faces, row=row, column=column, **{**default, **others})

    return [
        head(vertices, 0, 0),
        head(moved, 0, 1, part="nose", amount=1.0, base=0, displacement_mm=by_nose),
        head(1.1 * moved, 1, 1, part="rem", amount=1.0, base=1, displacement_mm=by_rem),
    ]


@pytest.fixture
def sheet(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Rows and options of the sheet that is written next."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr(modelsheets, "write_face_sheet", lambda path, rows, **options: seen.update(rows=rows, **options))
    return seen


def test_a_close_up_holds_the_part_in_all_heads_of_its_row(walk: list[Any], sheet: dict[str, Any]) -> None:
    write_edit_sheet(Path("sheet.png"), "interpolate", walk, "a to b", parts=EYES)
    nose, rem = sheet["rows"]
    own = walk[0].vertices_mm[walk[0].parts == 1]
    for tile in nose[4:]:
        np.testing.assert_allclose(tile.close_up, [own.min(axis=0), np.add(own.max(axis=0), [0, 0, 2])])
    assert [tile and tile.caption for tile in nose] == [
        "0 %", "100 %", None, "displacement, 100 %", "close-up, 0 %", "close-up, 100 %"
    ]  # fmt: skip
    assert [tile.caption for tile in rem] == ["0 %", "100 %", "displacement by nose", "displacement, 100 %"]
    assert rem[2].values.max() == 2.0 and rem[3].values.max() == 0.0  # unknown displacements are clay
    assert sheet["row_titles"] == ["nose", "rem"] and sheet["colour_limit_mm"] == INTERPOLATION_LIMIT_MM
    write_edit_sheet(Path("sheet.png"), "interpolate", walk, "a to b", limit_mm=9.0)
    assert [len(row) for row in sheet["rows"]] == [4, 4] and sheet["colour_limit_mm"] == 9.0  # no labels, no close-ups
    for head in walk:
        head.parts = None
    write_edit_sheet(Path("sheet.png"), "interpolate", walk, "a to b", parts=EYES)
    assert [len(row) for row in sheet["rows"]] == [4, 4]


def test_the_scale_of_random_parts_is_that_of_the_parts(walk: list[Any], sheet: dict[str, Any]) -> None:
    first, nose, rem = walk
    rem.base, rem.row, rem.column, rem.displacement_mm = 0, 0, 2, np.full(len(rem.vertices_mm), 30.0)
    first.label = "anna"
    write_edit_sheet(Path("sheet.png"), "generate --figure", [first, nose, rem], "random")
    assert sheet["column_titles"] == ["original", "Nose", "Rem"] and sheet["row_titles"] == ["anna", ""]
    assert sheet["colour_limit_mm"] == 2.0 and sheet["rows"][1][2].values.max() == 30.0
    write_edit_sheet(Path("sheet.png"), "generate --figure", [first, rem], "random")
    assert sheet["colour_limit_mm"] is None  # by the values
