"""Many small composites in one run: does memory stay flat, does the rate, and what do scheduler and index cost?

    python benchmarks/soak.py [--items 20000] [--workers 2] [--folder DIR] [--output FIGURES.json] [--seed 0]

Makes synthetic heads (16,324 vertices) and grafts them in three runs of a twentieth, a quarter and all of the items, as a user would
(`facegraft graft`), watching the processes from outside. Prints what docs/scale.md quotes; exit 1 where a bound is broken.
    python benchmarks/soak.py --rows 1000000

Manifests alone: the rows of a real composite under so many keys, in shards without arrays; what finishing and opening cost then.

The first needs about 0.25 MB of disk an item in DIR (default: a temporary folder), and removes what it wrote unless DIR is given.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from facegraft.store import finish_dataset, open_dataset, shard_name
from facegraft.store.atomic import arrays_to_bytes, sha256_bytes
from facegraft.store.document import seal
from facegraft.store.schema import commit_name

EVERY_S = 1.0
BLOCK = 1000
SETTLED = 0.3
"""Share of the items after which nothing should change any more: by then every cache is full and every child has been grown."""

PROCESSES = ("client and scheduler", "workers", "children that run the items")
BOUNDS = {"memory growth": 2.0, "slowest block": 0.8, "scheduler overhead": 0.05, "row by key": 1.0}
"""MB in 1,000 items and a process; share of the median rate (whole blocks); share of workers × wall; ms."""


@dataclass
class Watch:
    """What was seen of one run from outside. `samples`: (items done, role → RSS of each of its processes, MB)."""

    samples: list[tuple[int, dict[str, list[float]]]] = field(default_factory=list)
    cpu: dict[str, float] = field(default_factory=dict)
    wall: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shard-items", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--output", type=Path, help="all figures, as JSON")
    parser.add_argument("--rows", type=int, help="manifests alone, of so many rows")
    options = parser.parse_args()
    if options.rows is not None:
        manifests(options.rows, options.shard_items, options.output)
        return
    with tempfile.TemporaryDirectory(prefix="facegraft-soak-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        subjects = max(8, math.ceil(math.sqrt(options.items)))
        heads = folder / "heads"
        common = ["--seed", str(options.seed), "--workers", str(options.workers), "--quiet"]
        run(
            [
                "ingest",
                "--kind",
                "synthetic",
                "--subjects",
                str(subjects),
                "--expressions",
                "1",
                "--set",
                "test_fraction=0",
                "-o",
                str(heads),
                *common,
            ]
        )
        runs = []
        for wanted in (options.items // 20, options.items // 4, options.items):
            output = folder / f"composites{wanted}"
            donors = max(1, math.ceil(wanted / subjects) - 1)
            settings = [f"donors={donors}", "stage_points=16", f"shard_items={options.shard_items}"]
            command = [
                "graft",
                str(heads),
                "-o",
                str(output),
                *common,
                *(word for s in settings for word in ("--set", s)),
            ]
            watch = watched(command, output, options.shard_items)
            runs.append(figures(output, watch, options.workers))
            report(runs[-1], options.workers)
        broken = compare(runs)
        if options.output is not None:
            options.output.write_text(
                json.dumps({"options": {k: str(v) for k, v in vars(options).items()}, "runs": runs}, indent=1) + "\n"
            )
    if broken:
        sys.exit("soak: " + "; ".join(broken))


def run(arguments: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "facegraft", *arguments], check=True)


def watched(arguments: list[str], output: Path, shard_items: int) -> Watch:
    """Run a command, looking at its process tree every EVERY_S."""
    watch, start = Watch(), time.monotonic()
    last: dict[tuple[str, int], float] = {}
    process = subprocess.Popen([sys.executable, "-m", "facegraft", *arguments])
    done = threading.Event()

    def look() -> None:
        while not done.wait(EVERY_S):
            memory: dict[str, list[float]] = defaultdict(list)
            for one in tree(process.pid):
                try:
                    role, times = role_of(one, process.pid), one.cpu_times()
                    if role is None:
                        continue
                    rss = one.memory_info().rss / 1e6
                    if rss:  # a process that has ended and is not yet waited for holds nothing
                        memory[role].append(rss)
                    last[role, one.pid] = times.user + times.system
                except psutil.Error:
                    continue
            watch.samples.append((shard_items * commits(output), dict(memory)))

    eye = threading.Thread(target=look)
    eye.start()
    code = process.wait()
    done.set()
    eye.join()
    if code:
        sys.exit(f"soak: facegraft {' '.join(arguments)} ended with {code}")
    watch.wall = time.monotonic() - start
    for (role, _), seconds in last.items():
        watch.cpu[role] = watch.cpu.get(role, 0.0) + seconds
    return watch


def tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def role_of(process: psutil.Process, root: int) -> str | None:
    if process.pid == root:
        return PROCESSES[0]
    line = process.cmdline()
    if "facegraft.engine.sandbox.child_main" in line:
        return PROCESSES[2]
    return (
        PROCESSES[1]
        if any("spawn_main" in word for word in line)
        and not any("tracker" in word and "spawn_main" not in word for word in line)
        else None
    )


def commits(output: Path) -> int:
    try:
        return sum(entry.name.endswith(".json") for entry in os.scandir(output / "shards"))
    except FileNotFoundError:
        return 0


def figures(output: Path, watch: Watch, workers: int) -> dict[str, Any]:
    """Everything that is printed of one run."""
    ds = open_dataset(output)
    count, shards = len(ds.index), ds.document["shards"]
    logs = [
        json.loads((output / "logs" / f"{shard['name'].removesuffix('.safetensors')}.json").read_bytes())
        for shard in shards
    ]
    ends = [
        (output / "logs" / f"{shard['name'].removesuffix('.safetensors')}.json").stat().st_mtime for shard in shards
    ]
    in_items = sum(sum(log["item_seconds"].values()) for log in logs)
    in_shards = sum(log["seconds"] for log in logs)
    # From the start of the first shard to the end of the last: without the start of the cluster, which is once a command.
    wall = max(ends) - min(end - log["seconds"] for end, log in zip(ends, logs, strict=True))
    sizes = {
        "shards": sum(shard["bytes"] for shard in shards),
        "commit records": sum((output / "shards" / commit_name(shard["name"])).stat().st_size for shard in shards),
        "logs": sum(path.stat().st_size for path in (output / "logs").iterdir()),
        **{
            name: (output / name).stat().st_size
            for name in ("index.parquet", "plan.parquet", "dataset.json", "run.json")
        },
    }
    return {
        "items": count,
        "rejected": count - len(ds),
        "shards": len(shards),
        "wall_s": wall,
        "start_and_finish_s": watch.wall - wall,
        "rate": count / wall,
        "rates": block_rates(sorted(zip(ends, (len(log["item_seconds"]) for log in logs), strict=True))),
        "items_share": in_items / (workers * wall),
        "shard_share": (in_shards - in_items) / (workers * wall),
        "scheduler_overhead": 1 - in_shards / (workers * wall),
        "cpu_s": watch.cpu,
        "cpu_ms_per_item": 1e3 * sum(watch.cpu.values()) / count,
        "client_cpu_share": watch.cpu.get(PROCESSES[0], 0.0) / watch.wall,
        "memory_mb": {role: memory(watch, role, count) for role in PROCESSES},
        "bytes": sizes,
        "index": read_times(output),
    }


def block_rates(commits_: list[tuple[float, int]]) -> list[float]:
    """Items a second of every whole block of BLOCK items, from the times at which shards were finished."""
    rates, since, inside = [], commits_[0][0], 0
    for when, items in commits_[1:]:
        inside += items
        if inside >= BLOCK:
            rates.append(inside / max(when - since, 1e-9))
            since, inside = when, 0
    return rates


def memory(watch: Watch, role: str, count: int) -> dict[str, float]:
    """RSS of the largest process of a role: at first, in the middle, at the end, the most, and its growth in 1,000 items once settled."""
    seen = [(done, max(found[role])) for done, found in watch.samples if found.get(role)]
    if not seen:
        return dict.fromkeys(("start", "middle", "end", "peak", "growth"), math.nan)
    # The client's last moments (writing the index) are no part of the slope: the last sample at which items were still to be done.
    at_work = [(done, mb) for done, mb in seen if SETTLED * count <= done < count]
    growth = (
        float(np.polyfit(*np.transpose(at_work), 1)[0]) * 1000 if len({done for done, _ in at_work}) >= 8 else math.nan
    )
    return {
        "start": seen[0][1],
        "middle": seen[len(seen) // 2][1],
        "end": seen[-1][1],
        "peak": max(mb for _, mb in seen),
        "growth": growth,
    }


@dataclass(frozen=True)
class IndexTimes:
    """Of a process of its own: seconds to open, MB that it takes, ms a row by key, ms to read a field by key from a shard already verified."""

    open_s: float
    open_mb: float
    row_ms: float
    field_ms: float


def read_times(output: Path) -> dict[str, float]:
    """IndexTimes of a finished dataset, the best of three processes."""
    measured = [
        json.loads(
            subprocess.run([sys.executable, __file__, "--read", str(output)], check=True, capture_output=True).stdout
        )
        for _ in range(3)
    ]
    return {name: min(one[name] for one in measured) for name in measured[0]}


def read_once(folder: Path) -> IndexTimes:
    rng = np.random.default_rng(0)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    ds = open_dataset(folder)
    opened = time.perf_counter() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
    keys = ds.keys()
    chosen = [keys[i] for i in rng.integers(0, len(keys), 500)]
    row = _time(lambda: [ds.row(key) for key in chosen]) / len(chosen)
    near = [key for key in keys if ds.row(key)["shard"] == ds.row(keys[0])["shard"]]
    ds.read(near[0], "landmarks")
    read = _time(lambda: [ds.read(key, "landmarks") for key in near]) / len(near)
    return IndexTimes(opened, grown, 1e3 * row, 1e3 * read)


def _time(action: Any) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def manifests(count: int, shard_items: int, output: Path | None) -> None:
    """Finish and open a dataset of so many rows, each in a process of its own, and print what it took."""
    with tempfile.TemporaryDirectory(prefix="facegraft-soak-") as temporary:
        folder = Path(temporary)
        run(
            [
                "ingest",
                "--kind",
                "synthetic",
                "--subjects",
                "8",
                "--expressions",
                "1",
                "--set",
                "test_fraction=0",
                "-o",
                str(folder / "heads"),
                "--scheduler",
                "sync",
                "--quiet",
            ]
        )
        run(
            [
                "graft",
                str(folder / "heads"),
                "-o",
                str(folder / "like"),
                "--set",
                "donors=1",
                "--set",
                "stage_points=16",
                "--scheduler",
                "sync",
                "--quiet",
            ]
        )
        like = open_dataset(folder / "like")
        rows = [{**row, "reason": None} for row in like.index.to_pylist()]
        shards = -(-count // shard_items)
        empty = arrays_to_bytes({})
        for number in range(shards):
            name, keys = shard_name(number, shards), _keys(number, shard_items, count)
            filled = [{**rows[i % len(rows)], "key": key, "shard": name} for i, key in enumerate(keys)]
            write_unsynced(folder / "many" / "shards" / name, empty)
            record = {
                "shard": name,
                "planned": keys,
                "rows": filled,
                "bytes": len(empty),
                "sha256": sha256_bytes(empty),
                "plan": "0" * 64,
            }
            write_unsynced(folder / "many" / "shards" / commit_name(name), seal(record))
        found = {}
        for step in ("finish", "open"):
            command = [sys.executable, __file__, "--step", step, str(folder), str(count), str(shard_items)]
            found[step] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        many = folder / "many"
        sizes = {name: (many / name).stat().st_size for name in ("index.parquet", "dataset.json")}
        sizes["commit records"] = sum(
            (many / "shards" / commit_name(shard_name(number, shards))).stat().st_size for number in range(shards)
        )
        print(f"{count:,} rows in {shards:,} shards")
        for step, figures_ in found.items():
            line(
                f"{step}: CPU s, peak MB (of which before it began)",
                f"{figures_['cpu_s']:.1f}, {figures_['peak_mb']:,.0f} ({figures_['before_mb']:,.0f})",
            )
        for name, size in sizes.items():
            line(f"{name}, MB (bytes an item)", f"{size / 1e6:,.1f} ({size / count:,.1f})")
        if output is not None:
            output.write_text(
                json.dumps({"rows": count, "shards": shards, "steps": found, "bytes": sizes}, indent=1) + "\n"
            )


def write_unsynced(path: Path, data: bytes) -> None:
    """Nobody will want these files after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _keys(number: int, shard_items: int, count: int) -> list[str]:
    """Keys as graft gives them: sorted, and new ones in every shard."""
    return [
        f"s{i // 1000:04d}--s{i % 1000:04d}"
        for i in range(number * shard_items, min(count, (number + 1) * shard_items))
    ]


def step(name: str, folder: Path, count: int, shard_items: int) -> dict[str, float]:
    """One of the steps of `manifests`, in this process."""
    schema, shards = open_dataset(folder / "like").schema, -(-count // shard_items)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    if name == "finish":
        plan = {shard_name(number, shards): _keys(number, shard_items, count) for number in range(shards)}
        finish_dataset(folder / "many", schema, plan, "0" * 64)
    else:
        assert len(open_dataset(folder / "many")) == count
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"cpu_s": time.process_time() - start, "peak_mb": peak / 1e3, "before_mb": before / 1e3}


def report(run_: dict[str, Any], workers: int) -> None:
    rates = run_["rates"] or [run_["rate"]]
    print(f"\n{run_['items']:,} composites in {run_['shards']} shards, {workers} workers, {run_['rejected']} rejected")
    line("rate, items a second (wall)", f"{run_['rate']:.1f}")
    line(
        f"… of blocks of {BLOCK:,}: slowest, median, fastest",
        f"{min(rates):.1f} / {np.median(rates):.1f} / {max(rates):.1f}",
    )
    line("share of workers × wall in items", f"{100 * run_['items_share']:.1f} %")
    line("… in writing shards (checksums, fsync)", f"{100 * run_['shard_share']:.1f} %")
    line("… in neither: scheduling and waiting", f"{100 * run_['scheduler_overhead']:.1f} %")
    line("CPU of the client and scheduler process, share of one core", f"{100 * run_['client_cpu_share']:.1f} %")
    line("CPU of all processes, ms an item", f"{run_['cpu_ms_per_item']:.1f}")
    line("start of the cluster, plan, index, end, s", f"{run_['start_and_finish_s']:.1f}")
    for role, mb in run_["memory_mb"].items():
        line(
            f"RSS of {role}, MB: start, middle, end, peak",
            " / ".join(f"{mb[name]:.0f}" for name in ("start", "middle", "end", "peak")),
        )
        line("… growth in 1,000 items, once settled, MB", f"{mb['growth']:+.2f}")
    for name, size in run_["bytes"].items():
        line(f"{name}, bytes an item", f"{size / run_['items']:,.1f}")
    for name, value in run_["index"].items():
        line(f"index: {name}", f"{value:.3f}")


def line(what: str, value: str) -> None:
    print(f"  {what:<66} {value:>28}", flush=True)


def compare(runs: list[dict[str, Any]]) -> list[str]:
    """The table over the three sizes, what a million would be by its slope, and which bounds are broken."""
    print("\nitems        rate/s   scheduler   open s   open MB   row ms   field ms   client peak MB   CPU ms/item")
    for one in runs:
        index, peak = one["index"], one["memory_mb"][PROCESSES[0]]["peak"]
        print(
            f"{one['items']:>7,} {one['rate']:>11.1f} {100 * one['scheduler_overhead']:>9.1f} % {index['open_s']:>8.3f} {index['open_mb']:>9.1f} "
            f"{index['row_ms']:>8.3f} {index['field_ms']:>10.3f} {peak:>16.0f} {one['cpu_ms_per_item']:>13.1f}"
        )
    small, large = runs[0], runs[-1]
    million = 1_000_000

    def at_a_million(value: Any) -> float:
        slope = (value(large) - value(small)) / (large["items"] - small["items"])
        return float(value(large) + slope * (million - large["items"]))

    print("\na million, by the slope between the smallest and the largest run")
    line("core-hours", f"{large['cpu_ms_per_item'] * million / 3.6e6:.1f}")
    line("tasks", f"{math.ceil(million * large['shards'] / large['items']):,}")
    line("all bytes, GB", f"{sum(large['bytes'].values()) / large['items'] * million / 1e9:,.0f}")
    for name in ("index.parquet", "plan.parquet", "dataset.json", "commit records", "logs"):
        line(f"{name}, MB", f"{at_a_million(lambda one, name=name: one['bytes'][name]) / 1e6:,.0f}")
    line("the client's peak, MB of memory", f"{at_a_million(lambda one: one['memory_mb'][PROCESSES[0]]['peak']):,.0f}")
    return broken_bounds(large)


def broken_bounds(run_: dict[str, Any]) -> list[str]:
    """What is worse than BOUNDS in the largest run. Figures that too short a run has not (NaN) break none."""
    found = []
    for role, mb in run_["memory_mb"].items():
        # The client remembers the plan; what it is given of that it gets before the first item.
        if mb["growth"] > BOUNDS["memory growth"]:
            found.append(
                f"memory of {role} grows by {mb['growth']:.2f} MB in 1,000 items (bound {BOUNDS['memory growth']:g})"
            )
    if len(run_["rates"]) >= 5 and min(run_["rates"]) < BOUNDS["slowest block"] * np.median(run_["rates"]):
        found.append(
            f"the slowest block of {BOUNDS['slowest block']:g} of the median rate was undercut: {min(run_['rates']):.1f} items/s"
        )
    if run_["scheduler_overhead"] > BOUNDS["scheduler overhead"]:
        found.append(
            f"{100 * run_['scheduler_overhead']:.1f} % of the time goes into scheduling (bound {100 * BOUNDS['scheduler overhead']:g} %)"
        )
    if run_["index"]["row_ms"] > BOUNDS["row by key"]:
        found.append(f"a row by key takes {run_['index']['row_ms']:.2f} ms (bound {BOUNDS['row by key']:g})")
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        print(json.dumps(step(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))))
    elif sys.argv[1:2] == ["--read"]:
        print(json.dumps(asdict(read_once(Path(sys.argv[2])))))
    else:
        main()
