"""Fixtures shared by all tests: where the optional real heads are, and small meshes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def find_data() -> Path | None:
    """The folder of real heads: $FACEGRAFT_DATA, or `shared/data` beside the checkout."""
    named = os.environ.get("FACEGRAFT_DATA")
    candidates = [Path(named)] if named else [Path(__file__).resolve().parents[2] / "shared" / "data"]
    return next((path for path in candidates if (path / "ict").is_dir()), None)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real heads, or a skip that says why."""
    path = find_data()
    if path is None:
        pytest.skip("no real heads: set FACEGRAFT_DATA to the folder that holds ict/, facescape/ and flame/")
    return path
