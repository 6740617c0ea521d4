"""A small run of synthetic heads through all stages, made once a session in this process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from facegraft.engine import EngineOptions
from facegraft.pipeline import run_recipe
from facegraft.recipe import Recipe

SMALL = Recipe(
    "small",
    "",
    {
        "ingest": {"kind": "synthetic", "subjects": 6, "expressions": 2},
        "graft": {"donors": 3, "independent": 0.7, "stage_points": 512},
        "clean": {"mode": "head"},
        "sample": {"surface": 3000, "near": 1500, "free": 1000, "shard_items": 8},
    },
)


@pytest.fixture(scope="session")
def small_recipe() -> Recipe:
    return SMALL


@pytest.fixture(scope="session")
def sync() -> EngineOptions:
    return EngineOptions(scheduler="sync", progress=False)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory, sync: EngineOptions) -> Path:
    """OUT of a whole run: 6 subjects (2 for testing), 2 expressions, 3 donors."""
    output = tmp_path_factory.mktemp("small_run")
    run_recipe(SMALL, None, output, seed=3, options=sync)
    return output


@pytest.fixture(scope="session")
def content_hash() -> Callable[[Path], dict[str, str]]:
    """Hashes of everything in a run folder that must not depend on workers, kills or the clock."""

    def hashes(folder: Path) -> dict[str, str]:
        kept = {}
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and "logs/" not in name and not name.endswith(("run.json", ".lock")):
                kept[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return kept

    return hashes
