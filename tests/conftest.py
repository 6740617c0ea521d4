"""What all tests share: where the optional real heads are, how many tests were skipped and why, and no limits of real time."""

from __future__ import annotations

import gzip
import importlib.util
import os
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is.
settings.register_profile("facegraft", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("facegraft")


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


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """The module toy_head.py in heads/."""
    spec = importlib.util.spec_from_file_location("facegraft_toy_head", Path(__file__).parent / "heads" / "toy_head.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def facescape_folder(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FaceScape folder with the one real mesh as 1/1_neutral.obj."""
    root = tmp_path_factory.mktemp("facescape")
    (root / "1").mkdir()
    (root / "1" / "1_neutral.obj").write_bytes(
        gzip.decompress((data_dir / "facescape" / "facescape_v16_sample.obj.gz").read_bytes())
    )
    return root


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line for all skips of one reason; pytest would list every test."""
    reasons = Counter[str]()
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report.longrepr, tuple):
            reasons[report.longrepr[2].removeprefix("Skipped: ")] += 1
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count} skipped: {reason}")
