"""The state of a model in a checkpoint besides its tensors, and loading the model from both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from facegraft_model.checkpoints.checkpoint import Checkpoint, load_into
from facegraft_model.config import Config
from facegraft_model.data.ids import IdTable
from facegraft_model.data.topology import Topology
from facegraft_model.errors import ModelError
from facegraft_model.method import TOPOLOGY, TOPOLOGY_TENSORS, Field, TemplateFacts

TEMPLATE_TENSORS = ("template_landmarks", "template_points", "template_parts")

F = TypeVar("F", bound=Field)
Make = Callable[[Config, IdTable, TemplateFacts, float], F]
"""Makes a model, with random weights, from configuration, id table, template and mm per unit."""


def model_state(field: Field, seed: int) -> dict[str, Any]:
    """State of a checkpoint. `field.provenance["data"]` describes the training data (`training.setup.data_facts`)."""
    return {
        "method": field.config.model.method,
        "config": field.config.to_json(),
        "id_table": field.id_table.to_json(),
        "mm_per_unit": field.mm_per_unit,
        "data": field.provenance["data"],
        "seed": seed,
    }


def restored(checkpoint: Checkpoint, maker: Callable[[Config], Make[F]], device: str | torch.device = "cpu") -> F:
    """The model of a checkpoint, in evaluation mode, with `field.provenance`. maker: what makes a model of such a configuration; its
    error for one of another kind is raised with the checkpoint's name.

    Raises CheckpointError for tensors that are not the model's, ModelError for a state of another version or another method.
    """
    state, where = checkpoint.state, checkpoint.path
    if isinstance(table := state.get("id_table"), dict) and "parts" not in table:
        raise ModelError(
            f"{where} names no parts: it was made by an older facegraft with fixed parts; train anew, or use the version that made it"
        )
    missing = [name for name in ("config", "id_table", "mm_per_unit", "data", "seed") if name not in state]
    missing += [name for name in TEMPLATE_TENSORS if name not in checkpoint.tensors]
    if missing:
        raise ModelError(
            f"{where}: {missing[0]} is missing; this is not a checkpoint of a training run, or it is of another version"
        )
    config = Config.from_json(state["config"], f"{where}: config")
    method = config.model.method
    try:
        make = maker(config)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from error
    landmarks, points, parts = (checkpoint.tensors[name] for name in TEMPLATE_TENSORS)
    template = TemplateFacts(landmarks, points, parts, _topology(checkpoint))
    with torch.random.fork_rng(devices=[]):  # the random initial values are overwritten
        field = make(config, IdTable.from_json(state["id_table"]), template, state["mm_per_unit"])
    load_into(field, checkpoint.tensors, where)
    field.provenance = {
        "checkpoint": str(where),
        "step": checkpoint.step,
        "method": method,
        "preset": config.preset,
        "seed": state["seed"],
        "data": state["data"],
    }
    if "published" in state:
        field.provenance["pretrained"] = {"name": state["published"]["name"], "sha256": checkpoint.model_sha256}
    return field.to(device).eval().requires_grad_(False)


def _topology(checkpoint: Checkpoint) -> Topology | None:
    """The template's mesh in a checkpoint; None for one that was trained on samples without it."""
    found = {name: checkpoint.tensors[name] for name in TOPOLOGY_TENSORS if name in checkpoint.tensors}
    if not found:
        return None
    if len(found) < len(TOPOLOGY_TENSORS):
        missing = ", ".join(name for name in TOPOLOGY_TENSORS if name not in found)
        raise ModelError(f"{checkpoint.path}: {missing} is missing; restore the checkpoint, or train anew")
    return Topology(**{name.removeprefix(TOPOLOGY): tensor for name, tensor in found.items()})
