"""Fields by configuration: made anew, written to checkpoints, and read back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from facegraft_model.config import Config
from facegraft_model.data.ids import IdTable
from facegraft_model.errors import ModelError
from facegraft_model.method import Field, TemplateFacts
from facegraft_model.seeds import derived_seed
from facegraft_model.training.checkpoint import Checkpoint, load, load_into

TEMPLATE_TENSORS = ("template_landmarks", "template_points", "template_parts")


def build_field(config: Config, id_table: IdTable, template: TemplateFacts, mm_per_unit: float, seed: int = 0) -> Field:
    """A freshly initialised model; the same seed gives the same weights."""
    from facegraft_model.field import FaceField

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "model"))
        if config.model.method in ("parts", "imface"):
            return FaceField(config, id_table, template, mm_per_unit)
        from facegraft_model.baselines.deepsdf import DeepSDFField
        from facegraft_model.baselines.i3dmm import I3DMMField

        kind = {"deepsdf": DeepSDFField, "i3dmm": I3DMMField}[config.model.method]
        return kind(config, id_table, template, mm_per_unit)


def checkpoint_state(field: Field, data: dict[str, Any], seed: int) -> dict[str, Any]:
    """What a checkpoint says beside its tensors. data: coordinates, fingerprint, path and neutral expression of the training data."""
    return {
        "method": field.config.model.method,
        "config": field.config.to_json(),
        "id_table": field.id_table.to_json(),
        "mm_per_unit": field.mm_per_unit,
        "data": data,
        "seed": seed,
    }


def load_field(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Field:
    """The model of a run (its latest checkpoint) or of one checkpoint, in evaluation mode, with `field.provenance`.

    Raises CheckpointError for a damaged checkpoint, ModelError for one of another version.
    """
    return field_of(load(path), device)


def field_of(checkpoint: Checkpoint, device: str | torch.device = "cpu") -> Field:
    """The model of a checkpoint that has been read."""
    state, where = checkpoint.state, checkpoint.path
    missing = [name for name in ("config", "id_table", "mm_per_unit", "data", "seed") if name not in state]
    missing += [name for name in TEMPLATE_TENSORS if name not in checkpoint.tensors]
    if missing:
        raise ModelError(
            f"{where}: {missing[0]} is missing; this is no checkpoint of a training run, or one of another version"
        )
    config = Config.from_json(state["config"], f"{where}: config")
    id_table = IdTable.from_json(state["id_table"])
    template = TemplateFacts(*(checkpoint.tensors[name] for name in TEMPLATE_TENSORS))
    field = build_field(config, id_table, template, state["mm_per_unit"])
    load_into(field, checkpoint.tensors, Path(where))
    field.provenance = {
        "checkpoint": str(where),
        "step": checkpoint.step,
        "method": config.model.method,
        "preset": config.preset,
        "seed": state["seed"],
        "data": state["data"],
    }
    return field.to(device).eval().requires_grad_(False)
