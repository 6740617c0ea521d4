"""The scripts of the reported cases, and what they need: a small dataset of the built-in heads, made once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from reported_cases import Cases

from facegraft.engine import EngineOptions
from facegraft.pipeline import clean, ingest

SUBJECTS, EXPRESSIONS = 12, 3
"""What the scripts name: subjects 1 to 12, each neutral, smiling and with the mouth open."""


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Cases:
    """The scripts and their demo dataset, or a skip that says why."""
    named = os.environ.get("FACEGRAFT_DATA")
    data = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"
    scripts = data.resolve().parent / "cases"
    if not (scripts / "cases_lib.py").is_file():
        pytest.skip("no reported cases: they lie in `cases`, beside the folder that FACEGRAFT_DATA names")
    demo = tmp_path_factory.mktemp("demo")
    settings: dict[str, Any] = {"kind": "synthetic", "subjects": SUBJECTS, "expressions": EXPRESSIONS}
    options = EngineOptions(scheduler="sync", progress=False)
    ingest(None, demo / "heads", settings, options=options)
    clean([demo / "heads"], demo / "surfaces", {}, options=options)
    return Cases(scripts, demo)
