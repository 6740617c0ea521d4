"""Find a run: a folder, or the name of a model that ships with the package.

A pretrained model is a folder beside this module: `model.safetensors` and `state.json`, a checkpoint without its optimiser
(`facegraft model publish` writes it), and `README.md`, its card.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from facegraft_model.checkpoints.checkpoint import STATE_FILE, Checkpoint, load
from facegraft_model.checkpoints.tensor_file import CheckpointError

SEARCHED: tuple[Path, ...] = (Path(__file__).parent,)
"""Folders that hold pretrained models; the first one that has a name is taken."""

Run = str | os.PathLike[str]


def names(searched: Sequence[Path] | None = None) -> tuple[str, ...]:
    """The names of all pretrained models, sorted. searched: folders to look in, by default `SEARCHED`."""
    folders = SEARCHED if searched is None else searched
    return tuple(sorted({state.parent.name for folder in folders for state in folder.glob(f"*/{STATE_FILE}")}))


def shipped(name: str, searched: Sequence[Path] | None = None) -> Path:
    """The folder of a pretrained model. Raises CheckpointError for an unknown name."""
    for folder in SEARCHED if searched is None else searched:
        if name in names([folder]):
            return folder / name
    raise CheckpointError(f"no pretrained model {name!r}; {_listed(searched)}")


def name_of(folder: Path, searched: Sequence[Path] | None = None) -> str | None:
    """The name by which a folder is found as a pretrained model; None for any other folder."""
    there = {name: shipped(name, searched).resolve() for name in names(searched)}
    return next((name for name, path in there.items() if path == folder.resolve()), None)


def find_run(run: Run, searched: Sequence[Path] | None = None) -> Path:
    """The folder of a run or checkpoint, or of a pretrained model by its name; a folder that exists comes before a name.

    Raises CheckpointError where there is neither.
    """
    path, name = Path(run), os.fspath(run)
    if path.is_dir():
        return path
    if name in names(searched):
        return shipped(name, searched)
    if path.exists():
        return path  # not a folder, which reading it says better
    raise CheckpointError(f"no run {name}: there is no such folder; {_listed(searched)}")


def load_run(run: Run, searched: Sequence[Path] | None = None) -> Checkpoint:
    """The checkpoint of a run (its latest), of a checkpoint's folder or of a pretrained model's name. Raises CheckpointError."""
    return load(find_run(run, searched))


def _listed(searched: Sequence[Path] | None) -> str:
    known = names(searched)
    return f"pretrained models are {', '.join(known)}" if known else "this installation has no pretrained models"
