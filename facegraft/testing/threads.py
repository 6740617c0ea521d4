"""A machine that starts no further thread, as under `ulimit -u` or `ulimit -v`, from the n-th thread of a process on.

    subprocess.run(["facegraft", "run", ...], env=environment(threads=ThreadFault("worker", nth=3)))

Threads of native libraries are not touched; for these use the real limits.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

# The function that threading.Thread calls: its name differs between versions of Python.
_STARTERS = ("_start_new_thread", "_start_joinable_thread")


@dataclass(frozen=True)
class ThreadFault:
    """`where`: in the command itself, in the Dask workers that it starts, or in the processes of items. `nth`: the first thread that is
    refused, counted from 1 in each process."""

    where: Literal["client", "worker", "item"]
    nth: int = 1

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def install(fault: ThreadFault) -> None:
    """The fault, in this process, from now on, if it is of that kind."""
    if _kind() != fault.where:
        return
    started = 0

    def refusing(start: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal started
            started += 1
            if started >= fault.nth:
                raise RuntimeError("can't start new thread")
            return start(*arguments, **named)

        return counted

    for name in _STARTERS:
        if hasattr(threading, name):
            setattr(threading, name, refusing(getattr(threading, name)))


def _kind() -> str:
    # At the start of Python sys.argv is not there yet.
    line = " ".join(sys.orig_argv)
    if "sandbox.child_main" in line:
        return "item"
    return "worker" if "spawn_main" in line else "other" if "resource_tracker" in line else "client"
