"""What a run folder holds, told from the folder alone, also while the run goes on."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facegraft.engine.fingerprint import RunRecord, read_run
from facegraft.engine.folder import finished_counts
from facegraft.engine.lock import is_locked
from facegraft.store import read_commit, shard_name
from facegraft.store.schema import commit_name
from facegraft.store.writer import SHARD_FOLDER


@dataclass(frozen=True)
class RunStatus:
    """Items and shards, done and planned. `complete`: dataset.json is there; `running`: a run holds the folder's lock. `rate` (items
    per second, None until two shards are committed) and `eta_s` are of the shards committed in the last ten minutes of work."""

    output: Path
    stage: str
    planned: int
    written: int
    rejected: int
    reasons: dict[str, int]
    shards_done: int
    shards: int
    complete: bool
    running: bool
    rate: float | None
    eta_s: float | None

    @property
    def done(self) -> int:
        return self.written + self.rejected


_RECENT_S = 600.0
_COMMIT = re.compile(r"[0-9]{5,12}-of-[0-9]{5,12}\.json")


def status(output: str | Path) -> RunStatus:
    """Raises EngineError where the folder holds no run. Shards count by commit record and size; `verify` checks their bytes."""
    folder = Path(output)
    run = read_run(folder)
    written, reasons, commits = 0, Counter[str](), []
    for name, record in commit_records(folder, run):
        refused = Counter(row["reason"] for row in record["rows"] if row["status"] == "rejected")
        reasons += refused
        written += len(record["rows"]) - refused.total()
        commits.append(((folder / SHARD_FOLDER / commit_name(name)).stat().st_mtime, len(record["rows"])))
    rejected = reasons.total()
    rate = _rate(commits)
    complete = finished_counts(folder) is not None
    return RunStatus(
        output=folder,
        stage=run.stage,
        planned=run.planned,
        written=written,
        rejected=rejected,
        reasons=dict(reasons.most_common()),
        shards_done=len(commits),
        shards=run.shards,
        complete=complete,
        running=is_locked(folder),
        rate=rate,
        eta_s=None if complete or rate is None else (run.planned - written - rejected) / rate,
    )


def commit_records(folder: Path, run: RunRecord) -> Iterator[tuple[str, dict[str, Any]]]:
    """(shard name, commit record) of the shards that are committed."""
    sha256 = run.commit_sha256()
    # What is there, and not what run.json says there might be: that may be any number.
    there = (folder / SHARD_FOLDER).glob(f"*-of-{run.shards:05d}.json") if (folder / SHARD_FOLDER).is_dir() else []
    numbers = sorted(int(path.name.partition("-")[0]) for path in there if _COMMIT.fullmatch(path.name))
    for number in numbers:
        if number >= run.shards:
            continue
        name = shard_name(number, run.shards)
        record = read_commit(folder, name, sha256, check_bytes=False)
        if record is not None:
            yield name, record


def _rate(commits: list[tuple[float, int]]) -> float | None:
    """Items per second between the first and the last commit of the recent past."""
    if not commits:
        return None
    commits.sort()
    newest = min(commits[-1][0], time.time())
    recent = [(when, items) for when, items in commits if when >= newest - _RECENT_S]
    span = recent[-1][0] - recent[0][0]
    return sum(items for _, items in recent[1:]) / span if span > 0 else None
