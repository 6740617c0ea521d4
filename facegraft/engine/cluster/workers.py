"""Check which workers of an existing cluster can make shards.

Every worker is asked before it gets work: for its version of facegraft, and whether it can read the run's folder. An unsuitable
worker is named in a warning, once, and gets no work; the others continue. Workers that join later are asked when they join.
"""

from __future__ import annotations

import logging
import pkgutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any

from facegraft.engine.errors import EngineError
from facegraft.engine.job import StageJob, read_job_run
from facegraft.errors import FacegraftError

log = logging.getLogger("facegraft")

_ASK_AGAIN_S = 60.0
_FOLDER_S = 5.0
_ANSWER_S = 15.0
_SHOWN = 5
_ANSWER_LOST = (OSError, TimeoutError, CancelledError)
# A function of the standard library, so that workers with another facegraft, or without it, can answer.
_VERSION = (pkgutil.resolve_name, "facegraft:__version__")


@dataclass(frozen=True)
class WorkerFacts:
    """A worker as the scheduler and the worker itself describe it. `version`: of its facegraft; None where that cannot be imported or no
    answer came (`why`: the reason). `memory`: bytes, 0 without a limit."""

    name: str
    address: str
    version: str | None
    why: str
    threads: int
    memory: int


class WorkerPool:
    """The workers of a cluster, and whether each of them can do one job. `wake` is called, from another thread, at every answer.

    `warned`: warnings that have already been printed, shared by the pools of several jobs.
    """

    def __init__(self, client: Any, job: StageJob, wake: Callable[[], None], warned: set[str]) -> None:
        self.job = job
        self._client = client
        self._wake = wake
        self._warned = warned
        self._versions: dict[str, Any] = {}
        self._checks: dict[str, Any] = {}
        self._refused: dict[str, tuple[str, float]] = {}
        self._threads: Mapping[str, int] = {}
        self._fit: set[str] = set()
        self._ever_fit = False

    @property
    def fit(self) -> dict[str, int]:
        """Threads of the suitable workers, by address."""
        return {address: threads for address, threads in self._threads.items() if address in self._fit}

    def update(self, threads: Mapping[str, int]) -> None:
        """Ask new workers, and collect the answers so far. `threads`: threads of all present workers, by address.

        Raises EngineError when all have answered and no worker is suitable.
        """
        now = time.monotonic()
        self._threads = dict(threads)
        self._fit &= threads.keys()
        # A file system may be mounted later, so refused workers are asked again.
        self._refused = {
            address: (why, when)
            for address, (why, when) in self._refused.items()
            if address in threads and now - when < _ASK_AGAIN_S
        }
        for asked in (self._versions, self._checks):
            for address in asked.keys() - threads.keys():
                asked.pop(address).release()
        known = self._versions.keys() | self._checks.keys() | self._fit | self._refused.keys()
        for address in threads.keys() - known:
            self._versions[address] = self._ask(address, *_VERSION)
        self._collect_answers(now)
        self._ever_fit |= bool(self._fit)
        if self._refused and not self._versions and not self._checks and not self._ever_fit:
            raise EngineError(self._none_fits())

    def release(self) -> None:
        """Forget unanswered questions."""
        for future in (*self._versions.values(), *self._checks.values()):
            future.release()
        self._versions.clear()
        self._checks.clear()

    def _ask(self, address: str, *question: Any) -> Any:
        future = self._client.submit(*question, workers=[address], pure=False, retries=0, priority=100)
        future.add_done_callback(lambda _: self._wake())
        return future

    def _collect_answers(self, now: float) -> None:
        for address, future in _answered(self._versions):
            try:
                version, why = _version(future)
            except _ANSWER_LOST:
                continue  # the worker has left after its answer; it is asked again when it comes back
            finally:
                future.release()
            if version == self.job.code_version:
                # Not before: a worker that cannot unpickle a task ends, and loses its other tasks.
                self._checks[address] = self._ask(address, job_problem, self.job)
            elif version is not None:
                needed = f"this run needs {self.job.code_version}; install the same version there"
                self._refuse(address, f"it has facegraft {version}, {needed}", now)
            else:
                self._refuse(address, f"{why}; install facegraft {self.job.code_version} there", now)
        for address, future in _answered(self._checks):
            try:
                why = _check_answer(future)
            except _ANSWER_LOST:
                continue
            finally:
                future.release()
            if why:
                self._refuse(address, why, now)
            else:
                self._fit.add(address)

    def _refuse(self, address: str, why: str, now: float) -> None:
        self._refused[address] = (why, now)
        line = f"worker {worker_name(self._client, address)} gets no work: {why}"
        if line not in self._warned:
            self._warned.add(line)
            log.warning(line)

    def _none_fits(self) -> str:
        names = [
            f"{worker_name(self._client, address)}: {why}" for address, (why, _) in list(self._refused.items())[:_SHOWN]
        ]
        more = f"; and {len(self._refused) - _SHOWN} more" if len(self._refused) > _SHOWN else ""
        return f"none of the {len(self._refused)} Dask workers can make this run: {'; '.join(names)}{more}"


def job_problem(job: StageJob) -> str:
    """Runs on the worker: why it cannot do the job; empty when it can."""
    deadline = time.monotonic() + _FOLDER_S
    while True:
        try:
            read_job_run(job)
            return ""
        except (FacegraftError, OSError) as error:
            # A network file system may show a new folder some seconds late.
            if time.monotonic() > deadline:
                return str(error)
        time.sleep(0.5)


def describe_workers(client: Any) -> list[WorkerFacts]:
    """All workers of a cluster, with the version of facegraft of each."""
    workers = client.scheduler_info()["workers"]
    asked = {a: client.submit(*_VERSION, workers=[a], pure=False, retries=0, priority=100) for a in workers}
    deadline = time.monotonic() + _ANSWER_S
    facts = []
    for address, about in workers.items():
        while asked[address].status == "pending" and time.monotonic() < deadline:
            time.sleep(0.05)
        try:
            version, why = _version(asked[address])
        except _ANSWER_LOST as error:
            version, why = None, f"its answer did not arrive ({type(error).__name__})"
        facts.append(
            WorkerFacts(
                str(about["name"]), address, version, why, int(about["nthreads"]), int(about["memory_limit"] or 0)
            )
        )
    client.cancel(list(asked.values()), force=True)
    return sorted(facts, key=lambda worker: (worker.name, worker.address))


def scheduler_version(client: Any) -> tuple[str | None, str]:
    """(version of facegraft on the scheduler, why it has none). The scheduler unpickles the tasks, so it needs facegraft too."""
    try:
        return str(client.run_on_scheduler(*_VERSION)), ""
    except Exception as error:
        return None, f"facegraft cannot be imported there ({type(error).__name__}: {error})"


def worker_name(client: Any, address: str) -> str:
    """The name that the operator gave a worker, and its address."""
    name = client.scheduler_info()["workers"].get(address, {}).get("name", address)
    return address if name == address else f"{name} at {address}"


def _version(future: Any) -> tuple[str | None, str]:
    if future.status == "finished":
        return str(future.result(timeout=_ANSWER_S)), ""
    if future.status == "error":
        error = future.exception(timeout=_ANSWER_S)
        return None, f"facegraft cannot be imported there ({type(error).__name__}: {error})"
    raise _no_answer(future)


def _check_answer(future: Any) -> str:
    if future.status == "finished":
        return str(future.result(timeout=_ANSWER_S))
    if future.status == "error":
        error = future.exception(timeout=_ANSWER_S)
        return f"it cannot run facegraft ({type(error).__name__}: {error})"
    raise _no_answer(future)


def _no_answer(future: Any) -> CancelledError:
    """The error for a question that was cancelled or lost because the worker or the scheduler left: the worker may still be suitable."""
    return CancelledError(f"the question is {future.status}")


def _answered(asked: dict[str, Any]) -> list[tuple[str, Any]]:
    """Remove and return the answered questions."""
    return [(address, asked.pop(address)) for address in list(asked) if asked[address].status != "pending"]
