"""The region map of the toy head, for the tests of sources."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def toy_map(toy: ModuleType, tmp_path: Path) -> str:
    """Path of the toy's region map (mm)."""
    path = tmp_path / "maps" / "toy.json"
    path.parent.mkdir()
    toy.region_map().save(path)
    return str(path)
