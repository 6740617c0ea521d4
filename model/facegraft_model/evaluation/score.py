"""Scores of reconstructions against the true surfaces, by part: what `facegraft model evaluate` computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from facegraft.arrays import Floats
from facegraft.surfaces.errors import SurfaceError
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.bootstrap import CONFIDENCE
from facegraft_model.evaluation.records import Failure, HeadScores, Reconstruction, Scores, ScoreSettings
from facegraft_model.evaluation.scorehead import score_head
from facegraft_model.evaluation.truth import TrueHead, Truth

if TYPE_CHECKING:
    from facegraft_model.method import Codes, Field


def evaluate(
    decoded: Iterable[Reconstruction | Failure | tuple[Any, ...]],
    truth: Truth,
    settings: ScoreSettings,
    *,
    method: str,
    landmarks: str,
    resolution: int | None,
    training_seed: int | None,
    record: Mapping[str, Any] | None = None,
    disentanglement: Any = None,
    on_head: Callable[[HeadScores | Failure], None] | None = None,
) -> Scores:
    """Score reconstructions, one after the other as they are decoded.

    decoded: Reconstructions, tuples (item, vertices in mm, faces), or Failures where nothing could be decoded. landmarks: the
    landmarks that the fits used ("none"). resolution: of the grid from which the meshes were extracted, None for other meshes.
    training_seed: of the model, None where nothing was trained. record: further information to store with the result.
    A mesh that is empty, not finite, or lacks a part becomes a Failure, which is counted and reported.
    Raises ModelError for no items, a repeated item, or a truth that lacks a part.
    """
    heads: list[HeadScores] = []
    failures: list[Failure] = []
    seen: set[str] = set()
    for entry in decoded:
        key = entry.key if isinstance(entry, Failure) else str(entry[0]["key"])
        if key in seen:
            raise ModelError(f"item {key} of {method} is given twice; each head is scored once")
        seen.add(key)
        result = (
            entry if isinstance(entry, Failure) else _score_or_fail(truth.head(key), Reconstruction(*entry), settings)
        )
        if isinstance(result, Failure):
            failures.append(result)
        else:
            heads.append(result)
        if on_head is not None:
            on_head(result)
    if not seen:
        raise ModelError(f"{method}: no reconstructions to score; the fits hold no items")
    return Scores(
        method=method,
        settings=_settings_record(settings, truth),
        record={"landmarks": landmarks, "resolution": resolution, **(record or {})},
        training_seeds=[training_seed],
        heads=heads,
        failures=failures,
        disentanglement=disentanglement,
    )


def _score_or_fail(head: TrueHead, reconstruction: Reconstruction, settings: ScoreSettings) -> HeadScores | Failure:
    try:
        return score_head(head, reconstruction, settings)
    except SurfaceError as error:
        return Failure(head.key, head.subject, str(error))


def decode_items(
    field: Field,
    items: Sequence[Mapping[str, Any]],
    codes_of: Callable[[int], Codes],
    truth: Truth,
    *,
    resolution: int = 256,
    mode: Literal["sparse", "dense"] = "sparse",
    to_model: Floats | None = None,
) -> Iterator[Reconstruction | Failure]:
    """Decode fitted heads one after the other, in mm of the true head, for `evaluate`.

    items: index rows with key and subject. codes_of(i): codes [1, dim] of item i, without the expression's for a neutral head. to_model
    [I, 4, 4] (column vectors): the alignment of each item's unit coordinates by the fit; its inverse is applied before the item's
    to_mm. A field without a surface becomes a Failure; other errors of `decode` are raised.
    """
    from facegraft_model.decoding.decode import decode
    from facegraft_model.decoding.extract import EmptyFieldError

    for i, item in enumerate(items):
        try:
            decoded = decode(field, codes_of(i), resolution=resolution, mode=mode)
        except EmptyFieldError as error:
            yield Failure(str(item["key"]), str(item["subject"]), str(error))
            continue
        vertices = decoded.mesh.vertices
        if to_model is not None:
            back = np.linalg.inv(np.asarray(to_model[i], dtype=np.float64))
            vertices = vertices @ back[:3, :3].T + back[:3, 3]
        yield Reconstruction(item, truth.in_mm(str(item["key"]), vertices), decoded.mesh.faces, decoded.parts)


def _settings_record(settings: ScoreSettings, truth: Truth) -> dict[str, Any]:
    record = asdict(settings)
    record.pop("workers")  # affects only the time
    return {
        **record,
        "parts": list(truth.parts),
        "taus_mm": list(settings.taus_mm),
        "alignments": list(settings.alignments),
        "confidence": CONFIDENCE,
        "truth": truth.describe(),
    }
