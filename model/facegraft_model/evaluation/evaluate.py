"""All measurements of a set of fits: reconstruction by part, and disentanglement of the parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facegraft.parts import Parts
from facegraft.store import AnyPath
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.disentanglement import Progress, counted, measure_disentanglement
from facegraft_model.evaluation.records import Failure, Scores, ScoreSettings
from facegraft_model.evaluation.score import decode_items, evaluate
from facegraft_model.evaluation.truth import Truth, transformed
from facegraft_model.fitting.fits import Fits


@dataclass(frozen=True)
class EvaluationSettings:
    """resolution: of the extracted meshes. pairs: number of pairs of heads for leakage and swap error; 0: no disentanglement.
    predictability: number of base heads of variation predictability; 0: leave it out. score: how points are drawn and compared."""

    resolution: int = 256
    pairs: int = 20
    predictability: int = 0
    score: ScoreSettings = field(default_factory=ScoreSettings)


def evaluate_fits(
    fits: Fits,
    samples: Path,
    settings: EvaluationSettings,
    *,
    surfaces: Path | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Scores of fitted heads against the surfaces that the samples were made of.

    Raises ModelError for fits of scans that are not among the samples and for samples whose parts are not the model's, and the
    errors of `score.evaluate`.
    """
    truth = Truth(samples, surfaces)
    known = set(truth.samples)
    strange = [item["key"] for item in fits.items if item["key"] not in known]
    if strange:
        raise ModelError(
            f"{fits.path}: {strange[0]} is not an item of {samples}, so there is nothing to compare it with; score fits of that dataset"
        )
    model = fits.field
    if model.parts != truth.parts:
        its, others = _difference(model.parts, truth.parts)
        raise ModelError(
            f"{fits.path}: its model has {its}, {samples} {others}; "
            "score it on samples with its own parts, or train on these"
        )
    return evaluate(
        decode_items(
            model, fits.items, fits.codes_of, truth, resolution=settings.resolution, to_model=fits.alignment.numpy()
        ),
        truth,
        settings.score,
        method=model.config.preset,
        landmarks=str(fits.settings.get("landmarks", "none")),
        resolution=settings.resolution,
        training_seed=model.provenance["seed"],
        record={
            "fit": fits.settings,
            "model": model.provenance,
            "share_identity": fits.settings.get("share_identity", False),
        },
        disentanglement=measure_disentanglement(
            fits,
            truth,
            resolution=settings.resolution,
            pairs=settings.pairs,
            predictability=settings.predictability,
            scoring=settings.score,
            progress=progress,
        ),
        on_head=counted("scores", len(fits), progress),
    )


def fit_pictures(
    fits: Fits,
    samples: AnyPath,
    *,
    count: int = 4,
    keys: Sequence[str] | None = None,
    resolution: int = 256,
    surfaces: AnyPath | None = None,
    in_model: bool = False,
) -> list[dict[str, Any]]:
    """Heads for a picture: key, truth (vertices in mm, faces), fit (vertices in mm, faces, parts, distance to the truth in mm).

    keys: which heads; None: the first `count`. One whose field has no surface is left out. in_model: in the model's frame, as
    `decode` places heads, instead of the true head's. Raises the errors of `Truth`, and ModelError for a key that was not fitted.
    """
    truth = Truth(samples, surfaces)
    shown = []
    for i in range(min(count, len(fits))) if keys is None else map(fits.index, keys):
        item = fits.items[i]
        codes, alignment = fits.codes_of(i), fits.alignment.numpy()[i : i + 1]
        entry = next(
            decode_items(fits.field, [item], [codes].__getitem__, truth, resolution=resolution, to_model=alignment)
        )
        if isinstance(entry, Failure):
            continue
        head = truth.head(item["key"])
        distance = head.surface.nearest(entry.vertices).distance
        true, fitted = head.vertices, entry.vertices
        if in_model:
            true, fitted = (
                fits.field.mm_per_unit * transformed(truth.in_units(head.key, points), alignment[0])
                for points in (true, fitted)
            )
        shown.append(
            {
                "key": item["key"],
                "truth": (true, head.faces),
                "fit": (fitted, entry.faces, entry.parts, distance),
            }
        )
    return shown


def _difference(one: Parts, other: Parts) -> tuple[str, str]:
    """In what two different lists of parts differ, of either side: names, region set, or landmarks."""
    if one.names != other.names:
        return f"the parts {', '.join(one)}", ", ".join(other)
    if one.region_set != other.region_set:
        return f"the parts of region set {one.region_set!r}", f"those of {other.region_set!r}"
    name = next(name for name in one if one.landmarks(name) != other.landmarks(name))
    return f"landmarks {one.landmarks(name)} for part {name}", f"{other.landmarks(name)}"
