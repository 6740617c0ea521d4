"""Set up a run: batches of the samples, and a new model for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from facegraft.store import AnyPath
from facegraft.vocabulary import SCAN, TRAIN
from facegraft_model.config import DataConfig, windows
from facegraft_model.data.batches import BatchSource, Reserve
from facegraft_model.data.resident import Report
from facegraft_model.errors import ModelError
from facegraft_model.method import Field, RegisteredHeads, TemplateFacts


def open_source(
    samples: AnyPath,
    data: DataConfig,
    device: torch.device,
    *,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
    reserve: Reserve | None = None,
    verify: bool = True,
    report: Report | None = None,
) -> BatchSource:
    """Batches of the training subjects' items by the configuration; the arguments after world: see `BatchSource`. Raises DataError where the samples are not sufficient."""
    return BatchSource(
        samples,
        items=data.items,
        **windows(data),
        stage=data.stage,
        template=data.template,
        seed=seed,
        split=TRAIN,
        origins=None if data.origins == "all" else (data.origins,),
        expressions=data.expressions or None,
        device=device,
        backend=data.backend,
        rank=rank,
        world=world,
        reserve=reserve,
        verify=verify,
        report=report,
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


def registered_heads(source: BatchSource) -> RegisteredHeads:
    """The registered points and landmarks of all scans among a source's items. Raises ModelError where there are none."""
    scans = [i for i, row in enumerate(source.rows) if row["origin"] == SCAN]
    if not scans:
        raise ModelError(
            f"{source.store.path} has no scans to train on, only composites; sample surfaces cleaned from composites and heads together"
        )
    # In the order of the keys, which is that of the shards.
    scans.sort(key=source.keys.__getitem__)

    def read(field: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([source.store.read(source.keys[i], field) for i in scans]))

    return RegisteredHeads(
        stages=read("stage_points"),
        landmarks=read("landmarks"),
        vertices=torch.zeros(0, dtype=torch.int64) if source.stage_vertices is None else source.stage_vertices,
        ids={name: ids[scans].cpu() for name, ids in source.ids.items()},
        neutral=source.ids["is_neutral"][scans].cpu(),
        mm_per_unit=source.mm_per_unit,
    )


def begin(field: Field, source: BatchSource, seed: int) -> None:
    """Let a new model prepare itself from a source's heads (`Field.begin`), if its method does so."""
    if type(field).begin is not Field.begin:
        field.begin(registered_heads(source), source.batch, seed)


def data_facts(source: BatchSource) -> dict[str, Any]:
    """The description of the training data in a checkpoint."""
    return {
        "samples": str(source.store.path.resolve()),
        "fingerprint": source.fingerprint,
        "coordinates": source.coordinates,
        "neutral_expression": source.neutral_expression,
    }
