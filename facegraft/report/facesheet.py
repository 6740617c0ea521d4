"""Picture sheets of decoded heads: a grid of tiles in clay, in the colours of the parts, or coloured by lengths.

All tiles of a sheet share the framing and the colour scale, so that sizes and colours can be compared.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from facegraft.arrays import Floats, Ints
from facegraft.colours import CLAY, label_colour
from facegraft.parts import MAX_PARTS
from facegraft.report.clay import TINT, dense_mesh_light, part_palette, rgb
from facegraft.report.errors import ReportError
from facegraft.report.scale import length_colours, nice_limit, ticks
from facegraft.report.scenes import TILT
from facegraft.report.studio import LENS_DEG, Body, Camera, Studio, start_probe
from facegraft.surfaces.normals import vertex_normals

TILE_HEIGHT = 360
MARGIN = 1.04
"""Height and width of a tile, as a multiple of the heads' common frame."""

CLOSE_UP = 1.25
"""Height or width of a close-up, as a multiple of its box."""

STRETCH = 0.2
"""Growth limit of the frame for larger heads, in sizes of a typical head; anything beyond is cut off."""

OUTLIERS = (0.02, 99.98)
"""Percentiles of the vertices between which a head is framed, so that single floating triangles do not shrink the picture."""

VALUE_SHADE = 0.55
"""Strength of the occlusion on heads coloured by lengths: colours stay near the colour bar's, and the shape stays visible."""

PAPER, INK, GREY = "#ffffff", "#1d1d22", "#55555c"


@dataclass(frozen=True)
class Tile:
    """A head in its place on a sheet, checked when it is made.

    vertices [n, 3] in mm (+y up, +z out of the face, +x the subject's left), faces [m, 3] counter-clockwise from
    outside; values [n] are lengths in mm ≥ 0, parts [n] part labels. A head with values is coloured by them, else by its
    parts if given, else it is clay. turn_deg 0 looks at the face from the front, 90 from its left side. close_up: a box [2, 3] in mm
    (its least and largest corner) that fills the tile; None for the whole head.
    Raises ReportError, naming the tile by its caption, for arrays that are empty, not finite, or do not fit together.
    """

    vertices: Floats
    faces: Ints
    values: Floats | None = None
    parts: NDArray[np.uint8] | None = None
    caption: str = ""
    turn_deg: float = 0.0
    close_up: Floats | None = None

    def __post_init__(self) -> None:
        vertices = np.asarray(self.vertices, dtype=np.float64)
        faces = np.asarray(self.faces, dtype=np.int64)
        self._must(
            vertices.ndim == 2 and vertices.shape[1:] == (3,), f"has vertices of shape {vertices.shape}, not [n, 3]"
        )
        self._must(faces.ndim == 2 and faces.shape[1:] == (3,), f"has faces of shape {faces.shape}, not [m, 3]")
        self._must(len(vertices) > 0 and len(faces) > 0, "holds an empty mesh: extraction found no surface")
        self._must(bool(np.isfinite(vertices).all()), "has vertices that are not finite")
        self._must(
            faces.min() >= 0 and faces.max() < len(vertices),
            f"has faces that name vertices outside 0..{len(vertices) - 1}",
        )
        object.__setattr__(self, "vertices", vertices)
        object.__setattr__(self, "faces", faces)
        if self.values is not None:
            values = np.asarray(self.values, dtype=np.float64)
            self._must(
                values.shape == (len(vertices),), f"has values of shape {values.shape} for {len(vertices)} vertices"
            )
            self._must(bool(np.isfinite(values).all()), "has values that are not finite; leave out what has no value")
            self._must(values.min() >= 0, "has values below 0; give lengths, such as the norm of a displacement")
            object.__setattr__(self, "values", values)
        if self.parts is not None:
            parts = np.asarray(self.parts)
            self._must(
                parts.shape == (len(vertices),), f"has part labels of shape {parts.shape} for {len(vertices)} vertices"
            )
            self._must(
                parts.dtype.kind in "iu" and 0 <= parts.min() <= parts.max() <= MAX_PARTS,
                "has part labels outside 0..255",
            )
            object.__setattr__(self, "parts", parts.astype(np.uint8))
        if self.close_up is not None:
            box = np.asarray(self.close_up, dtype=np.float64)
            ordered = box.shape == (2, 3) and np.isfinite(box).all() and (box[0] < box[1]).all()
            self._must(bool(ordered), "has a close-up that is no box [2, 3] of a least and a largest corner")
            object.__setattr__(self, "close_up", box)

    def _must(self, holds: bool | np.bool_, complaint: str) -> None:
        if not holds:
            raise ReportError(f"no picture of '{self.caption or 'a head without caption'}': it {complaint}")

    def colours(self, light: Floats, limit_mm: float) -> Floats:
        """Colours [n, 3] under light [n], lengths up to `limit_mm`."""
        if self.values is not None:
            painted = np.asarray(length_colours()(np.clip(self.values / limit_mm, 0, 1)))[:, :3]
            return np.asarray(painted * (1 - VALUE_SHADE * (1 - light))[:, None])
        colours = np.tile(rgb(CLAY), (len(self.vertices), 1))
        if self.parts is not None:
            colours += TINT * (part_palette()[self.parts] - colours)
        return np.asarray(colours * light[:, None])


Rows = Sequence[Sequence[Tile | None]]


def face_sheet(
    rows: Rows,
    *,
    row_titles: Sequence[str] = (),
    column_titles: Sequence[str] = (),
    colour_limit_mm: float | None = None,
    value_label: str = "displacement (mm)",
    title: str = "",
    part_names: Sequence[str] = (),
    tile_height: int = TILE_HEIGHT,
    studio: Studio | None = None,
) -> Image.Image:
    """The sheet as an RGB picture on white; a tile that is None leaves its cell empty, and rows may be short.

    Tiles with the same vertices and faces arrays share their light. If a tile has values, there is a colour bar in mm at
    the right; without `colour_limit_mm` it ends at a round number near their 98th percentile. If `part_names` (by label,
    the remainder first) is given, coloured parts have a legend below. Passing an open `studio` saves the seconds of opening
    one. Raises ReportError for a sheet without tiles, titles that do not match, and where this machine cannot draw.
    """
    tiles = [tile for row in rows for tile in row if tile is not None]
    columns = max((len(row) for row in rows), default=0)
    if not tiles:
        raise ReportError("a sheet needs at least one head; none was given")
    for what, titles, count in (("row", row_titles, len(rows)), ("column", column_titles, columns)):
        if titles and len(titles) != count:
            raise ReportError(f"the sheet has {count} {what}s but {len(titles)} {what} titles")
    if tile_height < 48:
        raise ReportError(f"tiles {tile_height} pixels high are too small to show a head; give 48 or more")
    values = [tile.values for tile in tiles if tile.values is not None]
    limit = (nice_limit(values) if values else 1.0) if colour_limit_mm is None else float(colour_limit_mm)
    ticks(limit)  # raises for a wrong limit before anything is drawn
    with _studio(studio) as open_studio:
        pictures, (width, height) = _draw(open_studio, rows, limit, tile_height)
    page = _Page(width, height, rows, columns, row_titles, column_titles, title)
    for picture, place in pictures:
        page.put(picture, *place)
    if values:
        page.colour_bar(limit, value_label, beyond=any(bool((part > limit).any()) for part in values))
    if part_names and any(tile.parts is not None and tile.values is None for tile in tiles):
        page.legend({name: label_colour(label) for label, name in enumerate(part_names) if label > 0})
    return page.image()


def write_face_sheet(path: Path, rows: Rows, **options: Any) -> Path:
    """Write a `face_sheet` as a PNG file, atomically; the options are those of `face_sheet`. Returns the path.

    Raises ReportError as face_sheet does, StoreError where the file cannot be written.
    """
    from facegraft.store.atomic import write_bytes_atomic

    buffer = io.BytesIO()
    face_sheet(rows, **options).save(buffer, format="PNG")
    write_bytes_atomic(Path(path), buffer.getvalue())
    return Path(path)


@contextmanager
def _studio(given: Studio | None) -> Iterator[Studio]:
    if given is not None:
        yield given
        return
    with start_probe() as probe, Studio(probe) as opened:
        yield opened


Place = tuple[int, int]


def _draw(
    studio: Studio, rows: Rows, limit: float, tile_height: int
) -> tuple[list[tuple[Image.Image, Place]], tuple[int, int]]:
    """The tiles' pictures with their (row, column), and their common size in pixels."""
    frame = SheetFrame(rows)
    size = (round(tile_height * frame.width / frame.height), tile_height)
    lit: dict[tuple[int, int], tuple[Floats, Floats]] = {}
    pictures = []
    for r, row in enumerate(rows):
        for c, tile in enumerate(row):
            if tile is None:
                continue
            mesh = (id(tile.vertices), id(tile.faces))
            if mesh not in lit:
                normals = vertex_normals(tile.vertices, tile.faces)
                lit[mesh] = normals, dense_mesh_light(tile.vertices, tile.faces, normals)
            normals, light = lit[mesh]
            body = Body(tile.vertices, tile.colours(light, limit), tile.faces, normals)
            box = tile.close_up
            camera = frame.camera(tile.turn_deg) if box is None else frame.close_up(box, tile.turn_deg)
            pictures.append((studio.shoot([body], camera, size), (r, c)))
    return pictures, size


class SheetFrame:
    """The framing of a sheet: the same distance for all views, and for each view a focus that centres the heads.

    The typical head is the median box of the first row with heads; the frame contains it, and grows for larger heads anywhere
    on the sheet by up to STRETCH of its size. Close-ups do not count, unless there is nothing else. width and height are those of
    the picture at the focus, in mm.
    """

    def __init__(self, rows: Rows) -> None:
        whole = [[tile for tile in row if tile is not None and tile.close_up is None] for row in rows]
        if not any(whole):
            whole = [[tile for tile in row if tile is not None] for row in rows]
        tiles = [tile for row in whole for tile in row]
        first = next(row for row in whole if row)
        boxes = np.array([np.percentile(_some(tile.vertices), OUTLIERS, axis=0) for tile in first])
        typical = np.median(boxes, axis=0)
        self.centre: Floats = typical.mean(axis=0)
        distance = float(np.ptp(typical, axis=0).max()) / (2 * np.tan(np.radians(LENS_DEG / 2)))
        self._middles: dict[float, Floats] = {}
        sizes = []
        for turn in {tile.turn_deg for tile in tiles}:
            usual = np.median([self._seen(tile.vertices, turn, distance) for tile in first], axis=0)
            reach = STRETCH * np.ptp(usual, axis=0)
            seen = np.array([self._seen(tile.vertices, turn, distance) for tile in tiles if tile.turn_deg == turn])
            low = np.maximum(seen[:, 0].min(axis=0), usual[0] - reach)
            high = np.minimum(seen[:, 1].max(axis=0), usual[1] + reach)
            self._middles[turn] = (low + high) / 2
            sizes.append(high - low)
        across, up = np.max(sizes, axis=0)
        if not (across > 0 and up > 0):
            raise ReportError("the heads of the sheet have no extent: all their vertices lie on one line")
        self.width, self.height = float(MARGIN * across), float(MARGIN * up)

    def camera(self, turn_deg: float) -> Camera:
        """The camera of a view of the sheet."""
        right, up, _ = view_axes(turn_deg)
        across, above = self._middles[turn_deg]
        return Camera(self.centre + across * right + above * up, self.height, turn_deg, TILT)

    def close_up(self, box: Floats, turn_deg: float) -> Camera:
        """A camera that sees a box [2, 3] as large as the tile allows, with some of its surroundings."""
        corners = np.array(np.meshgrid(*np.asarray(box, dtype=np.float64).T)).reshape(3, -1).T
        right, up, _ = view_axes(turn_deg)
        across, above = np.ptp(corners @ right), np.ptp(corners @ up)
        height = max(above, across * self.height / self.width)
        return Camera(corners.mean(axis=0), float(CLOSE_UP * height), turn_deg, TILT)

    def _seen(self, vertices: Floats, turn_deg: float, distance: float) -> Floats:
        """Box [low/high, across/up] of vertices around the centre as the lens shows them, in mm at the centre."""
        across, up, near = ((_some(vertices) - self.centre) @ view_axes(turn_deg).T).T
        shown = np.column_stack([across, up]) / np.maximum(1 - near / distance, 0.1)[:, None]
        return np.asarray(np.percentile(shown, OUTLIERS, axis=0))


def _some(vertices: Floats) -> Floats:
    """Every n-th vertex: the box of 10,000 vertices equals that of all to a fraction of a pixel."""
    return vertices[:: max(1, len(vertices) // 10_000)]


def view_axes(turn_deg: float) -> Floats:
    """Unit vectors [3, 3] of a view, in rows: to the right of the picture, up, towards the camera."""
    turn, tilt = np.radians(turn_deg), np.radians(TILT)
    away = np.array([np.sin(turn) * np.cos(tilt), np.sin(tilt), np.cos(turn) * np.cos(tilt)])
    right = np.array([np.cos(turn), 0.0, -np.sin(turn)])
    return np.stack([right, np.cross(away, right), away])


class _Page:
    """Layout of the sheet: title, column titles, rows of tiles with captions, legend below, colour bar at the right."""

    def __init__(
        self,
        width: int,
        height: int,
        rows: Rows,
        columns: int,
        row_titles: Sequence[str],
        column_titles: Sequence[str],
        title: str,
    ) -> None:
        self.tile, self.gap = (width, height), max(4, round(0.03 * height))
        self.caption_font, self.title_font = _font(0.047 * height), _font(0.053 * height, bold=True)
        self.head_font = _font(0.066 * height, bold=True)
        self.pad = max(8, round(0.06 * height))
        self.line = _line_height(self.caption_font)
        captions = [[_wrapped(tile.caption if tile else "", self.caption_font, width) for tile in row] for row in rows]
        side = [_wrapped(text, self.title_font, height) for text in row_titles]
        above = [_wrapped(text, self.title_font, width) for text in column_titles]
        title_line = _line_height(self.title_font)
        self.left = self.pad + (max(len(lines) for lines in side) * title_line + self.gap if any(row_titles) else 0)
        self.right = self.left + columns * width + (columns - 1) * self.gap
        headline = _wrapped(title, self.head_font, self.right - self.pad)
        top = self.pad + (len(headline) * _line_height(self.head_font) + self.gap if title else 0)
        self.top = top + (max(len(lines) for lines in above) * title_line + self.gap // 2 if any(column_titles) else 0)
        self.row_tops, y = [], self.top
        for row in captions:
            self.row_tops.append(y)
            lines = max((len(lines) for lines in row if lines != [""]), default=0)
            y += height + lines * self.line + (self.gap // 2 if lines else 0) + self.gap
        self.bottom = y - self.gap
        bar_room = round(0.42 * height)
        legend_room = self.gap + 2 * self.line
        self._canvas = Image.new("RGB", (self.right + bar_room, self.bottom + legend_room + self.pad), PAPER)
        self._used = [self.right + self.pad, self.bottom + self.pad]
        self._pen = ImageDraw.Draw(self._canvas)
        self._text(headline, self.head_font, (self.pad, self.pad), None, INK)
        for column, text in enumerate(above):
            self._text(
                text, self.title_font, (self._x(column), self.top - self.gap // 2 - len(text) * title_line), width, INK
            )
        for y, text in zip(self.row_tops, side, strict=False):
            banner = Image.new("RGB", (height, len(text) * title_line), PAPER)
            _write(ImageDraw.Draw(banner), text, self.title_font, (0, 0), height, INK)
            self._canvas.paste(banner.rotate(90, expand=True), (self.left - self.gap - banner.height, y))
        for y, row in zip(self.row_tops, captions, strict=True):
            for column, text in enumerate(row):
                self._text(text, self.caption_font, (self._x(column), y + height + self.gap // 2), width, GREY)

    def put(self, picture: Image.Image, row: int, column: int) -> None:
        """Paste a tile's picture (RGBA) into its cell."""
        self._canvas.paste(picture, (self._x(column), self.row_tops[row]), picture.getchannel("A"))

    def colour_bar(self, limit: float, label: str, *, beyond: bool) -> None:
        """Draw the scale at the right, with a triangle on top where values exceed it."""
        tall = min(round(1.5 * self.tile[1]), round(0.9 * (self.bottom - self.top)))
        wide, x = max(8, round(0.045 * self.tile[1])), self.right + self.pad
        top = (self.top + self.bottom - tall) // 2
        ramp = np.asarray(length_colours()(np.linspace(1, 0, tall)))[:, None, :3]
        self._canvas.paste(Image.fromarray(np.round(255 * np.tile(ramp, (1, wide, 1))).astype(np.uint8)), (x, top))
        if beyond:
            colour = tuple(int(255 * channel) for channel in np.ravel(ramp[0]))
            self._pen.polygon([(x, top - 1), (x + wide - 1, top - 1), (x + wide // 2, top - wide)], fill=colour)
        reach = 0.0
        marks = ticks(limit)
        for tick in marks:
            y = top + round((1 - tick / limit) * (tall - 1))
            text = f"{tick:.4g}"
            self._pen.line([(x + wide, y), (x + wide + self.gap // 3, y)], fill=GREY)
            at = (x + wide + self.gap // 2 + 1, y)
            self._pen.text(at, text, font=self.caption_font, fill=INK, anchor="lm")
            reach = max(reach, at[0] + self.caption_font.getlength(text))
        banner = Image.new("RGB", (round(self.caption_font.getlength(label)) + 2, self.line), PAPER)
        ImageDraw.Draw(banner).text((1, 0), label, font=self.caption_font, fill=INK)
        turned = banner.rotate(90, expand=True)
        self._canvas.paste(turned, (round(reach) + self.gap // 2, top + (tall - turned.height) // 2))
        self._used[0] = max(self._used[0], round(reach) + self.gap // 2 + turned.width + self.pad // 2)

    def legend(self, entries: dict[str, str]) -> None:
        """Draw the legend below the tiles: the parts' names next to their colours as on the heads."""
        side = round(0.75 * self.line)
        lengths = [side + self.gap // 2 + self.caption_font.getlength(name) + 2 * self.gap for name in entries]
        x = self.left + (self.right - self.left - (sum(lengths) - 2 * self.gap)) / 2
        y = self.bottom + self.gap + self.line // 2
        for (name, colour), length in zip(entries.items(), lengths, strict=True):
            seen = rgb(CLAY) + TINT * (rgb(colour) - rgb(CLAY))
            fill = tuple(int(255 * channel) for channel in seen)
            self._pen.rectangle([x, y - side // 2, x + side, y + side - side // 2], fill=fill)
            self._pen.text((x + side + self.gap // 2, y), name, font=self.caption_font, fill=INK, anchor="lm")
            x += length
        self._used[1] = max(self._used[1], self.bottom + self.gap + self.line + self.pad)

    def image(self) -> Image.Image:
        """The sheet, cropped to its content."""
        width, height = self._used
        return self._canvas.crop((0, 0, width, height))

    def _x(self, column: int) -> int:
        return self.left + column * (self.tile[0] + self.gap)

    def _text(self, lines: Sequence[str], font: ImageFont.FreeTypeFont, at: Place, width: int | None, ink: str) -> None:
        _write(self._pen, lines, font, at, width, ink)


def _write(
    pen: ImageDraw.ImageDraw, lines: Sequence[str], font: ImageFont.FreeTypeFont, at: Place, width: int | None, ink: str
) -> None:
    """Draw lines of text from `at` down, centred within `width` or, without it, left-aligned."""
    x, y = at
    for number, line in enumerate(lines):
        indent = 0.0 if width is None else (width - font.getlength(line)) / 2
        pen.text((x + indent, y + number * _line_height(font)), line, font=font, fill=ink)


def _font(size: float, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which ships with matplotlib."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), max(11, round(size)))


def _line_height(font: ImageFont.FreeTypeFont) -> int:
    ascent, descent = font.getmetrics()
    return ascent + descent


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The text in lines no wider than `width` pixels, broken between words or, where one is too long, within it."""
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if font.getlength(longer) <= width:
                line = longer
                continue
            if line:
                lines.append(line)
            line = word
            while font.getlength(line) > width and len(line) > 1:
                fits = next(n for n in range(len(line) - 1, 0, -1) if n == 1 or font.getlength(line[:n]) <= width)
                lines.append(line[:fits])
                line = line[fits:]
        lines.append(line)
    return lines
