"""Synthetic heads as files that somebody else might have: a folder for each subject, a mesh for each expression."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facegraft.engine import EngineOptions
from facegraft.meshfiles.write import write_mesh
from facegraft.pipeline import ingest
from facegraft.store import open_dataset

Points = NDArray[np.float64]


def write_heads(root: Path, subjects: int, expressions: int) -> tuple[Path, dict[str, Points], NDArray[np.int64]]:
    """The folder ROOT/raw, the vertices [V, 3] of its files by name, and their faces [F, 3]."""
    options = EngineOptions(scheduler="sync", progress=False)
    ingest(None, root / "heads", {"kind": "synthetic", "subjects": subjects, "expressions": expressions}, options=options)
    heads = open_dataset(root / "heads")
    faces, found = np.asarray(heads.faces, dtype=np.int64), {}
    for row in heads.index.to_pylist():
        name = f"{row['subject']}/{row['expression']}.ply"
        found[name] = heads[row["key"]]["vertices"].astype(np.float64)
        (root / "raw" / row["subject"]).mkdir(parents=True, exist_ok=True)
        write_mesh(root / "raw" / name, found[name], faces)
    return root / "raw", found, faces
