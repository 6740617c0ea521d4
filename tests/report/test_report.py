"""The page as a reader finds it: whole, self-contained, honest about what is missing."""

from __future__ import annotations

import base64
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from facegraft.geometry.graft import SANE_RANGE, SURE_RANGE
from facegraft.report import charts, studio, thresholds, write_report
from facegraft.report.errors import ReportError
from facegraft.report.studio import start_probe

SECTIONS = (
    "summary",
    "odd",
    "heads",
    "composites",
    "seams",
    "surfaces",
    "sdf",
    "points",
    "morph",
    "quality",
    "rejects",
    "timings",
)


class Reader(HTMLParser):
    """Collects sections, everything that is loaded, and tags."""

    def __init__(self) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.loaded: list[str] = []
        self.tags: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = dict(attrs)
        if tag == "section":
            self.sections.append(str(values["id"]))
        self.loaded += [
            str(values[name]) for name in ("src", "href", "xlink:href", "srcset", "data") if values.get(name)
        ]


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def section(page: str, name: str) -> str:
    found = re.search(rf'<section id="{name}">(.*?)</section>', page, flags=re.S)
    assert found, f"no section {name}"
    return found[1]


def images(html: str) -> list[Image.Image]:
    return [
        Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r'data:image/\w+;base64,([^"]+)', html)
    ]


def test_every_section_is_there_in_order(page: str) -> None:
    assert tuple(read(page).sections) == SECTIONS
    for name in SECTIONS:
        assert f'href="#{name}"' in page


def test_the_page_loads_nothing(page: str) -> None:
    found = read(page)
    assert [link for link in found.loaded if not link.startswith(("data:image/", "#"))] == []
    assert not found.tags & {"script", "link", "iframe", "object", "base"}
    assert "http:" not in page and "https:" not in page
    assert "@import" not in page and not re.search(r"url\((?!#)", page)


def test_pictures_decode_and_show_something(page: str) -> None:
    for name, least in {"heads": 18, "composites": 36, "seams": 4, "surfaces": 4, "points": 4, "morph": 6}.items():
        found = images(section(page, name))
        assert len(found) >= least, name
        for image in found:
            image.load()
            covered = np.asarray(image.convert("RGBA"))[..., 3] > 128
            assert 0.005 < covered.mean() < 0.95, f"{name}: a picture that is empty or full"
            assert np.asarray(image.convert("L"))[covered].std() > 3, f"{name}: a picture of one colour"


def test_page_is_small_and_for_light_and_dark(page: str) -> None:
    assert len(page) < 8e6
    assert "prefers-color-scheme: dark" in page and 'name="color-scheme"' in page


def test_composites_show_one_donor_and_three(page: str) -> None:
    text = section(page, "composites")
    assert "donor of the nose" in text and "donor of the eyes" in text and "donor of the mouth" in text
    keys = set(re.findall(r"s\d--s\d-s\d-s\d", text))
    assert any(len({*key.split("--")[1].split("-")}) == 3 for key in keys)


def test_thresholds_are_drawn(page: str) -> None:
    text = section(page, "quality")
    for label in ("median", "95th percentile", "flagged below", "rejected above", "1.3 median, mouth, nose"):
        assert f"threshold: {label}" in text
    # Each label has its dashed line in the page's alarm colour.
    assert len(re.findall(r"stroke-dasharray[^\"]*stroke: var\(--alarm\)", text)) == text.count("threshold: ")


def test_thresholds_stand_at_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(charts, "to_svg", lambda figure, *_: drawn.append(figure) or "")
    rng = np.random.default_rng(0)
    names = ("residual_mm", "seam_excess_rms_deg", "seam_excess_max_deg", "sv_min", "sv_max", "flips")
    columns = {f"{disk}_{name}": rng.uniform(0.2, 1.8, 40) for disk in ("left", "right") for name in names}
    charts.quality_histograms(columns, {"left": "#111111", "right": "#222222"}, {"left": 1.3, "right": 0.9})
    lines = {axis.get_title("left"): [line.get_xdata()[0] for line in axis.get_lines()] for axis in drawn[0].axes}
    assert lines == {
        "residual on the loop, RMS (mm)": [0.9, 1.3],
        "seam excess, RMS (°)": [thresholds.SEAM_RMS_MEDIAN_DEG, thresholds.SEAM_RMS_P95_DEG],
        "seam excess, largest edge (°)": [thresholds.SEAM_MAX_MEDIAN_DEG],
        "smallest singular value": [SURE_RANGE[0], SANE_RANGE[0]],
        "largest singular value": [SURE_RANGE[1], SANE_RANGE[1]],
        "flipped faces of a part": [thresholds.FLIPS_PER_COMPOSITE + 0.5],
    }
    for axis in drawn[0].axes:
        assert [label.xy[0] for label in axis.texts] == lines[axis.get_title("left")], "every label at its line"
        low, high = axis.get_xlim()
        assert all(low < value < high for value in lines[axis.get_title("left")]), "every line within the picture"


def test_stored_distances_are_checked_against_the_surface(page: str) -> None:
    rows = re.findall(r"<td[^>]*>(near|free) points</td>((?:<td[^>]*>[^<]*</td>)+)", section(page, "sdf"))
    assert [name for name, _ in rows] == ["near", "free"]
    for _, cells in rows:
        points, unit, _, signs = re.findall(r">([^<]*)</td>", cells)
        assert int(points.replace(",", "")) >= 500
        assert float(unit) < 1e-6 and int(signs) == 0


def test_rejects_are_listed_with_reason_and_key_and_escaped(page: str) -> None:
    text = section(page, "rejects")
    assert "the mesh holds &lt;NaN&gt; coordinates" in text and "s6_e09" in text


def test_commands_reproduce_the_stages(page: str) -> None:
    text = section(page, "timings")
    assert (
        "facegraft graft eggs/heads --seed 0 --set donors=3 --set independent=1.0 --set rings=1 --set stage_points=600 -o eggs/composites"
        in text
    )
    assert "facegraft clean eggs/composites eggs/heads --seed 0 -o eggs/surfaces" in text


@pytest.mark.slow
def test_the_same_data_give_the_same_page(run_folder: Path, page: str, tmp_path: Path) -> None:
    assert write_report(run_folder, tmp_path).read_text(encoding="utf-8") == page


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["heads", "composites", "surfaces", "samples"])
def test_one_dataset_alone(run_folder: Path, kind: str, tmp_path: Path) -> None:
    page = write_report(run_folder / kind, tmp_path).read_text(encoding="utf-8")
    assert tuple(read(page).sections) == SECTIONS
    for other in {"heads", "composites", "surfaces", "samples"} - {kind}:
        assert f"There is no dataset of {other} in this folder." in page
    shown = {"heads": "heads", "composites": "composites", "surfaces": "surfaces", "samples": "points"}[kind]
    assert images(section(page, shown)) and "missing" not in section(page, shown)
    if kind == "composites":  # self-grafts stand in for the neutral heads
        assert "head is missing" not in section(page, "composites")


@pytest.mark.slow
def test_unfinished_and_absent_stages_are_said(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "half"
    for kind in ("heads", "composites"):
        shutil.copytree(run_folder / kind, out / kind)
    (out / "composites" / "dataset.json").unlink()
    page = write_report(out, tmp_path / "page").read_text(encoding="utf-8")
    assert "Not in this folder: surfaces, samples" in page
    assert "The composites could not be shown" in section(page, "composites")
    assert images(section(page, "heads"))


def test_nothing_to_report_on(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"nothing to report on; give a dataset's folder") as caught:
        write_report(tmp_path, tmp_path / "report")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("render", "what"),
    [
        ("raise ImportError('libGL.so.1: cannot open shared object file')", "failed (ImportError: libGL.so.1"),
        ("import os; os.kill(os.getpid(), 11)", "failed (exit -11)"),
        ("print(False)", "gave an empty picture"),
    ],
)
def test_a_machine_that_cannot_draw(render: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio, "RENDER", render)
    with start_probe() as probe, pytest.raises(ReportError) as caught:
        studio.Studio(probe)
    message = str(caught.value)
    assert what in message and "install Mesa" in message and "facegraft doctor" in message and "\n" not in message
