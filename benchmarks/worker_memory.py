"""Does a worker's memory grow? Memory of one worker and of its item child while they make a thousand items of each stage.

    python benchmarks/worker_memory.py                    # synthetic heads, 1,000 items of ingest, graft, clean and sample
    python benchmarks/worker_memory.py --ict FaceXModel   # real heads of ICT-FaceKit

Prints a table, in MB: the least that the process holds in the second tenth of the items and in the last, the most it ever held, and the
slope of the least, tenth by tenth, per thousand items. Memory is what the process
alone holds (resident and not shared); pages of the shards that it has mapped are the system's, which takes them back when it needs them.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from facegraft import pipeline
from facegraft.engine import EngineOptions, RunSummary, start_client
from facegraft.engine.status import status

EVERY_S = 0.25
SUBJECTS, DONORS = 40, 25


@dataclass
class Watch(threading.Thread):
    """Reads the memory of all processes below this one that are a Dask worker or an item child, and how many items are done."""

    folder: Path
    done: threading.Event = field(default_factory=threading.Event)
    seen: list[tuple[int, float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        while not self.done.wait(EVERY_S):
            worker, child = private_mb()
            if (self.folder / "run.json").exists() and child:
                self.seen.append((status(self.folder).done, worker, child))


def private_mb() -> tuple[float, float]:
    """MB of the worker and of its child; 0 where there is none."""
    found = {"worker": 0.0, "child": 0.0}
    for process in psutil.Process().children(recursive=True):
        try:
            line, memory = " ".join(process.cmdline()), process.memory_info()
        except psutil.Error:
            continue
        kind = "child" if "facegraft.engine.sandbox.child_main" in line else "worker" if "spawn_main" in line else ""
        if kind:
            found[kind] = max(found[kind], (memory.rss - memory.shared) / 1e6)
    return found["worker"], found["child"]


def watched(folder: Path, work: Callable[[], RunSummary]) -> tuple[RunSummary, np.ndarray]:
    """The summary, and rows (items done, MB of the worker, MB of the child)."""
    watch = Watch(folder)
    watch.start()
    try:
        summary = work()
    finally:
        watch.done.set()
        watch.join()
    return summary, np.array(watch.seen, dtype=np.float64).reshape(-1, 3)


def row(stage: str, summary: RunSummary, seen: np.ndarray) -> str:
    """A line of the table. A process holds most while it makes a shard and least between two: growth is that of the least, tenth by tenth."""
    tenth = np.minimum(10 * seen[:, 0] // summary.planned, 9)
    cells = [f"{stage:<8} {summary.planned:>6} {summary.planned / summary.seconds:>8.1f}"]
    for column in (1, 2):
        # The first tenth is left out: there libraries are loaded and buffers find their size.
        least = np.array([[k, seen[tenth == k, column].min()] for k in range(1, 10) if (tenth == k).any()])
        slope = 1000 * np.polyfit(least[:, 0] * summary.planned / 10, least[:, 1], 1)[0] if len(least) > 1 else np.nan
        cells.append(f"{least[0, 1]:>8.0f} {least[-1, 1]:>8.0f} {seen[:, column].max():>8.0f} {slope:>+9.1f}")
    return "  ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ict", help="folder FaceXModel of ICT-FaceKit; default: synthetic heads")
    arguments = parser.parse_args()
    source: dict[str, Any] = {"kind": "ict"} if arguments.ict else {"kind": "synthetic"}
    options = EngineOptions(workers=1, progress=False)
    print(f"{'':25}  {'worker: least at 10 %, at the end; most; per 1,000':<36}  item child: the same", flush=True)
    with tempfile.TemporaryDirectory() as name, start_client(options) as client:
        out = Path(name)
        start = time.perf_counter()
        heads = {**source, "subjects": SUBJECTS, "expressions": 1, "test_fraction": 0.0}
        many = {**source, "subjects": 1000, "expressions": 1, "test_fraction": 0.0, "shard_items": 16}
        pipeline.ingest(arguments.ict, out / "few", heads, 0, options, client)
        steps: dict[str, Callable[[], RunSummary]] = {
            "ingest": lambda: pipeline.ingest(arguments.ict, out / "ingest", many, 0, options, client),
            "graft": lambda: pipeline.graft(
                out / "few", out / "graft", {"donors": DONORS, "shard_items": 16}, 0, options, client
            ),
            "clean": lambda: pipeline.clean(
                [out / "graft", out / "few"], out / "clean", {"shard_items": 16}, 0, options, client
            ),
            "sample": lambda: pipeline.sample(
                out / "clean",
                out / "sample",
                {"surface": 4000, "near": 2000, "free": 1000, "shard_items": 16},
                0,
                options,
                client,
            ),
        }
        for stage, step in steps.items():
            print(row(stage, *watched(out / stage, step)), flush=True)
        print(f"{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
