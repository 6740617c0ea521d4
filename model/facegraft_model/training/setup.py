"""Set up a run: batches of the samples, and a new model for them."""

from __future__ import annotations

from typing import Any

import torch

from facegraft.store import AnyPath
from facegraft.vocabulary import TRAIN
from facegraft_model.config import DataConfig
from facegraft_model.data.batches import BatchSource
from facegraft_model.errors import ModelError
from facegraft_model.method import TemplateFacts


def open_source(
    samples: AnyPath,
    data: DataConfig,
    device: torch.device,
    *,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
) -> BatchSource:
    """Batches of the training subjects' items by the configuration. Raises DataError where the samples are not sufficient."""
    return BatchSource(
        samples,
        items=data.items,
        surface=data.surface,
        near=data.near,
        free=data.free,
        stage=data.stage,
        seed=seed,
        split=TRAIN,
        origins=None if data.origins == "all" else (data.origins,),
        device=device,
        backend=data.backend,
        rank=rank,
        world=world,
    )


def template_facts(source: BatchSource) -> TemplateFacts:
    """The template at the last stage of a source's items. Raises ModelError where the items have none."""
    if source.stage_template is None or source.landmarks_template is None or source.stage_parts is None:
        raise ModelError(
            f"{source.store.path} holds no template morph, from which the models learn their template; sample surfaces that were "
            "cleaned from composites and heads together (facegraft clean COMPOSITES HEADS -o SURFACES)"
        )
    return TemplateFacts(
        source.landmarks_template.cpu(), source.stage_template.cpu(), source.stage_parts.cpu(), source.template_topology
    )


def data_facts(source: BatchSource) -> dict[str, Any]:
    """The description of the training data in a checkpoint."""
    return {
        "samples": str(source.store.path.resolve()),
        "fingerprint": source.fingerprint,
        "coordinates": source.coordinates,
        "neutral_expression": source.neutral_expression,
    }
