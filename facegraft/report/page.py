"""Render the page: all sections in one self-contained HTML file."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources

import jinja2
from PIL import Image

import facegraft
from facegraft.report.blocks import Section, Sheet

WEBP_QUALITY = 84
TEMPLATE = "template.html.j2"


def render_page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The HTML of the page, pictures embedded as WebP."""
    uris = encode_all(list(_pictures(sections)))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(
        resources.files("facegraft.report").joinpath(TEMPLATE).read_text(encoding="utf-8")
    )
    return template.render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        uri_of=lambda image: uris[id(image)],
        version=facegraft.__version__,
    )


def encode_all(images: Sequence[Image.Image]) -> dict[int, str]:
    """The data URI of each picture, by its id; each is encoded once."""
    distinct = list({id(image): image for image in images}.values())
    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip(map(id, distinct), pool.map(data_uri, distinct), strict=True))


def data_uri(image: Image.Image) -> str:
    """A picture as a WebP data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=WEBP_QUALITY, method=3)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _pictures(sections: Sequence[Section]) -> Iterator[Image.Image]:
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Sheet):
                yield from (picture.image for picture in block.pictures if picture.image is not None)
