"""Models by the name of their method: newly initialised, or loaded from checkpoints."""

from __future__ import annotations

import os
from typing import cast

import torch

from facegraft.seeds import derived_seed
from facegraft_model.checkpoints.checkpoint import Checkpoint
from facegraft_model.checkpoints.modelstate import Make, restored
from facegraft_model.config import Config
from facegraft_model.data.ids import IdTable
from facegraft_model.method import Field, TemplateFacts
from facegraft_model.methods import field_class
from facegraft_model.pretrained.shipped import load_run


def build_field(config: Config, id_table: IdTable, template: TemplateFacts, mm_per_unit: float, seed: int = 0) -> Field:
    """A freshly initialised model; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "model"))
        return _maker(config)(config, id_table, template, mm_per_unit)


def load_field(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Field:
    """The model of a run (its latest checkpoint), of one checkpoint or of a pretrained model's name, in evaluation mode, with
    `field.provenance`.

    Raises CheckpointError for a run that is not there and a damaged checkpoint, ModelError for one of another version.
    """
    return field_of(load_run(path), device)


def field_of(checkpoint: Checkpoint, device: str | torch.device = "cpu") -> Field:
    """The model of a checkpoint that has been read. Raises as `load_field`."""
    return restored(checkpoint, _maker, device)


def _maker(config: Config) -> Make[Field]:
    return cast(Make[Field], field_class(config.model.method, config.model.nets))  # every method takes these four arguments, whatever its base class takes
