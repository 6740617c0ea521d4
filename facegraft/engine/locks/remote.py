"""One run at a time on a folder in an object store: a lock object that its holder keeps alive.

The system does not release it when its holder dies, so the object names its holder. A holder on this machine is looked up among
the processes. A holder on another machine shows that it is alive only by renewing the object: a new process watches, by its own
clock, for longer than a holder may leave the lock unrenewed, and then takes the lock over. A holder that finds its lock taken, or
cannot renew it for that long, stops. Two runs at once would still write the same bytes, because run.json refuses any other run.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from facegraft.engine.clock import SYSTEM_CLOCK, Clock
from facegraft.engine.errors import EngineError
from facegraft.store import RemoteError
from facegraft.store.remote import Location, RemotePath

log = logging.getLogger("facegraft")

BEAT_S = 10.0
"""Seconds between two renewals of a lock."""
LAPSE_S = 60.0
"""Seconds without renewal after which the holder of a lock counts as dead."""
_SETTLE_S = 2.0
_LOOK_EVERY_S = 1.0
# The clock for all waiting in this module.
clock: Clock = SYSTEM_CLOCK


class RemoteLock:
    """A lock that is held. `check` raises EngineError once it is lost."""

    def __init__(self, path: RemotePath, token: str) -> None:
        self._path, self._token = path, token
        self._beat = 0
        self._lost: str | None = None
        self._renewed = clock.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="facegraft-lock", daemon=True)

    def check(self) -> None:
        """Raises EngineError where another run has taken the folder, or the store has not answered for too long."""
        if self._lost is None and clock.monotonic() - self._renewed > LAPSE_S:
            self._lost = f"it could not be renewed for {LAPSE_S:g} s"
        if self._lost is not None:
            raise EngineError(
                f"the lock {self._path} is lost ({self._lost}); what was committed is kept: run the same command again to go on"
            )

    def start(self) -> None:
        self._thread.start()

    def release(self) -> None:
        """Stop renewing, and remove the lock object if it is still ours."""
        self._end.set()
        self._thread.join()
        if self._lost is not None:
            return
        try:
            if _is_of(_read(self._path), self._token):
                self._path.unlink(missing_ok=True)
        except RemoteError as error:
            # The run itself has succeeded, and the next run on this machine sees that the holder is gone.
            log.warning("the lock %s is left behind: %s", self._path, error)

    def _renew(self) -> None:
        while not clock.wait(self._end, BEAT_S):
            try:
                if not _is_of(there := _read(self._path), self._token):
                    self._lost = f"it is held by {describe(there)}" if there else "it was removed"
                    return
                self._beat += 1
                self._path.put(_note(self._token, self._beat))
            except RemoteError:
                continue  # the next renewal may succeed; check() raises when it has been too long
            self._renewed = clock.monotonic()


@contextmanager
def locked_remotely(path: RemotePath, folder: Location) -> Iterator[RemoteLock]:
    """Hold the lock object. Raises EngineError naming the process that holds it, RemoteError where the store does not answer."""
    token = secrets.token_hex(16)
    try:
        path.create(_note(token, 0))
    except FileExistsError:
        there = _read(path)
        if there is not None and not _holder_is_gone(path, there):
            raise EngineError(_in_use(folder, path, there)) from None
        path.put(_note(token, 0))
        # If several take over at once, the last to write its note has the lock: wait until all have written theirs.
        clock.sleep(_SETTLE_S)
    there = _read(path)
    if not _is_of(there, token):
        raise EngineError(_in_use(folder, path, there or {}))
    lock = RemoteLock(path, token)
    lock.start()
    try:
        yield lock
    finally:
        lock.release()


def is_locked_remotely(path: RemotePath) -> bool:
    """Whether a run seems active, without waiting: by the process on this machine, or else by the object's age."""
    there = _read(path)
    if there is None:
        return False
    alive = _holder_alive_here(there)
    return _age_s(path) < LAPSE_S if alive is None else alive


def describe(note: dict[str, Any]) -> str:
    """The holder of a lock, from its note, for a message."""
    return f"process {note.get('pid', '?')} on {note.get('host', '?')}"


def _in_use(folder: Location, path: RemotePath, note: dict[str, Any]) -> str:
    return (
        f"{folder} is in use by another run ({describe(note)}, its lock was renewed {_age_s(path):.0f} s ago); wait for it or stop it, "
        f"or choose another folder; if that process is gone for certain, remove {path}"
    )


def _holder_is_gone(path: RemotePath, note: dict[str, Any]) -> bool:
    alive = _holder_alive_here(note)
    if alive is not None:
        return not alive
    began = clock.monotonic()
    while clock.monotonic() - began < LAPSE_S + BEAT_S:
        clock.sleep(_LOOK_EVERY_S)
        now = _read(path)
        if now is None:
            return True
        if now != note:
            return False
    return True


def _holder_alive_here(note: dict[str, Any]) -> bool | None:
    """Whether the process that wrote a note is alive; None where only its own machine knows."""
    if note.get("machine") != _machine() or not isinstance(note.get("pid"), int):
        return None
    return _started(note["pid"]) == note.get("started")


def _note(token: str, beat: int) -> bytes:
    pid = os.getpid()
    note = {"token": token, "beat": beat, "host": socket.gethostname(), "machine": _machine(), "pid": pid}
    return json.dumps({**note, "started": _started(pid)}).encode()


def _read(path: RemotePath) -> dict[str, Any] | None:
    try:
        note = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        note = None
    return note if isinstance(note, dict) else {}


def _is_of(note: dict[str, Any] | None, token: str) -> bool:
    return note is not None and note.get("token") == token


def _age_s(path: RemotePath) -> float:
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except FileNotFoundError:
        return 0.0


def _machine() -> str | None:
    """An id of this boot of this machine and of this container, in which process ids are unique. None where the system has no /proc."""
    boot, numbers = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if not boot.is_file() or not numbers.exists():
        return None
    return f"{boot.read_text().strip()} {numbers.stat().st_ino}"


def _started(pid: int) -> str | None:
    """Start time of a process in ticks since boot, which tells it from a later process with the same id; None where it does not run
    (a zombie counts as not running)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else fields[19]
