"""Names, sizes and contents of the files that a dataset is made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from facegraft.store.remote import Location, each

_BLOCK = 1 << 20


@dataclass(frozen=True)
class FileHash:
    """A file's size and SHA-256; None for both where it cannot be read (its head will be rejected with the reason)."""

    bytes: int | None
    sha256: str | None


def hash_files(folder: Location, names: Iterable[str]) -> dict[str, FileHash]:
    """Hash each named file of the folder; a file that cannot be read is kept, without a hash."""
    ordered = sorted(set(names))
    return dict(zip(ordered, each(folder, lambda name: _hash(folder / name), ordered), strict=True))


def combined(files: dict[str, FileHash]) -> dict[str, int | str]:
    """How many files, how many bytes, and one SHA-256 over all names, sizes and hashes."""
    listing = json.dumps([[name, f.bytes, f.sha256] for name, f in sorted(files.items())])
    return {
        "files": len(files),
        "bytes": sum(f.bytes or 0 for f in files.values()),
        "sha256": hashlib.sha256(listing.encode()).hexdigest(),
    }


def _hash(path: Location) -> FileHash:
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                size += len(block)
    except OSError:
        return FileHash(None, None)
    return FileHash(size, digest.hexdigest())
