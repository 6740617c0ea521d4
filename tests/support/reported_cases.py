"""Running the scripts of the reported cases, and the product on what they made."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facegraft.store import open_dataset

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Answer:
    """What a command said: its exit code, standard output, and standard error without the lines of warnings that are not asked for."""

    code: int
    output: str
    error: str

    @property
    def line(self) -> str:
        """The one line in which the product says what is wrong."""
        found = [line for line in self.error.splitlines() if line.startswith("facegraft: error: ")]
        assert len(found) == 1, self.error
        assert "Traceback" not in self.output + self.error
        return found[0].removeprefix("facegraft: error: ")


@dataclass(frozen=True)
class Cases:
    """Runs the scripts of the cases, and the product on what they made."""

    scripts: Path
    demo: Path

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(ROOT / "model"), str(ROOT)])
        return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "DEMO": str(self.demo)}

    def make(self, number: str, folder: Path) -> None:
        """Run the script of this number in the folder."""
        (script,) = self.scripts.glob(f"{number}_*.py")
        done = subprocess.run([sys.executable, str(script)], cwd=folder, env=self.environment(), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr

    def facegraft(self, folder: Path, *arguments: object) -> Answer:
        """Run `facegraft …` in the folder."""
        command = [sys.executable, "-m", "facegraft", *map(str, arguments)]
        done = subprocess.run(command, cwd=folder, env=self.environment(), capture_output=True, text=True, timeout=600)
        return Answer(done.returncode, done.stdout, done.stderr)

    def ingest(self, folder: Path, source: str, *more: object, rejects: float = 1.0) -> Answer:
        """Ingest `source` as meshes of the synthetic topology into the folder's `heads`."""
        return self.facegraft(
            folder, "ingest", source, "--kind", "meshes", "--region-map", "synthetic", "-o", "heads", "--scheduler", "sync", "--quiet",
            "--max-rejects", rejects, *more,
        )  # fmt: skip


def rows(folder: Path) -> list[dict[str, Any]]:
    """The index of the folder's `heads`."""
    return list(open_dataset(folder / "heads").index.to_pylist())


def rejected(folder: Path) -> dict[str, str]:
    """By file, the reason of each reject; each is one line that names the file first."""
    found = {str(row["source"]): str(row["reason"]) for row in rows(folder) if row["status"] == "rejected"}
    assert all(re.fullmatch(rf"{re.escape(name)}: [^\n]+", reason) for name, reason in found.items()), found
    return found
