"""Good heads are not refused, warned of or moved: a small count of what `benchmarks/false_alarms.py` counts."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def false_alarms() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "false_alarms.py"
    spec = importlib.util.spec_from_file_location("facegraft_false_alarms", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look for it
    spec.loader.exec_module(module)
    return module


def quiet(false_alarms: ModuleType, name: str, data: Path, subjects: int, expressions: int | None) -> None:
    found = false_alarms.count(false_alarms.family(name, data, 0, expressions), subjects, 0)
    assert found.heads >= subjects * (expressions or 6)
    assert found.rejects == [] and found.warnings == []


@pytest.mark.parametrize("name", ["flame", "facescape"])
def test_samples_with_open_jaws_are_good(false_alarms: ModuleType, data_dir: Path, name: str) -> None:
    quiet(false_alarms, name, data_dir, 4, None)


@pytest.mark.parametrize("name", ["synthetic", "synthetic-extreme"])
def test_synthetic_heads_are_good(false_alarms: ModuleType, tmp_path: Path, name: str) -> None:
    quiet(false_alarms, name, tmp_path, 6, 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ict", "ict-extreme"])
def test_ict_heads_are_good(false_alarms: ModuleType, data_dir: Path, name: str) -> None:
    quiet(false_alarms, name, data_dir, 12, 6 if name == "ict" else 60)


def test_a_bad_head_among_them_is_told(false_alarms: ModuleType, tmp_path: Path) -> None:
    """The counter counts: one subject stretched, and a smile with a stray vertex."""
    good = false_alarms.family("synthetic", tmp_path, 0, 2)

    def vertices(subject: int, name: str):
        head = good.vertices(subject, name).copy()
        if subject == 3:
            head *= [1.0, 1.5, 1.0]
        if (subject, name) == (2, "smile"):
            head[0] += 5000.0
        return head

    bad = false_alarms.Family(good.region_map, good.faces, good.expressions, vertices)
    found = false_alarms.count(bad, 6, 0)
    assert len(found.rejects) == 3
