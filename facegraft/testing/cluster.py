"""A Dask scheduler and workers in separate processes, as on a real cluster, which can be killed one by one."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from facegraft.engine.threads import SINGLE_THREAD
from facegraft.testing.killer import dask_workers, family, kill

_START_S = 300.0


class OwnCluster:
    """A cluster with its scheduler file in `folder`; all of its processes are killed in the end.

    `env`: their environment (by default that of this process); its PYTHONPATH must include the folder of your stages.
    """

    def __init__(self, folder: Path, env: dict[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "scheduler.json"
        self._env = {**(dict(os.environ) if env is None else env), **SINGLE_THREAD}
        self._log = (folder / "cluster.log").open("ab")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._start(
            "scheduler", "dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"
        )

    @property
    def address(self) -> str:
        """Waits until the scheduler is running. Raises TimeoutError."""
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            # Dask writes the file in pieces under its final name.
            with suppress(FileNotFoundError, ValueError):
                return str(json.loads(self.file.read_text())["address"])
            time.sleep(0.02)
        raise TimeoutError(f"no scheduler after {_START_S:g} s; see {self._log.name}")

    def worker(self, name: str, nanny: bool = True) -> None:
        """Start a worker, with or without the nanny that starts another when it dies (but not one that exits with 0)."""
        options = ["--nthreads", "1", "--name", name, "--memory-limit", "0", "--host", "127.0.0.1"]
        self._start(name, "dask_worker", "--nanny" if nanny else "--no-nanny", *options, "--no-dashboard")

    def ended(self) -> list[str]:
        """Names of the processes that have ended by themselves; a worker may be started again under its name."""
        return [name for name, process in self._processes.items() if process.poll() is not None]

    def wait_for_workers(self, count: int) -> None:
        """Wait until the scheduler has that many workers. Raises TimeoutError."""
        distributed: Any = importlib.import_module("distributed")
        with distributed.Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=_START_S)

    def kill(self, name: str) -> list[psutil.Process]:
        """SIGKILL to one process: "scheduler", a nanny, or a worker without a nanny. Returns the processes that it leaves behind; a nanny's
        worker ends itself, soon but not at once."""
        process = self._processes.pop(name)
        left = family(process.pid)[1:]
        process.kill()
        process.wait()
        return left

    def kill_worker(self, name: str) -> bool:
        """SIGKILL to the worker below the nanny of that name, and not to the nanny; False when it had no worker just then."""
        victims = dask_workers(self._processes[name].pid)
        kill(victims)
        return bool(victims)

    def close(self) -> None:
        for process in self._processes.values():
            kill(family(process.pid))
            process.wait()
        self._processes.clear()
        self._log.close()

    def __enter__(self) -> OwnCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, name: str, program: str, *arguments: str) -> None:
        command = [sys.executable, "-m", f"distributed.cli.{program}", "--scheduler-file", str(self.file), *arguments]
        self._processes[name] = subprocess.Popen(
            command, env=self._env, stdout=self._log, stderr=self._log, start_new_session=True
        )
