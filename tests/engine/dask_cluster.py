"""A Dask cluster as an operator starts it: a scheduler and workers in processes of their own, wherever they are put."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Place:
    """Where processes run. `prefix`: what comes before the command line; `host`: their address there; `tls`: options of `dask scheduler`
    and `dask worker`; `environment`: what differs from this process."""

    host: str = "127.0.0.1"
    prefix: Sequence[str] = ()
    tls: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)


class Cluster:
    """Ends with `close`, whatever is left of it."""

    def __init__(self, folder: Path, place: Place | None = None) -> None:
        self.file = folder / "scheduler.json"
        self.log = (folder / "cluster.log").open("wb")
        self.place = place or Place()
        protocol = ["--protocol", "tls"] if self.place.tls else []
        self.processes = {
            "scheduler": self.start(
                "dask_scheduler", self.place, *protocol, "--port", "0", "--dashboard-address", "127.0.0.1:0"
            )
        }
        # Dask writes the file bit by bit.
        while (address := self._address()) is None:
            assert self.processes["scheduler"].poll() is None, "the scheduler has ended"
            time.sleep(0.05)
        self.address: str = address

    def _address(self) -> str | None:
        try:
            return str(json.loads(self.file.read_text())["address"])
        except (FileNotFoundError, ValueError):
            return None

    def start(self, program: str, place: Place, *arguments: str) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(
            [place.environment.get("PYTHONPATH", ""), str(HERE), os.environ.get("PYTHONPATH", "")]
        ).strip(os.pathsep)
        environment = {**os.environ, **place.environment, "PYTHONPATH": path}
        where = ["--scheduler-file", str(self.file), "--host", place.host]
        command = [*place.prefix, sys.executable, "-m", f"distributed.cli.{program}", *where, *place.tls, *arguments]
        # Not in the checkout: `python -m` puts the current folder before everything else.
        return subprocess.Popen(
            command,
            env=environment,
            cwd=self.file.parent,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def worker(self, name: str, threads: int = 1, place: Place | None = None, nanny: bool = False) -> None:
        life = "--nanny" if nanny else "--no-nanny"
        options = [life, "--no-dashboard", "--nthreads", str(threads), "--name", name, "--local-directory"]
        self.processes[name] = self.start("dask_worker", place or self.place, *options, str(self.file.parent / name))

    def kill(self, name: str) -> None:
        os.killpg(self.processes[name].pid, signal.SIGKILL)
        self.processes.pop(name).wait()

    def close(self) -> None:
        for name in list(self.processes):
            self.kill(name)
        self.log.close()
