"""Disk faults: ENOSPC, EIO, EACCES on chosen writes, in this process or in others; and a real small disk.

The wrapper replaces Python's functions (`os.write`, `os.replace` …) and so covers all writes of Python code, and so all of
facegraft's. For a file object (`open(path, "w")`) it covers only the opening, and it does not cover native libraries that open files
themselves: for those there is `small_disk`, which is a real file system.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from unittest import mock

OPERATIONS = ("open", "write", "fsync", "replace", "mkdir")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class DiskFault:
    """`error`: ENOSPC, EIO, EACCES … `nth`: the matching operation that fails, counted from 1 over all processes; 0: none, which counts
    only. `lasting`: all later ones fail too. `under`: the folder that counts; `match`: file names that count. `ledger`: a file outside
    it that gets a line an operation, "operation path", failed ones too: they share the count through it. `gate`: the operation does
    not fail but waits until that file is there, so that a command stays at the same point for as long as somebody looks at it.
    """

    under: str
    ledger: str
    error: str = "ENOSPC"
    nth: int = 1
    lasting: bool = True
    operations: tuple[str, ...] = OPERATIONS
    match: str = "*"
    gate: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> DiskFault:
        return cls(**{**document, "operations": tuple(document["operations"])})


def recorded(ledger: Path) -> list[tuple[str, Path]]:
    """(operation, path) in the order of the calls."""
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    return [(operation, Path(path)) for operation, _, path in (line.partition(" ") for line in lines)]


@contextmanager
def faulty_disk(fault: DiskFault) -> Iterator[None]:
    """The fault, in this process, for as long as the block lasts."""
    patches = [mock.patch.object(module, name, function) for module, name, function in _replacements(fault)]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def install(fault: DiskFault) -> None:
    """The fault, in this process, from now on."""
    for module, name, function in _replacements(fault):
        setattr(module, name, function)


class _Disk:
    """Decides which operation fails. Uses the original functions."""

    def __init__(self, fault: DiskFault) -> None:
        self._fault = fault
        self._under = Path(fault.under).absolute()
        self._open, self._write, self._close = os.open, os.write, os.close

    def check(self, operation: str, path: str | bytes | os.PathLike[str] | int) -> None:
        """Raises the fault's OSError when it is the turn of this operation."""
        place = Path(f"/proc/self/fd/{path}").readlink() if isinstance(path, int) else Path(os.fsdecode(path)).absolute()
        fault = self._fault
        inside = place.is_relative_to(self._under)
        if operation not in fault.operations or not inside or not fnmatch(place.name, fault.match):
            return
        number = self._number(f"{operation} {place}\n".encode())
        if fault.nth and (number == fault.nth or (fault.lasting and number > fault.nth)):
            if fault.gate:
                while not Path(fault.gate).exists():
                    time.sleep(0.01)
                return
            code = getattr(errno, fault.error)
            raise OSError(code, os.strerror(code), str(place))

    def _number(self, line: bytes) -> int:
        ledger = self._open(self._fault.ledger, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            fcntl.flock(ledger, fcntl.LOCK_EX)
            self._write(ledger, line)
            return os.pread(ledger, 1 << 26, 0).count(b"\n")
        finally:
            self._close(ledger)


def _replacements(fault: DiskFault) -> list[tuple[Any, str, Callable[..., Any]]]:
    disk = _Disk(fault)
    real_open, real_write, real_io_open = os.open, os.write, io.open

    def open_descriptor(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if flags & _WRITING:
            disk.check("open", path)
        return real_open(path, flags, *args, **options)

    def open_file(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if set(mode) & set("wax+") and not isinstance(file, int):
            disk.check("open", file)
        return real_io_open(file, mode, *args, **options)

    def write(descriptor: int, data: Any) -> int:
        try:
            disk.check("write", descriptor)
        except OSError:
            # As on a real disk: part of the data is written.
            real_write(descriptor, memoryview(data).cast("B")[: len(data) // 2])
            raise
        return real_write(descriptor, data)

    def checked(operation: str, real: Callable[..., Any], which: int) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            disk.check(operation, args[which])
            return real(*args, **options)

        return call

    return [
        (os, "open", open_descriptor),
        (io, "open", open_file),
        (builtins, "open", open_file),
        (os, "write", write),
        (os, "pwrite", checked("write", os.pwrite, 0)),
        (os, "ftruncate", checked("write", os.ftruncate, 0)),
        (os, "fsync", checked("fsync", os.fsync, 0)),
        (os, "replace", checked("replace", os.replace, 1)),
        (os, "rename", checked("replace", os.rename, 1)),
        (os, "mkdir", checked("mkdir", os.mkdir, 0)),
    ]


class SmallDiskUnavailable(Exception):
    """No file system can be mounted here; the message says why."""


@dataclass(frozen=True)
class SmallDisk:
    """A mounted file system of a given size."""

    path: Path

    def resize(self, size_bytes: int) -> None:
        """Change the size, as when a user frees space."""
        _mount("-o", f"remount,size={size_bytes}", str(self.path))


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """A tmpfs of that size, mounted on the folder (which is made). Raises SmallDiskUnavailable unless we are root and may mount."""
    if os.geteuid() != 0:
        raise SmallDiskUnavailable("mounting a small file system needs root")
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder))
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run([_program("umount"), "--lazy", str(folder)], check=True, capture_output=True)


def _mount(*arguments: str) -> None:
    done = subprocess.run([_program("mount"), *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise SmallDiskUnavailable(f"mount: {done.stderr.strip()}")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise SmallDiskUnavailable(f"there is no program {name}")
    return found
