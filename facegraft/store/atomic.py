"""Files that are complete or absent: temporary name, fsync, rename, fsync of the folder; in an object store, one put.

A file under its final name has always been written completely and flushed to the disk. A killed process leaves files
named `<final name>.tmp-<host>-<pid>-<random>`; readers ignore these names, and the next writer of the same final name
removes those whose writer is dead.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as _serialise

from facegraft.store.errors import StoreError
from facegraft.store.remote import AnyPath, Location, RemotePath, place

TEMPORARY_MARK = ".tmp-"
_FOREIGN_LEFTOVER_SECONDS = 3600.0
_CHUNK = 1 << 22


def canonical_json(obj: Any) -> bytes:
    """The canonical form of a document: UTF-8, keys sorted, indented by one, a newline at the end.

    Numpy scalars become plain numbers. Raises StoreError for NaN or infinity (write null instead) and for
    anything else that JSON cannot hold.
    """
    try:
        return (
            json.dumps(obj, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False, default=_plain) + "\n"
        ).encode()
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"not writable as JSON: {error}; use null for a missing number and plain values elsewhere"
        ) from error


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def sha256_bytes(data: bytes | memoryview) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: AnyPath) -> str:
    """Hex sha256 of a file's bytes. Raises StoreError when it cannot be read."""
    digest = hashlib.sha256()
    where = place(path)
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    try:
        if isinstance(where, RemotePath):
            for piece in where.chunks():
                digest.update(piece)
            return digest.hexdigest()
        with where.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                digest.update(view[:count])
    except OSError as error:
        raise unreadable(path, error) from error
    return digest.hexdigest()


def read_bytes(path: AnyPath) -> bytes:
    """The bytes of a file. Raises StoreError where it cannot be read."""
    try:
        return place(path).read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def write_bytes_atomic(path: AnyPath, data: bytes | memoryview) -> None:
    """Write `data` to `path` completely or not at all; it is on the disk (in the store) before returning.

    Missing folders are created. On any failure the temporary file is removed and the previous content of `path` stays.
    Raises StoreError for a full disk, an input/output error, a missing permission, a store that does not answer.
    """
    final = place(path)
    try:
        if isinstance(final, RemotePath):
            final.put(data)
            return
        make_folder(final.parent)
        remove_leftovers(final)
        temporary = final.with_name(temporary_name(final.name))
        try:
            write_and_sync(temporary, data)
            temporary.replace(final)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(final.parent)
    except OSError as error:
        raise unwritable(final, error) from error


def write_json_atomic(path: AnyPath, obj: Any) -> None:
    """write_bytes_atomic of canonical_json."""
    write_bytes_atomic(path, canonical_json(obj))


def write_arrays_atomic(path: AnyPath, arrays: dict[str, np.ndarray]) -> None:
    """A safetensors file of named arrays, atomically; the same arrays give the same bytes."""
    write_bytes_atomic(path, arrays_to_bytes(arrays))


def arrays_to_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """Named arrays as safetensors bytes, little-endian, without metadata (its order is not fixed). Insertion order does not matter."""
    plain = {
        name: np.asarray(array, array.dtype.newbyteorder("<"), order="C") for name, array in sorted(arrays.items())
    }
    return bytes(_serialise(plain))


def file_size(path: Location) -> int | None:
    """Size of a file in bytes (links are followed); None where there is no such file. Raises StoreError when the disk does not answer."""
    if isinstance(path, RemotePath):
        return path.size()
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError as error:
        raise unreadable(path, error) from error


def make_folder(path: Location) -> None:
    """mkdir -p, with each new entry made durable in its parent. An object store has no folders."""
    if isinstance(path, RemotePath) or path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)


def remove_file_durably(path: AnyPath) -> None:
    """Remove a file if it is there and make the removal durable."""
    final = place(path)
    try:
        final.unlink(missing_ok=True)
        if not isinstance(final, RemotePath):
            sync_folder(final.parent)
    except OSError as error:
        raise StoreError(f"cannot remove {final}: {error.strerror or error}") from error


def remove_leftovers(final: Path) -> None:
    """Remove the temporary files of dead writers of this file.

    A writer on this machine is dead when its process has ended; a writer on another machine counts as dead when its file has
    not changed for an hour (writing takes seconds).
    """
    for leftover in final.parent.glob(f"{_glob_escape(final.name)}{TEMPORARY_MARK}*"):
        if is_dead(leftover.name[len(final.name) + len(TEMPORARY_MARK) :], leftover):
            leftover.unlink(missing_ok=True)


def is_temporary(name: str) -> bool:
    """Whether a file's name is that of a write in progress, or of one that was cut off."""
    return TEMPORARY_MARK in name


def temporary_name(final: str) -> str:
    """A name that no other process uses, and that names the writing process."""
    return f"{final}{TEMPORARY_MARK}{host_name()}-{os.getpid()}-{secrets.token_hex(6)}"


def final_name(temporary: str) -> str:
    """The final name of a temporary file."""
    return temporary.partition(TEMPORARY_MARK)[0]


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder and make renames durable by themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def unwritable(path: Location, error: OSError) -> StoreError:
    """The one line for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(
            f"disk full while writing {path}; free space and run the same command again: finished shards are kept"
        )
    if error.errno == errno.EIO:
        return StoreError(
            f"input/output error while writing {path}; check the disk and run the same command again to go on"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreError(f"no permission to write {path}; choose another output folder or make this one writable")
    return StoreError(f"cannot write {path}: {error.strerror or error}; run the same command again once that is mended")


def unreadable(path: AnyPath, error: OSError) -> StoreError:
    """The one line for a failed read."""
    if error.errno == errno.ENOENT:
        return StoreError(f"{path} is missing; run the command that made the dataset again to rebuild it")
    return StoreError(f"cannot read {path}: {error.strerror or error}")


def write_and_sync(path: Path, data: bytes | memoryview) -> None:
    """Write a new file and flush it to the disk. Raises OSError; an incomplete file then stays."""
    # O_EXCL: two attempts can never share a temporary file; 0o666 leaves the permissions to the umask.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        view = memoryview(data).cast("B")
        while view:
            # One write call may be partial (2 GiB limit, signals), so continue from where it stopped.
            view = view[os.write(descriptor, view[:_CHUNK]) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def host_name() -> str:
    """This machine's name, of letters and digits alone: the first part of what comes after TEMPORARY_MARK."""
    return re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:40] or "host"


def is_dead(token: str, leftover: Path) -> bool:
    """Whether the writer of a temporary file has ended or, on another machine, has not changed the file for an hour.

    token: what comes after TEMPORARY_MARK in the file's name, `<host>-<pid>-<random>`.
    """
    host, _, rest = token.partition("-")
    pid = rest.partition("-")[0]
    if host == host_name() and pid.isdigit():
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False
    try:
        return time.time() - leftover.stat().st_mtime > _FOREIGN_LEFTOVER_SECONDS
    except FileNotFoundError:
        return False


def _glob_escape(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)
