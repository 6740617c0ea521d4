"""The page of a run that is started again is left alone where it would be the same, and only there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from facegraft.report import renewal


@pytest.fixture
def run_copy(run_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_folder, tmp_path / "eggs"))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The pages that are drawn, in place of which a short text is written."""
    pages: list[Path] = []

    def write(folder: Path, output: Path) -> Path:
        output.mkdir(exist_ok=True)
        page = output / "index.html"
        page.write_text(f"page {len(pages)}")
        pages.append(page)
        return page

    monkeypatch.setattr(renewal, "write_report", write)
    return pages


def test_a_page_that_would_be_the_same_is_left_alone(run_copy: Path, drawn: list[Path]) -> None:
    page = run_copy / "report" / "index.html"
    assert renewal.renew_report(run_copy, run_copy / "report") == page
    assert renewal.renew_report(run_copy, run_copy / "report") == page
    assert page.read_text() == "page 0" and len(drawn) == 1


def changed_dataset(out: Path) -> None:
    shutil.rmtree(out / "samples")
    shutil.copytree(out / "surfaces", out / "samples")


def model(out: Path) -> None:
    (out / "model" / "run").mkdir(parents=True)
    (out / "model" / "run" / "metrics.jsonl").write_text("{}\n")


CHANGES: dict[str, Callable[[Path], object]] = {
    "another dataset": changed_dataset,
    "the command that made it": lambda out: (out / "surfaces/run.json").write_bytes((out / "samples/run.json").read_bytes()),
    "timings": lambda out: next((out / "samples/logs").glob("*.json")).write_text("{}"),
    "no timings": lambda out: shutil.rmtree(out / "samples/logs"),
    "a model": model,
    "a damaged page": lambda out: (out / "report/index.html").write_text("page"),
    "no page": lambda out: (out / "report/index.html").unlink(),
    "a damaged note": lambda out: (out / "report" / renewal.MADE_FROM_FILE).write_text("{}"),
    "no note": lambda out: (out / "report" / renewal.MADE_FROM_FILE).unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_page_of_something_else_is_drawn(run_copy: Path, drawn: list[Path], change: str) -> None:
    renewal.renew_report(run_copy, run_copy / "report")
    CHANGES[change](run_copy)
    renewal.renew_report(run_copy, run_copy / "report")
    assert len(drawn) == 2 and drawn[1].read_text() == "page 1"
    renewal.renew_report(run_copy, run_copy / "report")
    assert len(drawn) == 2


def test_other_code_or_another_place_is_another_page(run_copy: Path, drawn: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    renewal.renew_report(run_copy, run_copy / "report")
    moved = run_copy.rename(run_copy.with_name("moved"))
    renewal.renew_report(moved, moved / "report")
    assert len(drawn) == 2
    monkeypatch.setattr(renewal, "installation_sha256", lambda: "changed")
    renewal.renew_report(moved, moved / "report")
    assert len(drawn) == 3


def test_a_dataset_that_is_not_whole_is_always_drawn(run_copy: Path, drawn: list[Path]) -> None:
    renewal.renew_report(run_copy, run_copy / "report")
    next((run_copy / "samples/shards").glob("*.safetensors")).unlink()
    for count in (2, 3):
        renewal.renew_report(run_copy, run_copy / "report")
        assert len(drawn) == count
