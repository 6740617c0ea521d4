"""The state of a run, read from its folder only, also during the run."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from facegraft.engine.folder import finished_counts
from facegraft.engine.locks import is_locked
from facegraft.engine.run_record import RunRecord, read_run
from facegraft.store import read_commit, shard_name
from facegraft.store.remote import Location, RemotePath, each, each_in_turn, place
from facegraft.store.schema import commit_name
from facegraft.store.writer import SHARD_FOLDER


@dataclass(frozen=True)
class RunStatus:
    """Items and shards, done and planned. `complete`: dataset.json exists; `running`: a run holds the folder's lock. `rate` (items
    per second, None until two shards are committed) and `eta_s` are computed from the shards committed in the last ten minutes of
    work; `last_commit_s`: seconds since the last commit."""

    output: Location
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
    last_commit_s: float | None

    @property
    def state(self) -> str:
        """complete, running or stopped."""
        return "complete" if self.complete else "running" if self.running else "stopped"

    @property
    def done(self) -> int:
        return self.written + self.rejected


_RECENT_S = 600.0
_COMMIT = re.compile(r"[0-9]{5,12}-of-[0-9]{5,12}\.json")


def status(output: str | Location) -> RunStatus:
    """Raises EngineError where the folder holds no run. Shards count by commit record and size; `verify` checks their bytes."""
    folder = place(output)
    run = read_run(folder)
    written, reasons = 0, Counter[str]()
    items = dict[str, int]()
    for name, record in commit_records(folder, run):
        refused = Counter(row["reason"] for row in record["rows"] if row["status"] == "rejected")
        reasons += refused
        written += len(record["rows"]) - refused.total()
        items[name] = len(record["rows"])
    times = each(folder, lambda name: (folder / SHARD_FOLDER / commit_name(name)).stat().st_mtime, items)
    commits = list(zip(times, items.values(), strict=True))
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
        last_commit_s=max(0.0, time.time() - max(when for when, _ in commits)) if commits else None,
    )


def commit_records(folder: Location, run: RunRecord) -> Iterator[tuple[str, dict[str, Any]]]:
    """(shard name, commit record) of the shards that are committed."""
    sha256 = run.commit_sha256()
    if isinstance(folder, RemotePath):
        # Listings of an object store may lag, so every name that run.json implies is looked up.
        numbers = list(range(run.shards))
    else:
        # The existing records, not as many as run.json says: a damaged file may claim any number.
        there = (folder / SHARD_FOLDER).glob(f"*-of-{run.shards:05d}.json") if (folder / SHARD_FOLDER).is_dir() else []
        found = (int(path.name.partition("-")[0]) for path in there if _COMMIT.fullmatch(path.name))
        numbers = sorted(number for number in found if number < run.shards)
    names = [shard_name(number, run.shards) for number in numbers]
    records = each_in_turn(folder, lambda name: read_commit(folder, name, sha256, check_bytes=False), names)
    yield from ((name, record) for name, record in zip(names, records, strict=True) if record is not None)


def _rate(commits: list[tuple[float, int]]) -> float | None:
    """Items per second between the first and the last commit of the recent past."""
    if not commits:
        return None
    commits.sort()
    newest = min(commits[-1][0], time.time())
    recent = [(when, items) for when, items in commits if when >= newest - _RECENT_S]
    span = recent[-1][0] - recent[0][0]
    return sum(items for _, items in recent[1:]) / span if span > 0 else None
