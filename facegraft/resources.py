"""Find the shipped region maps and recipes: in the wheel, an editable install, or a checkout."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from facegraft.errors import FacegraftError

_PACKAGE = Path(__file__).resolve().parent
_ROOTS = (_PACKAGE / "_resources", _PACKAGE.parent)


def resource_folder(kind: str) -> Path:
    """The folder `region_maps` or `pipelines` of this installation."""
    for root in _ROOTS:
        if (root / kind).is_dir():
            return root / kind
    raise FacegraftError(
        f"this installation of facegraft lacks its folder {kind!r}; reinstall it (looked in {_ROOTS[0]} and {_ROOTS[1]})"
    )


def resource_path(name: str) -> Path:
    """Path of one shipped file, for example `region_maps/ict.json`; raises FacegraftError naming the available files."""
    kind, _, file = name.partition("/")
    folder = resource_folder(kind)
    path = folder / file
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in folder.iterdir() if p.suffix in (".json", ".yaml")))
        raise FacegraftError(f"there is no {name}; shipped {kind} are: {there}")
    return path


@cache
def installation_sha256() -> str:
    """SHA-256 of this installation's own files, shipped region maps included: it differs wherever facegraft's code does, also within a version."""
    digest = hashlib.sha256()
    for root in (_PACKAGE, resource_folder("region_maps")):
        for path in sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                content = path.read_bytes()
                digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode())
                digest.update(content)
    return digest.hexdigest()
