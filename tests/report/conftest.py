"""A small run through all stages, made once, and the page about it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from facegraft import pipeline
from facegraft.engine import EngineOptions
from facegraft.report import write_report


@pytest.fixture(scope="session")
def egg_heads() -> ModuleType:
    """The module egg_heads.py beside this file."""
    spec = importlib.util.spec_from_file_location("facegraft_egg_heads", Path(__file__).with_name("egg_heads.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, egg_heads: ModuleType) -> Path:
    """heads, composites, surfaces and samples of six egg heads."""
    out = tmp_path_factory.mktemp("report") / "eggs"
    options = EngineOptions(scheduler="sync", progress=False, max_rejects=0.5)
    egg_heads.write_heads(out / "heads")
    pipeline.graft(
        out / "heads",
        out / "composites",
        {"donors": 3, "independent": 1.0, "rings": 1, "stage_points": 600},
        0,
        options,
    )
    pipeline.clean([out / "composites", out / "heads"], out / "surfaces", {}, 0, options)
    pipeline.sample(out / "surfaces", out / "samples", {"surface": 3000, "near": 1000, "free": 500}, 0, options)
    return out


@pytest.fixture(scope="session")
def page(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The HTML of the whole run's page."""
    path = write_report(run_folder, tmp_path_factory.mktemp("page") / "report")
    assert path.name == "index.html"
    return path.read_text(encoding="utf-8")
