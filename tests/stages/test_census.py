"""The dry run judges as ingest does, writes nothing, and says what looks odd."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from raw_heads import write_heads
from scipy.spatial.transform import Rotation

from facegraft.cli.main import cli
from facegraft.engine import EngineOptions
from facegraft.meshfiles import write_mesh
from facegraft.pipeline import ingest
from facegraft.report.gather import gather
from facegraft.report.odd import odd_section
from facegraft.stages.census import Census, take_census
from facegraft.stages.ingest import IngestParameters
from facegraft.store import open_dataset

Points = NDArray[np.float64]
TOLERANT = EngineOptions(scheduler="sync", progress=False, max_rejects=0.5)
MESHES = {"kind": "meshes", "region_map": "synthetic"}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Points], NDArray[np.int64]]:
    """A folder of synthetic heads, their vertices by file, and their faces."""
    return write_heads(tmp_path_factory.mktemp("good"), 5, 2)


@pytest.fixture(scope="module")
def bad(good: tuple[Path, dict[str, Points], NDArray[np.int64]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder with a head in metres, a smile that nods, a truncated file, a copy of a person, and a subject without a neutral head."""
    raw, vertices, faces = good
    root = tmp_path_factory.mktemp("bad") / "raw"
    shutil.copytree(raw, root)
    write_mesh(root / "s0002" / "neutral.ply", vertices["s0002/neutral.ply"] / 1000, faces)
    nod = Rotation.from_euler("x", 12.0, degrees=True)
    write_mesh(root / "s0003" / "smile.ply", nod.apply(vertices["s0003/smile.ply"]), faces)
    cut = root / "s0004" / "smile.ply"
    cut.write_bytes(cut.read_bytes()[:-100])
    shutil.copytree(raw / "s0001", root / "twin")
    (root / "s0005" / "neutral.ply").unlink()
    return root


def census_of(folder: Path) -> Census:
    return take_census(folder, IngestParameters.parse(MESHES), 0)


def odd(census: Census) -> dict[str, tuple[str, ...]]:
    return {one.what: one.odd for one in census.statistics if one.odd}


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def test_good_heads_are_not_odd(good: tuple[Path, dict[str, Points], NDArray[np.int64]]) -> None:
    census = census_of(good[0])
    assert census.rejected == {} and odd(census) == {} and census.odd == []


def test_it_rejects_what_ingest_rejects_with_the_same_words(bad: Path, tmp_path: Path) -> None:
    census = census_of(bad)
    ingest(str(bad), tmp_path / "heads", MESHES, options=TOLERANT)
    rows = open_dataset(tmp_path / "heads").index.to_pylist()
    assert census.rejected == {row["key"]: row["reason"] for row in rows if row["status"] == "rejected"}
    assert set(census.rejected) == {"s0002_e01", "s0003_e02", "s0004_e02"}
    assert {item.key: item.row["split"] for item in census.items} == {row["key"]: row["split"] for row in rows}


def test_it_says_what_looks_odd(bad: Path) -> None:
    found = odd(census_of(bad))
    assert found["duplicates"] == ("s0001_e01 = twin_e01 (same file)", "s0001_e02 = twin_e02 (same file)")
    assert found["missing neutral heads"] == ("s0002", "s0005")
    assert found["outer eye corners"] == ("s0002_e01",)
    assert found["pose of expressions against neutral"] == ("s0003_e02",)


@pytest.mark.parametrize(("degrees", "says"), [(-24.0, "look up"), (20.0, "look down"), (0.0, None)])
def test_a_set_that_nods_as_a_whole_is_said(
    degrees: float, says: str | None, good: tuple[Path, dict[str, Points], NDArray[np.int64]], tmp_path: Path
) -> None:
    _, vertices, faces = good
    nod = Rotation.from_euler("x", degrees, degrees=True)
    for i in range(1, 5):
        write_mesh(tmp_path / f"s{i}.ply", nod.apply(vertices[f"s000{i}/neutral.ply"]), faces)
    found = odd(census_of(tmp_path)).get("nod, chin to nasion", ("",))[0]
    assert (says or "") in found and bool(found) == (says is not None)


def test_an_expression_that_is_a_copy_of_the_neutral_head_is_said(good: tuple[Path, dict[str, Points], NDArray[np.int64]], tmp_path: Path) -> None:
    raw, vertices, faces = good
    shutil.copytree(raw, tmp_path / "raw")
    write_mesh(tmp_path / "raw" / "s0003" / "smile.ply", vertices["s0003/neutral.ply"], faces)
    assert odd(census_of(tmp_path / "raw")) == {"duplicates": ("s0003_e01 = s0003_e02 (same file)",)}


@pytest.mark.parametrize("command", [["ingest", "--kind", "meshes", "--region-map", "synthetic", "--check", "--quiet"], ["doctor"]])
def test_the_commands(command: list[str], good: tuple[Path, dict[str, Points], NDArray[np.int64]], bad: Path) -> None:
    result = call(*command, good[0])
    assert result.exit_code == 0, result.output
    assert "nothing looks odd" in result.output and re.search(r"heads +10, of which ingest would write 10 and reject 0", result.output)
    before = sorted(bad.rglob("*"))
    result = call(*command, bad)
    assert result.exit_code == 1
    assert "would be rejected: s0002_e01: s0002/neutral.ply: the outer eye corners are" in result.output and "metres" in result.output
    assert "ingest would stop: more than the 1 rejected heads that --max-rejects 0.02 allows" in result.output
    assert sorted(bad.rglob("*")) == before


def test_computed_heads_are_checked_too() -> None:
    result = call("ingest", "--kind", "synthetic", "--subjects", 3, "--expressions", 1, "--check")
    assert result.exit_code == 0 and "nothing looks odd" in result.output and "stretch" in result.output


def test_doctor_names_the_kinds_where_it_cannot_tell(tmp_path: Path) -> None:
    result = call("doctor", tmp_path)
    assert result.exit_code == 1 and "--kind with one of ict, facescape, flame, meshes" in str(result.exception)
    assert call("doctor", "--kind", "flame").exit_code == 2


def test_doctor_knows_a_dataset(good: tuple[Path, dict[str, Points], NDArray[np.int64]]) -> None:
    for folder in (good[0].parent, good[0].parent / "heads"):
        assert "holds a dataset already; look at it with `facegraft report" in str(call("doctor", folder).exception)


def test_ingest_still_needs_an_output() -> None:
    result = call("ingest", "--kind", "synthetic")
    assert result.exit_code == 2 and "Missing option '-o'" in result.output


def test_the_page_shows_odd_heads_first(bad: Path, tmp_path: Path) -> None:
    result = call("doctor", bad, "-o", tmp_path / "check.html")
    assert result.exit_code == 1 and f"page: {tmp_path / 'check.html'}" in result.output
    page = (tmp_path / "check.html").read_text(encoding="utf-8")
    captions = re.findall(r"<figcaption>([^<]+)", page)
    assert captions[:3] == ["s0002_e01", "s0003_e02", "s0004_e02"], "rejected heads come first"
    assert captions[3:7] == ["s0001_e01", "s0001_e02", "twin_e01", "twin_e02"], "then odd ones"
    assert page.count("data:image/webp") == len(captions) - 1, "all but the truncated file have a picture"
    assert "http" not in re.sub(r"data:[^\"]+", "", page)
    assert page.count("✗ s0002/neutral.ply") >= 1


def test_the_report_says_the_same_of_the_dataset(bad: Path, tmp_path: Path) -> None:
    ingest(str(bad), tmp_path / "heads", MESHES, options=TOLERANT)
    tables = [block.rows for block in odd_section(gather(tmp_path / "heads")).blocks if block.kind == "table"]
    found = {row[0]: row[3] for row in tables[0]}
    assert found["duplicates"] == "✗ s0001_e01 = twin_e01 (same file), s0001_e02 = twin_e02 (same file)"
    assert found["missing neutral heads"] == "✗ s0002, s0005"
    assert found["stretch, strongest by weakest"] == "✓ none"
    assert {row[2] for row in tables[1]} == {"s0002_e01", "s0003_e02", "s0004_e02"}


def test_the_report_of_good_heads_says_that_nothing_looks_odd(good: tuple[Path, dict[str, Points], NDArray[np.int64]], tmp_path: Path) -> None:
    section = odd_section(gather(good[0].parent / "heads"))
    assert getattr(section.blocks[0], "text", "") == "Nothing looks odd."
