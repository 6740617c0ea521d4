"""Names, sizes and contents of the files that a dataset is made from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from facegraft.store.remote import Location, each

_BLOCK = 1 << 20
_MOST_NAMES = 500_000


@dataclass(frozen=True)
class FileHash:
    """A file's size and SHA-256; None for both where it cannot be read (its head will be rejected with the reason)."""

    bytes: int | None
    sha256: str | None


def hash_files(folder: Location, names: Iterable[str]) -> dict[str, FileHash]:
    """Hash each named file of the folder; a file that cannot be read is kept, without a hash."""
    ordered = sorted(set(names))
    return dict(zip(ordered, each(folder, lambda name: hash_file(folder / name), ordered), strict=True))


def combined(files: Mapping[str, FileHash]) -> dict[str, int | str]:
    """How many files, how many bytes, and one SHA-256 over all names, sizes and hashes."""
    listing = json.dumps([[name, f.bytes, f.sha256] for name, f in sorted(files.items())])
    return {
        "files": len(files),
        "bytes": sum(f.bytes or 0 for f in files.values()),
        "sha256": hashlib.sha256(listing.encode()).hexdigest(),
    }


def hash_file(path: Location) -> FileHash:
    """Hash one file."""
    digest, size = hashlib.sha256(), 0
    try:
        if isinstance(path, Path) and path.exists() and not path.is_file():  # a pipe or a device may never end
            return FileHash(None, None)
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                size += len(block)
    except OSError:
        return FileHash(None, None)
    return FileHash(size, digest.hexdigest())


def hash_names(folder: Path) -> str | None:
    """SHA-256 of the names in a folder and in all folders in it, links followed; None where there are too many to look at, or where
    a folder cannot be listed."""
    digest = hashlib.sha256()
    try:
        for count, (name, is_folder) in enumerate(_names(str(folder), "", ())):
            if count == _MOST_NAMES:
                return None
            digest.update(f"{name}{'/' if is_folder else ''}\0".encode(errors="surrogateescape"))
    except OSError:
        return None
    return digest.hexdigest()


def _names(folder: str, within: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, bool]]:
    status = Path(folder).stat()
    here = (status.st_dev, status.st_ino)
    if here in above:  # a link to a folder that it is in
        return
    with os.scandir(folder) as entries:
        found = sorted((entry.name, entry.is_dir()) for entry in entries)
    for name, is_folder in found:
        yield within + name, is_folder
        if is_folder:
            yield from _names(f"{folder}/{name}", f"{within}{name}/", (*above, here))
