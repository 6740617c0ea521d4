"""Folders in object stores: the part of pathlib's API that facegraft uses, over fsspec.

Whether an object exists is checked by requesting its name (HEAD, GET), never from a listing: listings may lag. An object is put
in one request, which the store executes completely or not at all, so there are no temporary names and no renames; the stored
bytes are then compared with those that were sent.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from facegraft.errors import name_fault, shown_name
from facegraft.store.errors import RemoteError, StoreError

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
# A URL after it was converted by pathlib.
_FLATTENED = re.compile(r"/?(?:.*/)?(s3a?|gs|gcs|abfss?|az|https?|memory|file|hdfs|sftp):/[^/]")
# Stores without real folders, where names need no parents and where a listing would otherwise be remembered.
_FLAT = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "memory"}
_PART = 50 << 20
_CHUNK = 16 << 20
_AT_ONCE = 16

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class RemoteStat:
    """Bytes, and the time of writing in seconds since 1970 by the store's clock (0 where the store does not say)."""

    st_size: int
    st_mtime: float


class RemotePath:
    """A name in an object store. Immutable, comparable and pickled by its URL; every request is made anew, so it may cross a fork.

    Raises FileNotFoundError where the name is missing, FileExistsError from `create`, and RemoteError for everything else (no
    connection, wrong credentials, no permission), which says nothing about the object.
    """

    __slots__ = ("_folder", "url")

    def __init__(self, url: str, folder: bool | None = None) -> None:
        self.url = url
        # The kind of object, if the name was found by a listing.
        self._folder = folder

    # -- names --------------------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"RemotePath({self.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return RemotePath, (self.url, self._folder)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and self.url == other.url

    def __lt__(self, other: RemotePath) -> bool:
        return self.url < other.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __truediv__(self, name: str) -> Location:
        if name.startswith("/") or _URL.fullmatch(name):
            return place(name)
        return RemotePath(f"{self.url}/{name}")

    @property
    def protocol(self) -> str:
        return self.url.partition("://")[0]

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> RemotePath:
        before = self.url.rpartition("/")[0]
        return self if before.endswith(":/") else RemotePath(before)

    def with_name(self, name: str) -> RemotePath:
        return RemotePath(f"{self.parent.url}/{name}")

    def absolute(self) -> RemotePath:
        return self

    def resolve(self) -> RemotePath:
        return self

    def is_symlink(self) -> bool:
        return False

    def is_relative_to(self, other: object) -> bool:
        return str(self) == str(other) or self.url.startswith(f"{other}/")

    def relative_to(self, other: object) -> PurePosixPath:
        if not self.is_relative_to(other):
            raise ValueError(f"{self} is not in {other}")
        return PurePosixPath(self.url.removeprefix(str(other)).lstrip("/"))

    # -- queries ------------------------------------------------------------------------------------------------------

    def size(self) -> int | None:
        """Size in bytes of the object of this name; None where there is no object."""
        found = self._info()
        return None if found is None or found["type"] != "file" else int(found["size"])

    def stat(self) -> RemoteStat:
        found = self._info()
        if found is None or found["type"] != "file":
            raise FileNotFoundError(errno.ENOENT, "no such object", self.url)
        when: Any = found.get("LastModified") or found.get("mtime") or found.get("created")
        return RemoteStat(int(found["size"]), when.timestamp() if hasattr(when, "timestamp") else float(when or 0))

    def is_file(self) -> bool:
        return not self._folder if self._folder is not None else self.size() is not None

    def is_dir(self) -> bool:
        """Whether there are names below this one. This needs a listing, which may lag, so use it only where an error does no harm."""
        if self._folder is not None:
            return self._folder
        found = self._info()
        return found is not None and found["type"] == "directory"

    def exists(self) -> bool:
        return self._info() is not None

    def iterdir(self) -> Iterator[RemotePath]:
        """The names in a listing, which may lag behind the store."""
        with _asking(self.url):
            fs, path = self._open()
            try:
                entries = fs.ls(path, detail=True)
            except FileNotFoundError:
                if self.protocol not in _FLAT:
                    raise
                entries = []  # a folder without names is no folder there
        for entry in entries:
            name = str(entry["name"]).rstrip("/").rpartition("/")[2]
            if str(entry["name"]).strip("/") != path.strip("/"):
                yield RemotePath(f"{self.url}/{name}", folder=entry["type"] == "directory")

    # -- reading ------------------------------------------------------------------------------------------------------

    def read_bytes(self) -> bytes:
        with _asking(self.url):
            fs, path = self._open()
            # Otherwise s3fs requests the size first, to read large objects in parallel pieces.
            return bytes(fs.cat_file(path, **({"max_concurrency": 1} if self.protocol in ("s3", "s3a") else {})))

    def read_range(self, start: int, stop: int) -> bytes:
        """Bytes start to stop (fewer at the end of the object)."""
        with _asking(self.url):
            fs, path = self._open()
            return bytes(fs.cat_file(path, start=start, end=stop))

    def read_text(self) -> str:
        return self.read_bytes().decode()

    def open(self, mode: str = "rb") -> io.BytesIO:
        """The object's bytes, as a file to read."""
        if mode != "rb":
            raise ValueError(f"{self} is opened for reading bytes only, not {mode!r}")
        return io.BytesIO(self.read_bytes())

    def chunks(self, size: int | None = None) -> Iterator[bytes]:
        """The object piece by piece, so that large ones need little memory. `size`: in bytes, if known."""
        total = self.stat().st_size if size is None else size
        for start in range(0, total, _CHUNK):
            yield self.read_range(start, min(start + _CHUNK, total))

    # -- writing ------------------------------------------------------------------------------------------------------

    def put(self, data: bytes | memoryview) -> None:
        """Put the object in one request, and check the stored bytes: by the store's MD5 if it gives one, else by reading them back.

        Raises RemoteError when it differs.
        """
        content = bytes(data)
        with _asking(self.url):
            fs, path = self._open()
            if self.protocol not in _FLAT:
                fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            fs.pipe_file(path, content, **({"chunksize": _PART} if self.protocol in ("s3", "s3a") else {}))
            try:
                found = fs.info(path)
            except FileNotFoundError:
                found = None
        if found is None:
            raise self._other("it is gone again")
        if found["size"] != len(content):
            raise self._other(f"{found['size']} bytes arrived of {len(content)}")
        if str(found.get("ETag", "")).strip('"') == _etag(content):
            return
        digest = hashlib.sha256()
        for piece in self.chunks(len(content)):
            digest.update(piece)
        if digest.digest() != hashlib.sha256(content).digest():
            raise self._other("its sha256 is another one")

    def create(self, data: bytes) -> None:
        """Put the object unless the name is taken: FileExistsError. Of those who try at once, one succeeds."""
        with _asking(self.url):
            fs, path = self._open()
            if self.protocol not in _FLAT:
                fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            fs.pipe_file(path, data, mode="create")

    def unlink(self, missing_ok: bool = False) -> None:
        with _asking(self.url):
            fs, path = self._open()
            try:
                fs.rm_file(path)
            except FileNotFoundError:
                if not missing_ok:
                    raise

    # -- the store ----------------------------------------------------------------------------------------------------

    def check_protocol(self) -> None:
        """The file system for the protocol. Raises StoreError where no installed package supports it."""
        try:
            fsspec = importlib.import_module("fsspec")
        except ModuleNotFoundError as error:
            raise StoreError(f"{self} needs the package fsspec: pip install 'facegraft[remote]'") from error
        try:
            fsspec.get_filesystem_class(self.protocol)
        except ValueError as error:
            raise StoreError(
                f"{self}: protocol {self.protocol!r} is unknown; use s3://, gs://, abfs:// or another that fsspec knows"
            ) from error
        except ImportError as error:
            raise StoreError(
                f"{self}: {error}; for s3:// that is pip install 'facegraft[remote]', for gs:// gcsfs, for abfs:// adlfs"
            ) from error

    def _open(self) -> tuple[Any, str]:
        fs = _filesystem("/".join(self.url.split("/")[:3]), os.getpid())
        return fs, str(fs._strip_protocol(self.url))

    def _info(self) -> dict[str, Any] | None:
        with _asking(self.url):
            fs, path = self._open()
            try:
                found: dict[str, Any] = fs.info(path)
            except FileNotFoundError:
                return None
        return found

    def _other(self, how: str) -> RemoteError:
        return RemoteError(f"{self} is not what was sent ({how}); run the same command again to go on")


Location = Path | RemotePath
"""A folder or file on disk or in an object store: code for both uses only the part of pathlib's API that RemotePath has too."""

AnyPath = str | os.PathLike[str] | RemotePath
"""A path or URL as given by users; `place` converts it to a Location."""


def place(path: AnyPath) -> Location:
    """The location that a text or path names: a URL such as s3://bucket/folder gives a RemotePath, anything else (file:// too) a plain Path.

    In a text, ~/ at the start is the user's home, as in a shell, which leaves `--output=~/x` as it is. Raises StoreError for a protocol
    that is unknown or whose package is missing.
    """
    if isinstance(path, RemotePath):
        return path
    text = in_home(path) if isinstance(path, str) else os.fspath(path)
    url = _URL.fullmatch(text)
    if url is None:
        flattened = _FLATTENED.match(text)
        if flattened is not None:
            raise StoreError(f"{text} was a URL once: give it as text ('{flattened[1]}://…'), not as a Path")
        return Path(text)
    protocol, rest = url[1].lower(), url[2].strip("/")
    if protocol == "file":
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise StoreError(f"{text} names host {parts.netloc!r}; a local folder is file:///path")
        return Path(unquote(parts.path))
    if not rest:
        raise StoreError(f"{text} names no folder; give {protocol}://bucket/folder")
    if {".", "..", ""} & set(rest.split("/")):
        raise StoreError(f"{text}: a URL must not hold '.', '..' or '//' as names of folders")
    remote = RemotePath(f"{protocol}://{rest}")
    remote.check_protocol()
    return remote


def recordable(path: Location) -> Location:
    """The path, if a record can name it. Raises StoreError where its full name is not a line of UTF-8 text, and where it starts in a
    working folder that is gone."""
    if isinstance(path, RemotePath):
        return path
    try:
        full = str(path.absolute())
    except FileNotFoundError:
        raise StoreError(f"{shown_name(str(path))}: the working folder no longer exists; change to one that does") from None
    if fault := name_fault(full):
        raise StoreError(f"{shown_name(full)}: the name of this path {fault}, so that no record could name it; rename that file or folder, or use another")
    return path


def in_home(text: str) -> str:
    """The text of a path, with the user's home in place of ~ in `~` and `~/…`; a file called ~ is `./~`."""
    return str(Path(text).expanduser()) if text == "~" or text.startswith("~/") else text


def relative_name(path: Location, root: Location) -> str:
    """The name of a path below a folder, with slashes. Raises ValueError where it does not lie there."""
    if isinstance(path, RemotePath):
        return path.relative_to(root).as_posix()
    if isinstance(root, RemotePath):
        raise ValueError(f"{path} is not in {root}")
    return path.relative_to(root).as_posix()


def each(folder: Location, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Results of a function for every item, in order; for an object store several run at once, since each waits for an answer."""
    if not isinstance(folder, RemotePath):
        return [function(item) for item in items]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(function, items))


def each_in_turn(folder: Location, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """The same one after the other, so that few results are in memory."""
    step = _AT_ONCE if isinstance(folder, RemotePath) else 1
    for first in range(0, len(items), step):
        yield from each(folder, function, items[first : first + step])


@lru_cache(maxsize=64)
def _filesystem(root: str, _process: int) -> Any:
    """The client for protocol://bucket, one per process (fsspec would make one per thread; clients must not be used after a fork)."""
    protocol = root.partition("://")[0]
    options = {"use_listings_cache": False} if protocol in _FLAT else {}
    return importlib.import_module("fsspec.core").url_to_fs(root, **options)[0]


@contextmanager
def _asking(url: str) -> Iterator[None]:
    """Passes on errors about the name, and turns errors of the connection into one line."""
    try:
        yield
    except FileNotFoundError as error:
        # With the errno of the system: not every store's library sets it.
        raise FileNotFoundError(errno.ENOENT, _one_line(error), url) from error
    except (FileExistsError, MemoryError, StoreError):
        raise
    except PermissionError as error:
        raise RemoteError(
            f"the store refuses access to {url} ({_one_line(error)}); check the credentials (AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY or AWS_PROFILE for s3://) and what they may do"
        ) from error
    except Exception as error:
        # Every store's library has its own errors; the remaining ones are about the connection, not the object.
        hint = "give credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE)"
        if "Credential" not in type(error).__name__:
            hint = (
                "check the address (AWS_ENDPOINT_URL for a store that is not Amazon's), the network and the credentials"
            )
        raise RemoteError(
            f"{url} cannot be reached ({type(error).__name__}: {_one_line(error)}); {hint}, then run the same command again"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _etag(data: bytes) -> str:
    """S3's ETag of a plain object: its MD5, or that of the MD5s of its parts. Encrypted objects may have another."""

    def md5(piece: bytes | memoryview) -> bytes:
        return hashlib.md5(piece, usedforsecurity=False).digest()

    if len(data) < 2 * _PART:
        return md5(data).hex()
    parts = [md5(memoryview(data)[start : start + _PART]) for start in range(0, len(data), _PART)]
    return f"{md5(b''.join(parts)).hex()}-{len(parts)}"
