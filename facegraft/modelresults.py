"""The output files of the model's commands: meshes and numbers of an edit, scores and their table, each with its picture.

facegraft_model writes meshes, numbers and scores; facegraft.report draws the pictures. Commands and demo call both from here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facegraft_model.editing.edit import Edit
    from facegraft_model.evaluation.compared import Task
    from facegraft_model.evaluation.comparison import Comparison
    from facegraft_model.evaluation.records import Scores
    from facegraft_model.fitting.fits import Fits

    from facegraft.store import AnyPath

log = logging.getLogger("facegraft")

SHEET_FILE, TABLE_FILE, FITS_PICTURE = "sheet.png", "table.txt", "fits.png"
FIGURE_FILE, CURVES_FILE = "figure.png", "curves.png"


def save_edit(
    output: Path,
    edit: Edit,
    title: str,
    suffix: str = "ply",
    picture: bool = True,
    *,
    limit_mm: float | None = None,
    ends: Sequence[Mapping[str, Any]] = (),
) -> list[str]:
    """Write a mesh of each head, numbers.json and sheet.png; returns the names of the files, for a message.

    limit_mm, ends: see `report.modelsheets.write_edit_sheet`; `true_ends` gives the ends of an interpolation.
    """
    from facegraft_model.editing.files import NUMBERS_FILE, write_edit

    meshes = write_edit(output, edit, suffix)
    written = [f"{len(meshes)} meshes", NUMBERS_FILE]
    if picture:
        draw_edit(output, edit, title, limit_mm=limit_mm, ends=ends)
        written.append(SHEET_FILE)
    return written


def draw_edit(
    output: Path, edit: Edit, title: str, *, limit_mm: float | None = None, ends: Sequence[Mapping[str, Any]] = ()
) -> Path:
    """Write sheet.png of an edit."""
    from facegraft.report.modelsheets import write_edit_sheet

    return write_edit_sheet(
        output / SHEET_FILE, edit.numbers["command"], edit.heads, title, parts=edit.parts, limit_mm=limit_mm, ends=ends
    )


def true_ends(
    fits: Fits,
    keys: Sequence[str],
    samples: AnyPath | None = None,
    surfaces: AnyPath | None = None,
    resolution: int = 256,
) -> tuple[list[dict[str, Any]], str]:
    """True heads beside their fits, in the model's frame, for `save_edit`; and, where there are none, the reason.

    samples: those that were fitted; None: as the fits recorded them, if they and their surfaces are on this machine. Raises the errors
    of `fit_pictures` where samples or surfaces are given.
    """
    from facegraft_model.errors import ModelError
    from facegraft_model.evaluation.evaluate import fit_pictures

    from facegraft.store import RemotePath, StoreError

    given = samples is not None or surfaces is not None
    found = fits.samples if samples is None else samples
    if found is None:
        return [], "these are fits of scans; --samples SAMPLES names a dataset with these heads"
    if samples is None and isinstance(found, RemotePath):
        return [], f"the samples are remote; --samples {found} reads them"
    try:
        return fit_pictures(
            fits, found, keys=keys, resolution=resolution, surfaces=surfaces, in_model=True
        ), ""
    except (ModelError, StoreError) as error:
        if given:
            raise
        return [], str(error)


def save_scores(output: Path, scores: Scores) -> str:
    """Write scores.json, scores.csv and table.txt; returns the table."""
    from facegraft_model.evaluation.disentanglement import disentanglement_table
    from facegraft_model.evaluation.scorefiles import write_scores
    from facegraft_model.evaluation.scoretable import score_table

    from facegraft.store import write_bytes_atomic

    write_scores(output, scores)
    table = score_table([scores]) + disentanglement_table([scores])
    write_bytes_atomic(output / TABLE_FILE, table.encode())
    return table


def draw_fits(
    output: Path, fits: Fits, samples: Path, resolution: int, surfaces: Path | None = None
) -> Path | None:
    """Write fits.png: the first fitted heads next to the true ones; None, and a word about it, where none of them has a surface."""
    from facegraft_model.evaluation.evaluate import fit_pictures

    from facegraft.report.modelsheets import write_fit_sheet

    shown = fit_pictures(fits, samples, resolution=resolution, surfaces=surfaces)
    if not shown:
        log.warning(
            "%s is not drawn: none of the first fitted heads has a surface (their distances are above or below 0 everywhere), as with a "
            "model that was trained too little; the scores count them as failures", output / FITS_PICTURE,
        )  # fmt: skip
        return None
    return write_fit_sheet(output / FITS_PICTURE, shown, f"Held-out heads, preset {fits.field.config.preset}")


def draw_comparison(output: Path, comparison: Comparison, task: Task) -> None:
    """Write figure.png, a few held-out heads by every method, and curves.png, errors over seconds of training.

    Where no head was scored by all methods, or no curve was measured, that picture is not written.
    """
    from facegraft_model.evaluation.comparison import learning_curves, shown_heads

    from facegraft.report.comparisonsheets import write_comparison_sheet, write_curves

    heads = shown_heads(comparison, output, task)
    if heads:
        write_comparison_sheet(output / FIGURE_FILE, heads)
    curves = learning_curves(comparison, output, task)
    if curves:
        write_curves(output / CURVES_FILE, curves)
