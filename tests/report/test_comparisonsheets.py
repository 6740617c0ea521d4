"""Pictures of a comparison of methods."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toy_parts import EYES

from facegraft.report import comparisonsheets
from facegraft.report.comparisonsheets import write_comparison_sheet, write_curves
from facegraft.report.errors import ReportError
from facegraft.report.facesheet import SheetFrame, Tile, face_sheet, view_axes
from facegraft.report.studio import Studio, start_probe


@pytest.fixture(scope="module")
def studio() -> Iterator[Studio]:
    """An open studio, or a skip that says why this machine cannot draw."""
    with start_probe() as probe:
        try:
            opened = Studio(probe)
        except ReportError as error:
            pytest.skip(str(error))
        with opened:
            yield opened


@pytest.fixture(scope="module")
def shown(egg_heads: ModuleType) -> list[Any]:
    """One egg head with three parts by height, by two methods, of which the second is wrong on the nose only."""
    directions, faces = egg_heads.unit_mesh()
    vertices = egg_heads.head(directions, 1, False)
    middle = vertices[faces].mean(axis=1)
    label = np.zeros(len(faces), np.uint8)
    front = middle[:, 2] > np.percentile(middle[:, 2], 70)
    low, high = np.percentile(middle[front, 1], [35, 65])
    label[front] = np.where(middle[front, 1] < low, 3, np.where(middle[front, 1] > high, 2, 1))
    truth = SimpleNamespace(key="egg", vertices=vertices, faces=faces, parts=label, vocabulary=EYES)
    wrong = np.zeros(len(vertices))
    wrong[np.unique(faces[label == 1])] = 2.0
    mesh = SimpleNamespace(vertices=vertices, faces=faces)
    return [SimpleNamespace(truth=truth, fits={"good": (mesh, np.zeros(len(vertices))), "bad": (mesh, wrong)})]


def test_each_head_has_rows_for_itself_and_its_parts(
    shown: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(
        comparisonsheets, "write_face_sheet", lambda path, rows, **options: seen.update(rows=rows, **options)
    )
    head = shown[0]
    write_comparison_sheet(
        tmp_path / "figure.png", [head, SimpleNamespace(truth=head.truth, fits={"bad": head.fits["bad"]})]
    )
    assert seen["column_titles"] == ["truth", "good", "bad"]
    assert seen["row_titles"] == ["egg", "distance", "nose", "eyes", "mouth"] * 2
    assert [tile is None for tile in seen["rows"][5]] == [False, True, False]
    assert seen["rows"][0][2].values is None and seen["rows"][1][2].values.max() == 2.0
    assert seen["colour_limit_mm"] == 2.0
    boxes = [row[0].close_up for row in seen["rows"]]
    assert boxes[0] is boxes[1] is None and [tile is None for tile in seen["rows"][7]] == [False, True, False]
    own = head.truth.vertices[np.unique(head.truth.faces[head.truth.parts == 1])]
    np.testing.assert_array_equal(boxes[2], [own.min(axis=0), own.max(axis=0)])


def test_a_close_up_shows_the_box_larger_and_nothing_else_changes(studio: Studio, shown: list[Any]) -> None:
    truth = shown[0].truth
    mesh, wrong = shown[0].fits["bad"]
    whole = Tile(mesh.vertices, mesh.faces, wrong)
    own = truth.vertices[truth.faces[truth.parts == 1]].reshape(-1, 3)
    box = own.mean(axis=0) + np.array([[-20.0], [20.0]])
    options: Any = {"tile_height": 120, "studio": studio, "colour_limit_mm": 4.0}
    plain = np.asarray(face_sheet([[whole], [whole]], **options)).astype(int)
    close = np.asarray(face_sheet([[whole], [replace(whole, close_up=box)]], **options)).astype(int)
    assert plain.shape == close.shape
    half = len(plain) // 2
    np.testing.assert_array_equal(plain[: half - 10], close[: half - 10])

    def red(picture: Any) -> int:
        """Pixels of the middle of the colour scale, left of the scale itself."""
        r, g, b = np.moveaxis(picture[:, : plain.shape[1] // 2], 2, 0)
        return int(((r > 120) & (g < 0.6 * r) & (b < 0.6 * r)).sum())

    assert red(close[half:]) > 1.5 * red(plain[half:]) > 100
    for bad in (box[:1], box[::-1], box * np.nan):
        with pytest.raises(ReportError, match="has a close-up that is no box"):
            replace(whole, close_up=bad)


@pytest.mark.parametrize("turn", [0.0, 40.0])
def test_a_close_up_holds_its_box(shown: list[Any], turn: float) -> None:
    truth = shown[0].truth
    frame = SheetFrame([[Tile(truth.vertices, truth.faces, turn_deg=turn)]])
    box = np.array([[-10.0, 5.0, 60.0], [30.0, 15.0, 70.0]])
    camera = frame.close_up(box, turn)
    right, up, _ = view_axes(turn)
    corners = np.array([[x, y, z] for x in box[:, 0] for y in box[:, 1] for z in box[:, 2]]) - camera.focus
    assert np.abs(corners @ up).max() <= camera.height / 2
    assert np.abs(corners @ right).max() <= camera.height / 2 * frame.width / frame.height


def test_curves_are_drawn(tmp_path: Path) -> None:
    curves = {
        "moving": SimpleNamespace(seconds=[1.0, 2.0, 3.0], errors_mm=[3.0, 1.0, 0.5], moving=True),
        "flat": SimpleNamespace(seconds=[0.5], errors_mm=[0.7], moving=False),
    }
    path = write_curves(tmp_path / "curves.png", curves)
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    coloured = (np.ptp(picture, axis=2) > 60).any(axis=1)
    assert picture.shape[0] > 400 and coloured.sum() > 50
