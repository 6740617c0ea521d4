"""Local copies of remote files, named by the sha256 of their bytes: checked after download and before they are used again.

Any number of processes share the folder. A copy appears by rename; a copy whose bytes have changed is deleted and fetched
again; the least recently used copies are removed when space is needed. The folder can be deleted at any time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from facegraft.store.atomic import (
    final_name,
    is_temporary,
    make_folder,
    remove_leftovers,
    sha256_file,
    temporary_name,
    unwritable,
)
from facegraft.store.errors import DamagedError, StoreError
from facegraft.store.remote import RemotePath

FOLDER_VARIABLE = "FACEGRAFT_CACHE"
SIZE_VARIABLE = "FACEGRAFT_CACHE_GB"
DEFAULT_GB = 50.0
_SHA256 = re.compile(r"[0-9a-f]{64}")
# A copy can disappear between fetching and opening, when another process needs the space.
_FETCHES = 4

T = TypeVar("T")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a dataset in an object store, as the dataset's documents describe it; `remedy`: what to do if it differs."""

    path: RemotePath
    bytes: int
    sha256: str
    remedy: str


@dataclass(frozen=True)
class Cache:
    """A folder with at most `limit_bytes` of copies (a single copy may be larger)."""

    folder: Path
    limit_bytes: int

    def fetch(self, file: RemoteFile, check: bool = True) -> Path:
        """A local copy. Downloads are always checked; `check`: existing copies too.

        Raises DamagedError when the store has other bytes than recorded, StoreError when the store or the folder cannot be used.
        Another process that needs the space may remove the copy at any time: then fetch it again (an open file stays readable).
        """
        if not _SHA256.fullmatch(file.sha256):
            raise DamagedError(f"{file.path} has no sha256 in the record that lists it; {file.remedy}")
        subfolder = self.folder / file.sha256[:2]
        copy = subfolder / file.sha256
        try:
            make_folder(subfolder)
            with _exclusively(subfolder):
                if _is_sound(copy, file, check):
                    os.utime(copy)
                    return copy
                copy.unlink(missing_ok=True)
                self._make_room(file.bytes, copy)
                download(file, copy)
            self._make_room(0, copy)
        except OSError as error:
            hint = f"{FOLDER_VARIABLE} names the folder of the cache, {SIZE_VARIABLE} its size"
            raise StoreError(f"{unwritable(copy, error)} ({hint})") from error
        return copy

    def open(self, file: RemoteFile, opener: Callable[[Path], T], check: bool = True) -> T:
        """Open a local copy with `opener`; it may have to be fetched more than once. Raises the errors of `fetch` and of `opener`."""
        for _ in range(_FETCHES):
            copy = self.fetch(file, check)
            try:
                return opener(copy)
            except FileNotFoundError:
                continue
        raise StoreError(
            f"the copy of {file.path} in {self.folder} is removed again and again; give the cache more room ({SIZE_VARIABLE})"
        )

    def _make_room(self, wanted: int, keep: Path) -> None:
        copies = []
        for path in self.folder.glob("??/*"):
            if is_temporary(path.name):
                remove_leftovers(path.with_name(final_name(path.name)))
            elif _SHA256.fullmatch(path.name) and path != keep:
                try:
                    found = path.lstat()
                except FileNotFoundError:  # removed by another process
                    continue
                copies.append((found.st_mtime, found.st_size, path))
        room = self.limit_bytes - wanted - (keep.stat().st_size if keep.exists() else 0)
        used = sum(size for _, size, _ in copies)
        for _, size, path in sorted(copies):
            if used <= room:
                break
            path.unlink(missing_ok=True)
            used -= size


def default_cache() -> Cache:
    """The cache that the environment names: FACEGRAFT_CACHE (else ~/.cache/facegraft) of FACEGRAFT_CACHE_GB (else 50) times 1e9 bytes."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    text = os.environ.get(SIZE_VARIABLE) or str(DEFAULT_GB)
    try:
        size = float(text)
    except ValueError:
        size = -1.0
    if not 0 < size < 1e9:
        raise StoreError(f"{SIZE_VARIABLE}={text!r} is not a number of gigabytes above 0")
    return Cache(Path(os.environ.get(FOLDER_VARIABLE) or home / "facegraft").absolute(), int(size * 1e9))


def download(file: RemoteFile, target: Path) -> None:
    """Copy a remote file to `target`, which appears with the recorded bytes or not at all. Raises DamagedError, OSError."""
    found = file.path.size()
    if found is None:
        raise StoreError(f"{file.path} is missing; {file.remedy}")
    if found != file.bytes:
        raise DamagedError(f"{file.path} is damaged ({found} bytes where its record says {file.bytes}); {file.remedy}")
    remove_leftovers(target)
    temporary = target.with_name(temporary_name(target.name))
    digest = hashlib.sha256()
    try:
        with temporary.open("xb") as out:
            for piece in _pieces(file):
                digest.update(piece)
                out.write(piece)
        if digest.hexdigest() != file.sha256:
            raise DamagedError(f"{file.path} is damaged (sha256 differs from its record); {file.remedy}")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _pieces(file: RemoteFile) -> Iterator[bytes]:
    try:
        yield from file.path.chunks(file.bytes)
    except FileNotFoundError as error:
        raise StoreError(f"{file.path} is missing; {file.remedy}") from error


def _is_sound(copy: Path, file: RemoteFile, check: bool) -> bool:
    if copy.is_symlink() or not copy.is_file() or copy.stat().st_size != file.bytes:
        return False
    return not check or sha256_file(copy) == file.sha256


@contextmanager
def _exclusively(subfolder: Path) -> Iterator[None]:
    """Hold the lock of a subfolder, so that a file that several processes need is downloaded only once."""
    descriptor = os.open(subfolder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
