"""The parts-based implicit face model: train it on a dataset of samples, fit it to heads, score and edit them by part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facegraft_model.field import FaceField
    from facegraft_model.fitting.fits import load_fits

__all__ = ["FaceField", "load_fits"]


def __getattr__(name: str) -> Any:
    # Imported on first use, so that reading an id table does not import torch.
    if name == "FaceField":
        from facegraft_model.field import FaceField

        return FaceField
    if name == "load_fits":
        from facegraft_model.fitting.fits import load_fits

        return load_fits
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
