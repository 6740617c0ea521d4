"""Fitted codes on disk: FITS/fits.json and FITS/codes.safetensors, written together."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as deserialise
from torch import Tensor

from facegraft.parts import Parts
from facegraft.store import Location, place, write_arrays_atomic, write_json_atomic
from facegraft.vocabulary import COMPOSITE, EXP
from facegraft_model.checkpoints.checkpoint import identity, is_checkpoint, named
from facegraft_model.errors import ModelError
from facegraft_model.method import Field
from facegraft_model.models import load_field
from facegraft_model.pretrained.shipped import name_of, shipped

FITS_FILE, CODES_FILE = "fits.json", "codes.safetensors"
FORMAT = "facegraft fits"


def item_columns(parts: Parts) -> tuple[str, ...]:
    """Columns that are kept of an item's index row."""
    return ("key", "subject", "expression", "split", *parts.head_columns, "origin")


@dataclass(frozen=True)
class Fits:
    """Fitted heads and the model that their codes belong to.

    items: rows of the index (key, subject, expression, …) with error_mm, and for scans from files what is known of them ("scan"); codes: [I,dim] by name; alignment f64 [I,4,4]: from the
    input's coordinates to the model's unit coordinates.
    """

    path: Path
    field: Field
    items: list[dict[str, Any]]
    codes: dict[str, Tensor]
    alignment: Tensor
    settings: dict[str, Any]
    run: Path
    samples: Location | None

    def __len__(self) -> int:
        return len(self.items)

    def codes_of(self, index: int) -> dict[str, Tensor]:
        """Codes of one head, each [1,dim]; a composite has no expression code."""
        neutral = self.items[index]["origin"] == COMPOSITE
        return {name: code[index : index + 1] for name, code in self.codes.items() if not (name == EXP and neutral)}

    def index(self, key: str) -> int:
        """Index of an item. Raises ModelError for a key that was not fitted."""
        keys = [item["key"] for item in self.items]
        if key not in keys:
            raise ModelError(
                f"{self.path} has no fit of {key!r}; it has {', '.join(keys[:8])}{' …' if len(keys) > 8 else ''}"
            )
        return keys.index(key)


def save_fits(
    path: Path,
    field: Field,
    run: Path,
    items: Sequence[Mapping[str, Any]],
    codes: Mapping[str, Tensor],
    errors_mm: Tensor,
    settings: Mapping[str, Any],
    *,
    samples: Location | None = None,
    alignment: Tensor | None = None,
) -> None:
    """Write a folder of fits. Raises ModelError when the folder exists with contents other than fits."""
    if path.exists() and any(path.iterdir()) and not (path / FITS_FILE).exists():
        raise ModelError(f"{path} is not empty and holds no fits; choose another folder")
    path.mkdir(parents=True, exist_ok=True)
    (path / FITS_FILE).unlink(missing_ok=True)
    alignment = torch.eye(4, dtype=torch.float64).repeat(len(items), 1, 1) if alignment is None else alignment
    arrays = {f"codes.{name}": code.cpu().numpy() for name, code in codes.items()} | {"alignment": alignment.numpy()}
    write_arrays_atomic(path / CODES_FILE, arrays)
    checkpoint = Path(field.provenance["checkpoint"])
    name = name_of(checkpoint)
    rows = [
        {name: item.get(name) for name in item_columns(field.parts)}
        | {"error_mm": round(float(error), 5)}
        | ({"scan": item["scan"]} if "scan" in item else {})
        for item, error in zip(items, errors_mm, strict=True)
    ]
    document = {
        "format": FORMAT,
        "version": 1,
        "pretrained": name,  # found by this name on any machine that has the model
        "run": str(run.resolve()) if name is None else name,
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": identity(checkpoint),
        "model": field.provenance,
        "mm_per_unit": field.mm_per_unit,
        "samples": None if samples is None else str(samples.resolve()),
        "settings": dict(settings),
        "codes_sha256": hashlib.sha256((path / CODES_FILE).read_bytes()).hexdigest(),
        "items": rows,
    }
    write_json_atomic(path / FITS_FILE, document)


def load_fits(
    path: str | os.PathLike[str], device: str | torch.device = "cpu", run: str | os.PathLike[str] | None = None
) -> Fits:
    """Read fits and the exact checkpoint they were made with. run: the run's present folder, if it was moved.
    Fits of a pretrained model find it by its name.

    Raises ModelError for a folder without fits, changed files, or a run whose checkpoint is missing.
    """
    path = Path(path)
    try:
        document = json.loads((path / FITS_FILE).read_bytes())
        data = (path / CODES_FILE).read_bytes()
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} holds no fits: {error}; make them with facegraft model fit RUN SAMPLES -o {path}"
        ) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ModelError(f"{path / FITS_FILE} is not a file of fits")
    if hashlib.sha256(data).hexdigest() != document["codes_sha256"]:
        raise ModelError(f"{path / CODES_FILE} was changed or damaged; fit again")
    name = document.get("pretrained") if run is None else None
    folder = Path(run or document["run"]) if name is None else shipped(name)
    checkpoint = folder if is_checkpoint(folder) else named(folder, document["checkpoint"])
    found = identity(checkpoint)
    if found is None:
        raise ModelError(
            f"{path} was made with checkpoint {checkpoint}, which is missing; name the run's folder with --run, or fit again with the latest checkpoint"
        )
    if found != document["checkpoint_sha256"] and name is not None:
        raise ModelError(
            f"{path} was made with another version of the pretrained model {name} than this installation has; fit again, or install that version"
        )
    if found != document["checkpoint_sha256"]:
        raise ModelError(f"{checkpoint} is not the checkpoint that {path} was made with; fit again")
    field = load_field(checkpoint, device)
    try:
        tensors = deserialise(data)
    except SafetensorError as error:
        raise ModelError(f"{path / CODES_FILE} cannot be read: {error}; fit again") from error
    codes = {
        name.removeprefix("codes."): tensor.to(device) for name, tensor in tensors.items() if name.startswith("codes.")
    }
    samples = None if document["samples"] is None else place(document["samples"])
    return Fits(path, field, document["items"], codes, tensors["alignment"], document["settings"], folder, samples)
