"""What all tests share: where the optional real heads are, how many tests were skipped and why, and no limits of real time."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
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


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line for all skips of one reason; pytest would list every test."""
    reasons = Counter[str]()
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report.longrepr, tuple):
            reasons[report.longrepr[2].removeprefix("Skipped: ")] += 1
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count} skipped: {reason}")
