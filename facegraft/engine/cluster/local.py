"""A local Dask cluster: what it needs of the machine, starting it, closing it, and one line where it cannot start."""

from __future__ import annotations

import asyncio
import errno
import logging
import multiprocessing
import multiprocessing.process
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from facegraft.engine.cluster.connect import dask_module
from facegraft.engine.cluster.overheard import MARK, Overheard
from facegraft.engine.errors import EngineError
from facegraft.engine.shortage import NO_THREADS, shortage
from facegraft.engine.threads import SINGLE_THREAD

START_S = 300.0
"""How long the workers may take to start: they import Dask, perhaps all at once and from a slow disk."""

SYNC = 'or run without workers: --scheduler sync (EngineOptions(scheduler="sync") in Python)'
_CLOSE_S = 30.0
_LOOK_EVERY_S = 0.2
_WORKER_PROCESS = "Dask Worker process"
# Fewer file descriptors than these are never enough.
_FILES, _FILES_OF_WORKER = 16, 6
_IMPORTED_AGAIN = (
    "each worker imports the script that was started, and this one starts a run when it is imported; put what it does below "
    "`if __name__ == '__main__':`"
)
_SETTINGS = {
    "distributed.diagnostics.nvml": False,
    # Dask would profile its workers and keep an hour of samples in memory; the logs of a run are more useful.
    "distributed.worker.profile.enabled": False,
}


class Troubles:
    """What the workers have said of their troubles while they worked. `worst`: the reason to end the run; None where it can go on."""

    def __init__(self, overheard: Overheard) -> None:
        self._overheard = overheard
        self._known = 0

    def moved(self) -> None:
        """A shard has come back: earlier troubles were overcome."""
        self._known = len(self._overheard.marks)

    def worst(self) -> str | None:
        # One worker may end and be replaced while another program has taken what there was.
        new = self._overheard.marks[self._known :]
        return None if len(new) < _ENDS_ALLOWED else new[-1]

    def cause(self) -> str:
        """What may explain why there is no worker; empty where nothing is known."""
        new = self._overheard.marks[self._known :]
        return new[-1] if new else (shortage(self._overheard.shortage or "") or "")


_ENDS_ALLOWED = 3


def settings(connect_s: float) -> Any:
    """Dask's configuration as we need it, for a block. Raises EngineError where Dask or its configuration cannot be read."""
    try:
        dask = dask_module("dask")
        dask_module("distributed")
        return dask.config.set({**_SETTINGS, "distributed.comm.timeouts.connect": f"{connect_s:g}s"})
    except Exception as error:
        # Importing Dask reads its YAML files; their messages have many lines.
        where = os.environ.get("DASK_CONFIG") or "~/.config/dask or /etc/dask"
        raise EngineError(
            f"Dask cannot be loaded ({_one_line(error)}); mend its configuration (YAML files in {where}, variables DASK_…), {SYNC}"
        ) from None


@contextmanager
def local_cluster(workers: int | None, dashboard: str | None) -> Iterator[tuple[Any, Troubles]]:
    """A cluster of worker processes and the `distributed.Client` for it. Raises EngineError where the machine does not allow it."""
    dask = dask_module("dask")
    count = workers or dask.system.CPU_COUNT
    _check_machine(count)
    try:
        overheard = Overheard()
    except RuntimeError:
        raise _cannot_start(NO_THREADS) from None
    with ExitStack() as stack:
        stack.callback(overheard.close)
        cluster = client = None
        try:
            with overheard.listening():
                try:
                    cluster = _cluster_class(overheard)(
                        n_workers=count,
                        threads_per_worker=1,
                        processes=True,
                        host="127.0.0.1",
                        # Dask always opens a port for its pages: use a free one that only this machine can reach.
                        dashboard_address=dashboard or "127.0.0.1:0",
                        silence_logs=logging.CRITICAL,
                        # The child limits its own memory: Dask would pause or kill the worker for memory that the child uses.
                        memory_limit=0,
                        env=SINGLE_THREAD,
                        worker_class=_nanny_class(overheard),
                        preload=["facegraft.engine.cluster.worker_setup"],
                        death_timeout=START_S,
                    )
                    client = dask_module("distributed").Client(cluster, set_as_default=False, timeout=START_S)
                except Exception as error:
                    _end_workers()
                    # Not `from error`: Dask's own message is what this one replaces.
                    raise _cannot_start(_cause(error, overheard)) from None
            overheard.pass_on(True)
            yield client, Troubles(overheard)
        finally:
            _close(client, cluster, overheard)


def _cluster_class(overheard: Overheard) -> Any:
    class LocalCluster(dask_module("distributed").LocalCluster):  # type: ignore[misc]
        """Dask's own, which waits for ever for workers that cannot start."""

        def sync(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            return super().sync(_bounded, overheard, func, *args, **kwargs)

    return LocalCluster


def _nanny_class(overheard: Overheard) -> Any:
    class Nanny(dask_module("distributed").Nanny):  # type: ignore[misc]
        """Dask's own; a worker that it starts anew is heard as well."""

        async def instantiate(self) -> Any:
            with overheard.listening():
                return await super().instantiate()

    return Nanny


async def _bounded(overheard: Overheard, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Wait for Dask's coroutine, but not once the workers have said that they cannot start, nor longer than `START_S`."""
    task = asyncio.ensure_future(func(*args, **kwargs))
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(overheard.forgotten)
    end, marks = loop.time() + START_S, len(overheard.marks)
    while not task.done():
        await asyncio.wait({task}, timeout=_LOOK_EVERY_S)
        if not task.done() and (len(overheard.marks) > marks or overheard.shortage or loop.time() > end):
            task.cancel()
            raise TimeoutError(f"the workers have not started within {START_S:g} s")
    return task.result()


def refuse_second_import() -> None:
    """Ends a worker that imports the user's script and so starts the same run again, and says why: the script has no main guard."""
    if getattr(multiprocessing.process.current_process(), "_inheriting", False):
        os.write(2, f"{MARK}{_IMPORTED_AGAIN}\n".encode())
        os._exit(1)


def _check_machine(workers: int) -> None:
    """Raises EngineError for what a cluster cannot be without; Dask's own messages about these have a hundred lines, or none."""
    _check_main_script()
    folder = _folder_of_start()
    if folder is None or not Path(folder).is_dir():
        raise _cannot_start("the working folder no longer exists, and workers start in it; cd to one that does")
    try:
        multiprocessing.get_context("spawn").Lock()
    except OSError as error:
        known = shortage(str(error))
        raise _cannot_start(
            known or f"no semaphore can be made in /dev/shm ({error.strerror}); make it a writable tmpfs"
        ) from None
    _check_threads()
    _check_files(_FILES + workers * _FILES_OF_WORKER)
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname(), timeout=10),
        ):
            pass
    except OSError as error:
        raise _cannot_start(
            f"no connection within this machine, 127.0.0.1 ({error.strerror or error}); bring the loopback interface up (ip link set lo up)"
        ) from None


def _check_main_script() -> None:
    """Workers import the script that the user has started, as all of Python's own processes do; it has to be a file."""
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    if getattr(main, "__spec__", None) is not None or path is None:
        return
    if not Path(_folder_of_start() or "", path).is_file():
        raise _cannot_start(
            f"the workers import the script that was started, and {path} is no file; save the script in a file"
        )


def _folder_of_start() -> str | None:
    """The working folder in which this process was started, to which workers go; None where it was gone already."""
    return getattr(multiprocessing.process, "ORIGINAL_DIR", None)


def _check_threads() -> None:
    over = threading.Event()
    try:
        thread = threading.Thread(target=over.wait)
        thread.start()
    except RuntimeError:
        raise _cannot_start(NO_THREADS) from None
    over.set()
    thread.join()


def _check_files(count: int) -> None:
    opened: list[int] = []
    try:
        while len(opened) < count:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise _cannot_start(
            f"{len(opened)} more files can be opened, {count} or more are needed; raise the limit (ulimit -n 1024)"
        ) from None
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _cause(error: BaseException, overheard: Overheard) -> str:
    """Why the cluster has not started, and what to do about it."""
    if overheard.marks:
        return overheard.marks[-1]
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    said = f"{type(error).__name__}: {_one_line(error)}"
    if known := shortage(overheard.shortage or "") or shortage(said):
        return known
    last = overheard.last()
    return f"{last or said}; look at the machine's limits (ulimit -a) and at Dask's configuration"


def _cannot_start(cause: str) -> EngineError:
    return EngineError(f"the local workers cannot start: {cause}, {SYNC}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _close(client: Any, cluster: Any, overheard: Overheard) -> None:
    """Close them within bounded time, whatever state they are in, and leave no worker behind."""
    failed = isinstance(sys.exc_info()[1], EngineError)
    overheard.pass_on(False)
    with ExitStack() as stack:
        if failed:
            # What Dask says of workers that it loses now is no news.
            stack.enter_context(overheard.listening())
        for opened in (client, cluster):
            if opened is not None:
                with suppress(Exception):
                    opened.close(timeout=_CLOSE_S)
        _end_workers()


def _end_workers() -> None:
    workers = [process for process in multiprocessing.active_children() if process.name.startswith(_WORKER_PROCESS)]
    for process in workers:
        process.kill()
    for process in workers:
        process.join(_CLOSE_S)
