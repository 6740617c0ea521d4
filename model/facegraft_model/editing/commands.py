"""Edits of heads given by their keys in a folder of fits, or of a run without fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from facegraft.vocabulary import SCAN
from facegraft_model.devices import choose_device
from facegraft_model.editing.edit import DecodeSettings, Edit, interpolate_heads, swap_heads
from facegraft_model.editing.partcodes import Head
from facegraft_model.errors import ModelError
from facegraft_model.fitting.fits import FITS_FILE, Fits, load_fits
from facegraft_model.method import Field
from facegraft_model.models import load_field

FIGURE_HEADS = 3
"""Heads of a figure of random parts, where none is named."""


def fitted_head(fits: Fits, key: str) -> Head:
    """A head by its key. Raises ModelError for one that was not fitted."""
    return Head(key, fits.codes_of(fits.index(key)))


def first_neutral_heads(fits: Fits, count: int = FIGURE_HEADS) -> list[Head]:
    """The first fitted neutral scans, at most `count`. Raises ModelError where there is none."""
    neutral = str(fits.field.provenance["data"]["neutral_expression"])
    keys = [str(item["key"]) for item in fits.items if item["origin"] == SCAN and item["expression"] == neutral]
    if not keys:
        raise ModelError(f"{fits.path} has no fit of a neutral scan; name heads with --base KEY")
    return [fitted_head(fits, key) for key in keys[:count]]


def swap_fitted(fits: Fits, host: str, donors: Mapping[str, str], settings: DecodeSettings | None = None) -> Edit:
    """`swap_heads` by keys: the host's, and the donor's for each part."""
    heads = {part: fitted_head(fits, key) for part, key in donors.items()}
    return swap_heads(fits.field, fitted_head(fits, host), heads, settings)


def interpolate_fitted(
    fits: Fits,
    start: str,
    end: str,
    order: Sequence[str] | None = None,
    steps: int = 4,
    settings: DecodeSettings | None = None,
) -> Edit:
    """`interpolate_heads` by keys."""
    return interpolate_heads(fits.field, fitted_head(fits, start), fitted_head(fits, end), order, steps, settings)


def field_and_base(folder: Path, base: str | None = None, device: str = "auto") -> tuple[Field, Head | None]:
    """The model of a run or of fits, and the fitted head that keeps its other parts. Raises ModelError for a base without fits."""
    if (folder / FITS_FILE).exists():
        fits = load_fits(folder, choose_device(device))
        return fits.field, None if base is None else fitted_head(fits, base)
    if base is not None:
        raise ModelError(
            f"--base {base} names a fitted head, but {folder} is a training run; give the folder of the fits"
        )
    return load_field(folder, choose_device(device)), None
