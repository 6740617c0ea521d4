"""The fault matrix: its tests import the toy stages of the engine's tests, and every run of it ends in a table."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
for folder in (HERE.parent / "engine", HERE):
    sys.path.insert(0, str(folder))

pytest.register_assert_rewrite("fault_checks")

_PLAIN = "other attacks"
_FROM, _TO = "<!-- table of faults -->", "<!-- end of the table -->"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--faults-table",
        metavar="FILE",
        default=None,
        help="Put the table of faults into FILE (markdown), in place of the one that it has.",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not item.path.is_relative_to(HERE):
            continue
        marker = item.get_closest_marker("row")
        if marker is not None:
            row = marker.args[0]
            cells = (row.group, row.fault, row.expected)
        else:
            # Tests of other attacks say in their names what holds.
            cells = (
                _PLAIN,
                item.path.stem.removeprefix("test_").replace("_", " "),
                item.name.partition("[")[0].removeprefix("test_").replace("_", " "),
            )
        item.user_properties.append(("row", list(cells)))


@dataclass
class _Tally:
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def outcome(self) -> str:
        parts = [f"{self.passed} of {self.passed + self.failed} passed" if self.passed + self.failed else ""]
        parts += [f"{self.skipped} skipped"] if self.skipped else []
        return ", ".join([*filter(None, parts), f"{self.seconds:.0f} s", *dict.fromkeys(self.notes)])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    tallies: dict[tuple[str, str, str], _Tally] = defaultdict(_Tally)
    for outcome in ("passed", "failed", "skipped", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            properties = dict(getattr(report, "user_properties", []))
            if "row" not in properties:
                continue
            tally = tallies[tuple(properties["row"])]
            tally.seconds += report.duration
            if outcome == "passed":
                tally.passed += 1
            elif outcome == "skipped":
                tally.skipped += 1
            else:
                tally.failed += 1
            tally.notes += [value for name, value in report.user_properties if name == "note"]
    if not tallies:
        return
    lines = ["| fault | expected | outcome |", "|---|---|---|"]
    for group in dict.fromkeys(key[0] for key in sorted(tallies)):
        lines += [f"| **{group}** | | |"]
        lines += [
            f"| {fault} | {expected} | {tally.outcome()} |"
            for (of, fault, expected), tally in tallies.items()
            if of == group
        ]
    terminalreporter.section("faults")
    terminalreporter.write_line("\n".join(lines))
    path = config.getoption("faults_table", None)
    if path is not None:
        _put(Path(path), "\n".join(lines))


def _put(path: Path, table: str) -> None:
    """Into the file, between its two marks where it has them."""
    text = path.read_text() if path.exists() else f"{_FROM}\n{_TO}\n"
    before, _, rest = text.partition(_FROM)
    path.write_text(f"{before}{_FROM}\n\n{table}\n\n{_TO}{rest.partition(_TO)[2]}")


@pytest.fixture(scope="session")
def toy_env() -> dict[str, str]:
    """The environment of processes that import the toy stages."""
    path = os.pathsep.join([str(HERE.parent / "engine"), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the run of run_toys.py leaves when nothing happens to it."""
    from run_toys import toys
    from toy_runs import dataset_hash

    output = tmp_path_factory.mktemp("undisturbed") / "out"
    toys(output, scheduler="sync")
    return dataset_hash(output)


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same with items that take no time."""
    from run_toys import plan, toys
    from toy_runs import dataset_hash

    output = tmp_path_factory.mktemp("quick") / "out"
    toys(output, of=plan(seconds=0.0), scheduler="sync")
    return dataset_hash(output)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """One local cluster of two workers, for the tests that leave it whole."""
    from toy_runs import options

    from facegraft.engine import start_client

    with start_client(options(workers=2)) as client:
        yield client
