"""Models by the name of their method: made anew, and read back from checkpoints."""

from __future__ import annotations

import os

import torch

from facegraft_model.baselines.deepsdf import DeepSDFField
from facegraft_model.baselines.i3dmm import I3DMMField
from facegraft_model.checkpoints.checkpoint import load
from facegraft_model.checkpoints.modelstate import Make, restored
from facegraft_model.config import Config
from facegraft_model.data.ids import IdTable
from facegraft_model.field import FaceField
from facegraft_model.method import Field, TemplateFacts
from facegraft_model.seeds import derived_seed

METHODS: dict[str, Make[Field]] = {
    **dict.fromkeys(FaceField.METHODS, FaceField),
    "deepsdf": DeepSDFField,
    "i3dmm": I3DMMField,
}


def build_field(config: Config, id_table: IdTable, template: TemplateFacts, mm_per_unit: float, seed: int = 0) -> Field:
    """A freshly initialised model; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "model"))
        return METHODS[config.model.method](config, id_table, template, mm_per_unit)


def load_field(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Field:
    """The model of a run (its latest checkpoint) or of one checkpoint, in evaluation mode, with `field.provenance`.

    Raises CheckpointError for a damaged checkpoint, ModelError for one of another version.
    """
    return restored(load(path), METHODS, device)
