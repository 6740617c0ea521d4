"""The losses of the cascade. Each term is a mean over a batch's items and points, so that equal parts of a batch average exactly."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from facegraft.vocabulary import EXP
from facegraft_model.cascade import Cascade, Gradients, NetSpec, Trace
from facegraft_model.config import FitConfig
from facegraft_model.errors import ModelError
from facegraft_model.method import Batch, Codes, Terms, mahalanobis, sampled_points
from facegraft_model.nets.window import WindowTrace


def eikonal(grad: Tensor) -> Tensor:
    """| |grad| - 1 | [B,N] of gradients [B,N,3]."""
    return (length(grad) - 1).abs()


def normal_deviation(grad: Tensor, normals: Tensor) -> Tensor:
    """1 - cosine of the angle between gradients and unit normals, [B,N] each of [B,N,3]."""
    return 1 - (grad * normals).sum(-1) / length(grad).clamp_min(1e-8)


def length(vectors: Tensor) -> Tensor:
    """Euclidean norm over the last axis, with a finite derivative at 0."""
    return (vectors * vectors).sum(-1).clamp_min(1e-16).sqrt()


def robust(distance: Tensor, scale: float) -> Tensor:
    """Geman-McClure loss s x^2 / (x^2 + s^2): quadratic near 0, bounded by `scale` for outliers (Geman and McClure 1987)."""
    return scale * distance * distance / (distance * distance + scale * scale)


# -- inputs of the terms -----------------------------------------------------------------------------------------------


class Pass:
    """A batch after one pass through the cascade: the inputs of all terms of the training loss.

    points [B,N,3], distances [B,N], normals [B,N,3]: surface, near and free points. landmarks [B,S,68,3] and stage_points [B,S,M,3]:
    true, at each stage. on [B]: 0 for composites, which have no expression. trace: of the points, the landmarks as scanned and, where
    `dense` is set, the registered points as scanned, concatenated; `landmark_rows` and `stage_rows` are the rows of the latter two.
    """

    def __init__(self, field: Cascade, batch: Batch, codes: Codes) -> None:
        self.field, self.batch, self.codes = field, batch, codes
        self.points, self.distances, self.normals = sampled_points(batch)
        self.landmarks, self.stage_points = batch["landmarks"], batch["stage_points"]
        self.on = (~batch["is_composite"]).to(self.points.dtype)
        self.dense = field.config.loss.dense > 0 and self.stage_points.shape[2] > 0
        count, marks = self.points.shape[1], self.landmarks.shape[2]
        self.landmark_rows, self.stage_rows = slice(count, count + marks), slice(count + marks, None)
        self.conditioning = field.condition(codes, self.on)
        rows = [self.points, self.landmarks[:, 0]] + ([self.stage_points[:, 0]] if self.dense else [])
        self.trace = field.trace(torch.cat(rows, 1), self.conditioning, count)
        self._gradients: Gradients | None = None

    @property
    def gradients(self) -> Gradients:
        """Gradients at the sampled points; computed once, on first use."""
        if self._gradients is None:
            self._gradients = self.field.gradients(self.trace, self.conditioning)
        return self._gradients


# -- the terms ---------------------------------------------------------------------------------------------------------


def sdf_term(run: Pass) -> Tensor:
    """L1 of the signed distance, in units of the ball."""
    return (run.trace.sdf - run.distances).abs().mean()


def correction_term(run: Pass) -> Tensor:
    """L1 of the correction that is added to the template's distance (Deng et al. 2021, DIF-Net)."""
    return run.trace.correction.abs().mean()


def eikonal_term(run: Pass) -> Tensor:
    """The distance has slope 1 everywhere (Gropp et al. 2020)."""
    return eikonal(run.gradients.point).mean()


def normal_term(run: Pass) -> Tensor:
    """Angle between the gradient and the stored normal, as 1 - cosine."""
    return normal_deviation(run.gradients.point, run.normals).mean()


def eikonal_neutral_term(run: Pass) -> Tensor:
    """Eikonal term at the neutral point, for scans only: a composite's neutral point is the point itself."""
    return (run.on[:, None] * eikonal(run.gradients.neutral)).mean()


def landmark_generation_term(run: Pass) -> Tensor:
    """Landmark generation, summed over the nets; each generates the landmarks of the stage before it."""
    terms = []
    for spec in run.field.specs:
        true = run.landmarks[:, spec.stage_from][:, run.field.landmark_rows(spec.name)]
        error = (run.conditioning.landmarks[spec.name] - true).abs().mean((1, 2))
        terms.append((run.on * error if spec.name == EXP else error).mean())
    return torch.stack(terms).sum()


def landmark_consistency_term(run: Pass) -> Tensor:
    """Landmark consistency, summed over the nets; each maps the landmarks to those of the stage after it."""
    moved = [points[:, run.landmark_rows] for points in run.trace.points[1:]]
    specs = zip(moved, run.field.specs, strict=True)
    return torch.stack([(own - run.landmarks[:, spec.stage_to]).abs().mean() for own, spec in specs]).sum()


def code_term(run: Pass) -> Tensor:
    """Mean square of the codes that an item uses, summed over the codes (Park et al. 2019, DeepSDF)."""
    return code_norm(run.codes, run.on).mean()


def neutral_term(run: Pass) -> Tensor:
    """Mean square of what the expression net gives at surface points of neutral scans: displacements, or screws, which should be 0."""
    moved = run.trace.nets[0].out[:, : run.batch["surface_points"].shape[1], : run.field.moves]
    return (run.batch["is_neutral"].to(run.points.dtype) * moved.square().mean((1, 2))).mean()


def dense_term(run: Pass) -> Tensor | None:
    """Mean L1 error of each net's displacement of registered points, summed over the nets. None for a batch without such points.

    A part is a twentieth of a head, and far from it the window makes its net's displacement 0: so for a part net the points of
    the part together weigh as much as all points around it.
    """
    if not run.dense:
        return None
    stages, labels, first = run.stage_points, run.batch["stage_part_labels"], run.stage_rows.start
    terms = []
    for i, spec in enumerate(run.field.specs):
        moved = run.trace.displacements[i][:, run.stage_rows]
        error = (moved - (stages[:, spec.stage_to] - stages[:, spec.stage_from])).abs().mean(2)
        if spec.part is None:
            terms.append(error.mean())
            continue
        inside = (labels == spec.part).expand_as(error)
        around = _around(inside, run.trace.windows[i], first)
        terms.append((_mean_where(error, inside) + _mean_where(error, around)).mean())
    return torch.stack(terms).sum()


def locality_term(run: Pass) -> Tensor:
    """What a part's net moves outside of its part."""
    labels = torch.cat([run.batch["surface_parts"], run.batch["near_parts"]], 1)
    return moved_elsewhere(run.field.specs, labels, run.trace).mean()


Term = Callable[[Pass], "Tensor | None"]

TERMS: dict[str, Term] = {
    "sdf": sdf_term,
    "correction": correction_term,
    "eikonal": eikonal_term,
    "normal": normal_term,
    "eikonal_neutral": eikonal_neutral_term,
    "landmark_generation": landmark_generation_term,
    "landmark_consistency": landmark_consistency_term,
    "code": code_term,
    "neutral": neutral_term,
    "dense": dense_term,
    "locality": locality_term,
}
"""The terms of the training loss, in the order in which they are summed. To add one, write its function, a line here, and its weight
in `LossConfig`: name, default, help."""

STAGE_TERMS = ("landmark_consistency", "landmark_generation", "dense")
"""Terms that need the stages of the template morph."""


def training_terms(field: Cascade, batch: Batch, codes: Codes) -> Terms:
    """The terms of the training loss, weighted by `LossConfig`; those with weight 0 are left out."""
    weights = {name: getattr(field.config.loss, name) for name in TERMS}
    held, needed = batch["landmarks"].shape[1], len(field.parts.stages)
    if held != needed and any(weights[name] > 0 for name in STAGE_TERMS):
        raise ModelError(
            f"the samples hold {held} stage{'s' * (held != 1)} of the template morph, the part nets learn from {needed} "
            f"({field.parts.describe_stages()}); sample surfaces made from composites and heads together"
        )
    run = Pass(field, batch, codes)
    terms: Terms = {}
    for name, term in TERMS.items():
        if weights[name] > 0 and (value := term(run)) is not None:
            terms[name] = weights[name] * value
    return terms


# -- shared with fitting -----------------------------------------------------------------------------------------------


def moved_elsewhere(specs: list[NetSpec], labels: Tensor, trace: Trace) -> Tensor:
    """Displacement [B] by the part nets around their parts: for each net the mean length over the points in its window whose label
    u8 [B,N] is not the part's, summed over the nets. The points are the first N rows of the trace."""
    terms = [
        _mean_where(length(moved[:, : labels.shape[1]]), _around(labels == spec.part, window, 0))
        for spec, moved, window in zip(specs, trace.displacements, trace.windows, strict=True)
        if spec.part is not None
    ]
    return torch.stack(terms).sum(0) if terms else trace.sdf.new_zeros(len(labels))


def _around(inside: Tensor, window: WindowTrace | None, first: int) -> Tensor:
    """Mask [B,N] of points outside the part that its net can still move; they are the rows of the window from `first` on."""
    if window is None:
        return ~inside
    return ~inside & (window.value[:, first : first + inside.shape[1], 0] > 0)


def _mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean [B] of the `chosen` values [B,N] of each head, or 0 if none is chosen. One mean per head, so that pieces of a batch average."""
    weights = chosen.to(values.dtype)
    return (values * weights).sum(1) / weights.sum(1).clamp_min(1)


def code_norm(codes: Codes, on: Tensor | None) -> Tensor:
    """Sum over the codes of mean z^2, [B]; a composite has no expression code (`on` [B] is 0)."""
    terms = []
    for name, code in codes.items():
        value = code.square().mean(1)
        terms.append(on * value if name == EXP and on is not None else value)
    return torch.stack(terms).sum(0)


def code_prior(field: Cascade, codes: Codes, fit: FitConfig) -> Terms:
    """The regularisation of fitted codes, [B]."""
    if fit.prior == "gaussian":
        distance = torch.stack([mahalanobis(code, field.code_statistics(name)) for name, code in codes.items()]).sum(0)
        return {"code": fit.gaussian * distance}
    return {"code": fit.code * code_norm(codes, None)}


def fit_terms(field: Cascade, batch: Batch, codes: Codes, fit: FitConfig) -> Terms:
    """Terms [B] of Eq. 12: reconstruction (distance, eikonal, normal, correction) and codes; no landmarks."""
    loss = field.config.loss
    points, distances, normals = sampled_points(batch)
    conditioning = field.condition(codes)
    trace = field.trace(points, conditioning)
    error = (trace.sdf - distances).abs()
    if fit.robust_mm > 0:
        error = robust(error, fit.robust_mm / field.mm_per_unit)
    terms: Terms = {"sdf": loss.sdf * error.mean(1)}
    correction = loss.correction if fit.correction is None else fit.correction
    if correction > 0:
        terms["correction"] = correction * trace.correction.abs().mean(1)
    if loss.eikonal + loss.normal > 0:
        gradients = field.gradients(trace, conditioning)
        # A scan without normals has zeros instead: those points do not count.
        known = (normals.abs().sum(-1) > 0).to(points.dtype)
        terms["eikonal"] = loss.eikonal * eikonal(gradients.point).mean(1)
        terms["normal"] = loss.normal * (known * normal_deviation(gradients.point, normals)).mean(1)
    if fit.locality > 0:
        # Training does not constrain all codes: without this term the nose's code would also fit the surface around the nose.
        count = points.shape[1] - batch["free_points"].shape[1]
        labels = template_labels(field, trace.points[-1][:, :count])
        terms["locality"] = fit.locality * moved_elsewhere(field.used(conditioning), labels, trace)
    return terms | code_prior(field, codes, fit)


@torch.no_grad()
def template_labels(field: Cascade, warped: Tensor) -> Tensor:
    """Part labels u8 [B,N] of points that lie at `warped` [B,N,3] in the template's space: those of its nearest registered points."""
    # Head by head: the distances of all points of all heads to the template would take gigabytes.
    return torch.stack([field.template_parts[torch.cdist(points, field.template_points).argmin(1)] for points in warped])
