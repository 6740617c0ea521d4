"""Faults in processes that somebody else starts: commands, Dask workers, their children.

    subprocess.run(["facegraft", "run", ...], env=environment(disk=DiskFault(...)))

The environment puts `preload/` on PYTHONPATH, whose sitecustomize.py Python imports at the start of every process; that reads the
faults from $FACEGRAFT_FAULTS. It takes the place of any other sitecustomize for those processes. Without it nothing is installed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from facegraft.testing import clock
from facegraft.testing import disk as faulty
from facegraft.testing.clock import ClockJump
from facegraft.testing.disk import DiskFault

VARIABLE = "FACEGRAFT_FAULTS"
PRELOAD = Path(__file__).parent / "preload"


def environment(
    disk: DiskFault | None = None, jumps: Sequence[ClockJump] = (), base: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of a process that shall have these faults, and of all that it starts. `base`: this process's own by default."""
    before = dict(os.environ if base is None else base)
    faults = {"disk": None if disk is None else disk.to_json(), "jumps": [jump.to_json() for jump in jumps]}
    path = os.pathsep.join([str(PRELOAD), *filter(None, [before.get("PYTHONPATH")])])
    return {**before, "PYTHONPATH": path, VARIABLE: json.dumps(faults)}


def install_from_environment() -> None:
    """What sitecustomize.py calls."""
    faults = json.loads(os.environ.get(VARIABLE, "{}"))
    if faults.get("disk"):
        faulty.install(DiskFault.from_json(faults["disk"]))
    if faults.get("jumps"):
        clock.install([ClockJump(**jump) for jump in faults["jumps"]])
