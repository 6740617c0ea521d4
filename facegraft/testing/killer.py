"""SIGKILL and SIGSTOP of a run or parts of it, at random but repeatable moments.

for moment in moments(seed=0, count=20, shards=16):
    process = subprocess.Popen([...], start_new_session=True)
    wait_for(moment, output, process)
    kill(family(process.pid))
"""

from __future__ import annotations

import importlib
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import numpy as np
import psutil

from facegraft.store.writer import SHARD_FOLDER

_SOME_TIME_S = 600.0


@dataclass(frozen=True)
class Moment:
    """The moment `delay_s` seconds after that many shards were committed."""

    commits: int
    delay_s: float


def moments(seed: int, count: int, shards: int, shard_s: float = 0.3) -> list[Moment]:
    """Random moments of a run of that many shards: spread over all of it, before its first commit and at its end as well.
    `shard_s`: about how many seconds a shard takes, the longest delay."""
    rng = np.random.default_rng(seed)
    commits = rng.permutation(np.linspace(0, shards - 1, count).round().astype(int))
    return [
        Moment(int(number), float(delay)) for number, delay in zip(commits, rng.uniform(0, shard_s, count), strict=True)
    ]


def committed(output: Path) -> dict[str, tuple[int, int]]:
    """(inode, time of last change) of every commit record: these must be the same after the run was resumed."""
    found = {}
    for path in sorted((output / SHARD_FOLDER).glob("*-of-*.json")):
        with suppress(FileNotFoundError):
            stat = path.stat()
            found[path.name] = (stat.st_ino, stat.st_mtime_ns)
    return found


def wait_for(moment: Moment, output: Path, process: Popen[Any] | None = None) -> bool:
    """Wait for the moment; False when the process ended before it came. Raises TimeoutError where nothing happens for minutes."""
    seen, since = -1, time.monotonic()
    while (count := len(committed(output))) < moment.commits:
        if process is not None and process.poll() is not None:
            return False
        if count > seen:
            seen, since = count, time.monotonic()
        if time.monotonic() - since > _SOME_TIME_S:
            raise TimeoutError(f"{output}: no shard was committed for {_SOME_TIME_S:g} s")
        time.sleep(0.005)
    time.sleep(moment.delay_s)
    return process is None or process.poll() is None


def family(pid: int) -> list[psutil.Process]:
    """The process and all its descendants; empty when it has ended."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def dask_workers(pid: int) -> list[psutil.Process]:
    """The worker processes that Dask has started below this process (a command with a local cluster, or a nanny)."""
    return [process for process in family(pid)[1:] if "spawn_main" in " ".join(_command(process))]


def kill(victims: Iterable[psutil.Process]) -> None:
    """SIGKILL to all of them. They are stopped first, so that none of them can react to the death of another."""
    victims = list(victims)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in victims:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
    psutil.wait_procs(victims, timeout=_SOME_TIME_S)


@contextmanager
def stopped(victims: Iterable[psutil.Process]) -> Iterator[None]:
    """SIGSTOP for the duration of the block, then SIGCONT: like a suspended machine, Ctrl-Z, or a worker cut off from the network."""
    victims = list(victims)
    for process in victims:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in victims:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


def unleash_chaos(address: str, delay_s: float, mode: str = "sys.exit") -> None:
    """Dask's own chaos on every worker of the cluster, now and later: each dies after `delay_s` seconds on average, by `mode`
    ("sys.exit", "graceful" or "segfault"). Those without a nanny do not come back."""
    chaos: Any = importlib.import_module("distributed.chaos")
    with _client(address) as client:
        client.register_plugin(chaos.KillWorker(delay=f"{delay_s} s", mode=mode), name="facegraft-chaos")


def end_chaos(address: str) -> None:
    """End the chaos for workers that start from now on; running workers still die."""
    with _client(address) as client:
        client.unregister_worker_plugin("facegraft-chaos")


def _client(address: str) -> Any:
    # Imported here: killing processes does not need Dask.
    distributed: Any = importlib.import_module("distributed")
    return distributed.Client(address, set_as_default=False)


def _command(process: psutil.Process) -> list[str]:
    try:
        command: list[str] = process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []
    return command
