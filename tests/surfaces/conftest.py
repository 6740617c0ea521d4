"""The heads and the oracle of the tests of geometry, for those of surfaces."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any


def _geometry() -> Any:
    spec = importlib.util.spec_from_file_location(
        "facegraft_geometry_fixtures", Path(__file__).parents[1] / "geometry" / "conftest.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


_FIXTURES = _geometry()
brute_force, globe, closed_globe, ict = (
    _FIXTURES.brute_force,
    _FIXTURES.globe,
    _FIXTURES.closed_globe,
    _FIXTURES.ict,
)
