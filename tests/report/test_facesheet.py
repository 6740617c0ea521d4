"""Picture sheets of heads: their colours, framing, layout, and what they refuse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from facegraft.report.clay import _opened, ambient_light, dense_mesh_light
from facegraft.report.errors import ReportError
from facegraft.report.facesheet import SheetFrame, Tile, face_sheet, view_axes, write_face_sheet
from facegraft.report.scale import ANCHORS, from_oklab, length_colours, nice_limit, oklab, ticks
from facegraft.report.studio import LENS_DEG, Camera, Studio, start_probe
from facegraft.surfaces.normals import vertex_normals

HEIGHT = 96


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
def egg(egg_heads: ModuleType) -> dict[str, Any]:
    """Vertices and faces of an egg head."""
    directions, faces = egg_heads.unit_mesh()
    return {"vertices": egg_heads.head(directions, 1, False), "faces": faces}


def inked(picture: Image.Image) -> np.ndarray:
    """Where a picture on white is not white [height, width]."""
    return np.asarray(np.asarray(picture.convert("RGB")).min(axis=2) < 250)


def test_colours_darken_in_equal_steps() -> None:
    lab = oklab(np.asarray(length_colours()(np.linspace(0, 1, 256)))[:, :3])
    assert (np.diff(lab[:, 0]) < 0).all()
    steps = np.linalg.norm(np.diff(lab, axis=0), axis=1)
    even = np.sort(steps)[len(ANCHORS) - 2 :]  # a step across an inner anchor cuts the corner and is shorter
    assert even[-1] / even[0] < 1.001 and steps.min() > 0.85 * even[0]


def test_oklab_of_known_colours() -> None:
    # White and the primary red as given by the author of OKLab and CSS Color 4.
    lab = oklab(np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]))
    assert np.allclose(lab, np.array([[1, 0, 0], [0.62796, 0.22486, 0.12585]]), atol=1e-4)
    some = np.random.default_rng(0).random((50, 3))
    assert np.allclose(from_oklab(oklab(some)), some, atol=1e-6)


def test_limit_is_that_of_what_moved() -> None:
    rng = np.random.default_rng(0)
    rest, nose = np.zeros(9_700), rng.uniform(0.2, 3.7, 300)
    assert nice_limit([rest, nose]) == 4.0
    assert nice_limit([rng.uniform(0, 0.98, 5_000), np.full(5, 80.0)]) == 1.0  # a few wild vertices do not count
    assert nice_limit([np.zeros(10)]) == 1.0
    assert nice_limit([np.full(100, 0.02)]) == pytest.approx(0.02)


def test_ticks_run_from_zero_to_the_limit() -> None:
    for limit in (0.03, 1.0, 1.5, 2.5, 4.0, 7.3, 80.0):
        marks = ticks(limit)
        assert marks[0] == 0 and marks[-1] == limit and 3 <= len(marks) <= 8
        assert (np.diff(marks) > 0).all()
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ReportError, match="positive number"):
            ticks(bad)


def test_light_of_dense_meshes_is_near_that_of_all_rays() -> None:
    bowl = trimesh.creation.icosphere(subdivisions=6)  # 41,000 vertices
    out = np.asarray(bowl.vertices)
    vertices = out * (1 - 0.5 * np.exp(-((out - [0, 0, 1]) ** 2).sum(axis=1) / 0.1))[:, None]
    faces = np.asarray(bowl.faces)
    light = dense_mesh_light(vertices, faces, vertex_normals(vertices, faces))
    full = _opened(ambient_light(vertices, faces))
    assert full.min() < 0.8 and np.abs(light - full).mean() < 0.01 and np.abs(light - full).max() < 0.08


@pytest.mark.parametrize("turn", [0.0, 38.0, 90.0])
def test_view_axes_agree_with_the_camera(turn: float) -> None:
    axes = view_axes(turn)
    assert np.allclose(axes @ axes.T, np.eye(3)) and np.linalg.det(axes) > 0
    away = Camera(np.zeros(3), 1.0, turn, 3.0).position()
    assert np.allclose(axes[2], away / np.linalg.norm(away))


def test_frame_follows_larger_heads_within_reason(egg: dict[str, Any]) -> None:
    usual = Tile(**egg)
    alone = SheetFrame([[usual]])
    larger = SheetFrame([[usual], [None, Tile(egg["vertices"] * 1.1, egg["faces"])]])
    wild = SheetFrame([[usual], [Tile(egg["vertices"] * 10, egg["faces"])]])
    assert larger.height / alone.height == pytest.approx(1.1, abs=0.02)
    assert wild.height / alone.height == pytest.approx(1.4, abs=0.02)


@pytest.mark.parametrize("turn", [0.0, 38.0, 90.0])
def test_frame_holds_the_head_as_the_lens_sees_it(egg: dict[str, Any], turn: float) -> None:
    tile = Tile(**egg, turn_deg=turn)
    frame = SheetFrame([[Tile(**egg), tile]])
    camera = frame.camera(turn)
    seen = (tile.vertices - camera.position()) @ view_axes(turn).T
    half = np.tan(np.radians(LENS_DEG / 2))
    up, across = np.abs(seen[:, 1] / seen[:, 2]) / half, np.abs(seen[:, 0] / seen[:, 2]) / half
    assert 0.8 < up.max() < 1.0
    assert across.max() < frame.width / frame.height


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"vertices": np.zeros((0, 3)), "faces": np.zeros((0, 3), int)}, "empty mesh"),
        ({"vertices": np.zeros((3, 2))}, "not \\[n, 3\\]"),
        ({"vertices": np.full((3, 3), np.nan)}, "vertices that are not finite"),
        ({"faces": np.array([[0, 1, 3]])}, "outside 0..2"),
        ({"values": np.array([0.0, np.nan, 1.0])}, "values that are not finite"),
        ({"values": np.array([0.0, -1.0, 1.0])}, "below 0"),
        ({"values": np.zeros(2)}, "for 3 vertices"),
        ({"parts": np.array([0, 1, 256])}, "part labels outside 0..255"),
        ({"parts": np.array([0.0, 1.0, 2.0])}, "part labels outside 0..255"),
    ],
)
def test_bad_tiles_are_refused_by_name(change: dict[str, Any], complaint: str) -> None:
    whole = {"vertices": np.eye(3), "faces": np.array([[0, 1, 2]])}
    with pytest.raises(ReportError, match=f"'left head'.*{complaint}"):
        Tile(**(whole | change), caption="left head")


def test_bad_sheets_are_refused(egg: dict[str, Any]) -> None:
    tile = Tile(**egg)
    with pytest.raises(ReportError, match="at least one head"):
        face_sheet([[None]])
    with pytest.raises(ReportError, match="2 columns but 1 column titles"):
        face_sheet([[tile, tile]], column_titles=["a"])
    with pytest.raises(ReportError, match="1 rows but 2 row titles"):
        face_sheet([[tile]], row_titles=["a", "b"])
    with pytest.raises(ReportError, match="positive number"):
        face_sheet([[tile]], colour_limit_mm=0.0)
    with pytest.raises(ReportError, match="48 or more"):
        face_sheet([[tile]], tile_height=10)


def test_tiles_share_their_framing(studio: Studio, egg: dict[str, Any]) -> None:
    small = Tile(egg["vertices"] * 0.7, egg["faces"])
    sheet = face_sheet([[Tile(**egg), small, None]], tile_height=HEIGHT, studio=studio)
    columns = np.flatnonzero(inked(sheet).any(axis=0))
    first, second = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)  # and nothing in the third place
    assert len(first) > 0.5 * HEIGHT
    assert len(second) / len(first) == pytest.approx(0.7, abs=0.06)
    rows = np.flatnonzero(inked(sheet).any(axis=1))
    assert len(rows) > 0.9 * HEIGHT


def test_the_same_sheet_twice_is_the_same_picture(studio: Studio, egg: dict[str, Any]) -> None:
    rows = [[Tile(**egg, caption="a head"), Tile(**egg, values=np.ones(len(egg["vertices"])))]]
    once, again = (face_sheet(rows, tile_height=HEIGHT, studio=studio) for _ in range(2))
    assert once.size == again.size and once.tobytes() == again.tobytes()


def test_larger_values_are_darker_and_shape_stays_visible(studio: Studio, egg: dict[str, Any]) -> None:
    count = len(egg["vertices"])
    lightness, spread = [], []
    for value in (0.0, 1.0, 2.0, 3.0, 4.0):
        tile = Tile(**egg, values=np.full(count, value))
        sheet = face_sheet([[tile]], colour_limit_mm=4.0, tile_height=HEIGHT, studio=studio)
        head = np.asarray(sheet, dtype=float)[:, : round(0.7 * HEIGHT)].mean(axis=2)
        seen = head[head < 245]
        lightness.append(seen.mean())
        spread.append(seen.std() / seen.mean())
    assert (np.diff(lightness) < 0).all()
    assert min(spread) > 0.05


def test_parts_get_their_colours_and_a_legend(studio: Studio, egg: dict[str, Any]) -> None:
    parts = np.where(egg["vertices"][:, 1] > 0, 2, 0)
    plain = face_sheet([[Tile(**egg)]], tile_height=HEIGHT, studio=studio)
    coloured = face_sheet(
        [[Tile(**egg, parts=parts)]], part_names=("rem", "snout", "lobes"), tile_height=HEIGHT, studio=studio
    )
    assert coloured.height > plain.height
    blue = np.asarray(coloured, dtype=float)
    is_blue = blue[..., 2] > blue[..., 0] + 20
    head = is_blue[:HEIGHT]
    assert head[: HEIGHT // 2].sum() > 500 and head[round(0.75 * HEIGHT) :].sum() == 0
    assert is_blue[HEIGHT + 8 :].any()


def test_long_captions_and_titles_stay_on_the_sheet(studio: Studio, egg: dict[str, Any], tmp_path: Path) -> None:
    caption = "s0001--s0016-s0022-s0040_with_a_name_without_spaces and then some words"
    path = write_face_sheet(
        tmp_path / "made" / "sheet.png",
        [[Tile(**egg, caption=caption), Tile(**egg, turn_deg=38.0)], [None, Tile(**egg)]],
        row_titles=["first", "second"],
        column_titles=["front", "turned to the side"],
        title="A title that is longer than two tiles are wide",
        tile_height=HEIGHT,
        studio=studio,
    )
    with Image.open(path) as sheet:
        assert sheet.format == "PNG" and sheet.mode == "RGB"
        dark = inked(sheet)
    assert not (dark[0].any() or dark[-1].any() or dark[:, 0].any() or dark[:, -1].any())
    assert [entry.name for entry in path.parent.iterdir()] == ["sheet.png"]
