"""Fault injection into other processes: commands, Dask workers, their children.

    subprocess.run(["facegraft", "run", ...], env=environment(disk=DiskFault(...)))

The environment puts `preload/` on PYTHONPATH. Python imports its sitecustomize.py at the start of every process, which reads the
faults from $FACEGRAFT_FAULTS. It replaces any other sitecustomize in those processes. Other processes are not affected.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from facegraft.testing import clock
from facegraft.testing import disk as faulty
from facegraft.testing import threads as few
from facegraft.testing.clock import ClockJump
from facegraft.testing.disk import DiskFault
from facegraft.testing.threads import ThreadFault

VARIABLE = "FACEGRAFT_FAULTS"
PRELOAD = Path(__file__).parent / "preload"


def environment(
    disk: DiskFault | None = None,
    jumps: Sequence[ClockJump] = (),
    threads: ThreadFault | None = None,
    base: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment of a process with these faults, which its children inherit. `base`: by default that of this process."""
    before = dict(os.environ if base is None else base)
    faults = {
        "disk": None if disk is None else disk.to_json(),
        "jumps": [jump.to_json() for jump in jumps],
        "threads": None if threads is None else threads.to_json(),
    }
    path = os.pathsep.join([str(PRELOAD), *filter(None, [before.get("PYTHONPATH")])])
    return {**before, "PYTHONPATH": path, VARIABLE: json.dumps(faults)}


def install_from_environment() -> None:
    """Install the faults of $FACEGRAFT_FAULTS in this process; called by sitecustomize.py."""
    faults = json.loads(os.environ.get(VARIABLE, "{}"))
    if faults.get("disk"):
        faulty.install(DiskFault.from_json(faults["disk"]))
    if faults.get("jumps"):
        clock.install([ClockJump(**jump) for jump in faults["jumps"]])
    if faults.get("threads"):
        few.install(ThreadFault(**faults["threads"]))
