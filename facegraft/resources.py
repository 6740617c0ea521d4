"""Find the shipped region maps and recipes: in the wheel, an editable install, or a checkout."""

from __future__ import annotations

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
