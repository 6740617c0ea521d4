"""Variation predictability (Zhu et al., ECCV 2020; for meshes Foti et al. 2023): a measure of disentanglement.

If the codes are disentangled, the displacement of a head shows which component of which part's code was changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from facegraft.arrays import Floats, Ints
from facegraft_model.decoding.correspond import corresponding_points
from facegraft_model.decoding.decode import Decoded
from facegraft_model.decoding.displacement import FOLLOWED_MM, UNMOVED_MM, follow_warp, template_coordinates
from facegraft_model.decoding.extract import Mesh
from facegraft_model.editing.edit import DecodeSettings, decode_head
from facegraft_model.editing.partcodes import (
    chosen_codes,
    component_codes,
    named_rng,
    principal_components,
    require_part_codes,
    sample_codes,
)
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.bootstrap import Interval, bootstrap
from facegraft_model.method import Field

DEFINITION = (
    "accuracy of a linear (ridge) classifier that is shown the displacement of registered points between "
    "two heads that differ in one principal component of one part, and says which; trained on other heads; after Zhu et al. 2020"
)


@dataclass(frozen=True)
class VariationPredictability:
    """Accuracy in [0, 1] on the pairs of heads that the classifier was not trained on, and the accuracy of guessing.

    classes: (part, component from 0). part_accuracy: only the part must be correct. confusion [K,K]: true class by row.
    """

    accuracy: Interval
    chance: float
    part_accuracy: Interval
    part_chance: float
    classes: list[tuple[str, int]]
    confusion: list[list[int]]
    n_train: int
    n_test: int
    settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "accuracy": self.accuracy.to_json(),
            "part_accuracy": self.part_accuracy.to_json(),
        }


def variation_predictability(
    field: Field,
    *,
    parts: Sequence[str] | None = None,
    components: int = 3,
    bases: int = 24,
    train_share: float = 0.5,
    points: int = 1024,
    ridge: float = 1e-2,
    seed: int = 0,
    settings: DecodeSettings | None = None,
    bootstrap_rounds: int = 2000,
    progress: Callable[[int, int], None] | None = None,
) -> VariationPredictability:
    """How well the displacement of a head predicts which principal component of which part was changed (after Zhu et al. 2020).

    parts: None for all, including the remainder.

    `bases` random heads are drawn from the Gaussian of the codes; for each, the coordinate along every component of every part in
    turn is drawn again from N(0, σ²). The two heads of a pair are ordered by that coordinate, since their order, and so the sign of
    a displacement, has no meaning. The feature is the displacement of `points` registered points of the template, found on the
    decoded first head and followed to the other by their template coordinates (`follow_warp`), scaled to rms 1 (a displacement
    below `UNMOVED_MM` becomes 0). The classifier is ridge regression onto the classes, with penalty `ridge` times the mean squared
    norm of the training features; it is trained on all pairs of a share of the bases, and tested on those of the others. Guessing
    has accuracy 1 / K. The interval of the accuracy is over the test bases. Raises ModelError for fewer than 2 classes or 2 bases.
    """
    settings = settings or DecodeSettings(resolution=64)
    require_part_codes(field, "predict")
    parts = chosen_codes(field, parts)
    train = round(train_share * bases)
    if not 1 <= train < bases or components < 1 or points < 1 or ridge <= 0:
        raise ModelError(
            f"variation predictability: needs training and test bases ({train} and {bases - train} of {bases}), components, points and a ridge above 0"
        )
    classes = [(part, k) for part in parts for k in range(components)]
    if len(classes) < 2:
        raise ModelError("variation predictability: needs at least two components to tell apart")
    registered = _registered_points(field, points, seed)
    found = {part: principal_components(field, part) for part in parts}
    features = np.zeros((bases, len(classes), registered.size))
    for i, codes in enumerate(sample_codes(field, bases, seed)):
        where = _on_head(decode_head(field, codes, f"random head {i + 1}", settings), registered)
        target = template_coordinates(field, codes)(where)
        for j, (part, k) in enumerate(classes):
            components_of = found[part]
            if k >= len(components_of.sigmas):
                component_codes(field, part, k)  # raises for too many components, with their number
            offset = codes[part].double().cpu()[0] - components_of.mean
            here = float(offset @ components_of.directions[k] / components_of.sigmas[k])
            there = float(named_rng(seed, "redrawn", part, k, i).standard_normal())
            step = (there - here) * components_of.sigmas[k] * components_of.directions[k]
            changed = {**codes, part: codes[part] + step.to(codes[part])[None]}
            other, _ = follow_warp(field, changed, where, target, FOLLOWED_MM / field.mm_per_unit)
            features[i, j] = np.sign(there - here) * _scaled(other - where, field.mm_per_unit)
        if progress is not None:
            progress(i + 1, bases)
    order = named_rng(seed, "split").permutation(bases)
    label = np.arange(len(classes))
    predicted = _ridge_classify(features[order[:train]], features[order[train:]], ridge)
    part_of = np.array([parts.index(part) for part, _ in classes])
    right = {
        "accuracy": (predicted == label).astype(np.float64).ravel(),
        "part_accuracy": (part_of[predicted] == part_of[label]).astype(np.float64).ravel(),
    }
    tested = [str(base) for base in order[train:] for _ in classes]
    intervals = bootstrap(right, tested, named_rng(seed, "bootstrap"), bootstrap_rounds)
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (np.broadcast_to(label, predicted.shape), predicted), 1)
    return VariationPredictability(
        intervals["accuracy"],
        1.0 / len(classes),
        intervals["part_accuracy"],
        1.0 / len(parts),
        classes,
        confusion.tolist(),
        train * len(classes),
        predicted.size,
        {
            "bases": bases,
            "train_share": train_share,
            "components": components,
            "parts": list(parts),
            "points": len(registered),
            "ridge": ridge,
            "seed": seed,
            "resolution": settings.resolution,
            "bootstrap_rounds": bootstrap_rounds,
            "definition": DEFINITION,
        },
    )


def _registered_points(field: Field, count: int, seed: int) -> Floats:
    """A random choice [m,3] of the registered points of the template, in template space."""
    template = field.template_points.detach().double().cpu().numpy()
    if not len(template):
        raise ModelError(
            "variation predictability needs registered points of the template; sample with stage_points and train anew"
        )
    chosen = np.sort(named_rng(seed, "points").permutation(len(template))[:count])
    return np.asarray(template[chosen], dtype=np.float64)


def _on_head(decoded: Decoded, registered: Floats) -> Floats:
    """Positions [m,3] on a decoded head of points [m,3] of the template.

    They are the nearest points of the head's mesh in template space: unlike a fixed-point inversion of the cascade, this does not
    require the nets to be contractions.
    """
    template = Decoded(Mesh(registered, np.zeros((0, 3), dtype=np.int64)), registered, None)
    return corresponding_points(template, decoded)[0]


def _scaled(displacement: Floats, mm_per_unit: float) -> Floats:
    """Displacements [m,3] in units as a feature [3m] of rms length 1, or 0 where nothing moves."""
    rms = float(np.sqrt(np.mean(np.sum(displacement**2, axis=1))))
    return (displacement / rms if rms * mm_per_unit >= UNMOVED_MM else np.zeros_like(displacement)).ravel()


def _ridge_classify(train: Floats, test: Floats, ridge: float) -> Ints:
    """Classes [b,K] that ridge regression onto one-hot targets gives the test features [b,K,f]; class j is number j of each row.

    It uses the dual form, W = Xᵀ (X Xᵀ + λI)⁻¹ Y, since there are far fewer pairs than coordinates. X and Y are centred.
    """
    classes = train.shape[1]
    x = train.reshape(-1, train.shape[2])
    y = np.tile(np.eye(classes), (len(train), 1))
    centre = x.mean(axis=0)
    x = x - centre
    gram = x @ x.T
    size = float(np.trace(gram)) / len(gram)
    if not size > 0.0:
        raise ModelError("variation predictability: no component moves a head at all; is the model trained?")
    weights = np.linalg.solve(gram + ridge * size * np.eye(len(gram)), y - 1.0 / classes)
    scores = (test - centre) @ x.T @ weights
    return np.asarray(scores.argmax(axis=-1), dtype=np.int64)
