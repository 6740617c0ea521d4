"""The losses of the cascade. Each term is a mean over a batch's items and points, so that equal parts of a batch average exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from facegraft_model.cascade import Cascade, NetSpec, Trace
from facegraft_model.config import FitConfig
from facegraft_model.errors import ModelError
from facegraft_model.method import Batch, Codes, Terms, mahalanobis, sampled_points, weighted
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


def training_terms(field: Cascade, batch: Batch, codes: Codes) -> Terms:
    """The weighted terms of `LossConfig`, those with weight 0 left out."""
    loss = field.config.loss
    points, distances, normals = sampled_points(batch)
    landmarks, stage_points = batch["landmarks"], batch["stage_points"]
    stages = len(field.parts.stages)
    if landmarks.shape[1] != stages and loss.landmark_consistency + loss.landmark_generation + loss.dense > 0:
        raise ModelError(
            f"the samples hold {landmarks.shape[1]} stage{'s' * (landmarks.shape[1] != 1)} of the template morph, the part nets learn from {stages} "
            f"({field.parts.describe_stages()}); sample surfaces made from composites and heads together"
        )
    count = points.shape[1]
    on = (~batch["is_composite"]).to(points.dtype)
    conditioning = field.condition(codes, on)
    dense = loss.dense > 0 and stage_points.shape[2] > 0
    rows = [points, landmarks[:, 0]] + ([stage_points[:, 0]] if dense else [])
    trace = field.trace(torch.cat(rows, 1), conditioning, count)
    terms: Terms = {}
    if loss.sdf > 0:
        terms["sdf"] = (trace.sdf - distances).abs().mean()
    if loss.correction > 0:
        terms["correction"] = trace.correction.abs().mean()
    if loss.eikonal + loss.normal + loss.eikonal_neutral > 0:
        gradients = field.gradients(trace, conditioning)
        if loss.eikonal > 0:
            terms["eikonal"] = eikonal(gradients.point).mean()
        if loss.normal > 0:
            terms["normal"] = normal_deviation(gradients.point, normals).mean()
        if loss.eikonal_neutral > 0:
            terms["eikonal_neutral"] = (on[:, None] * eikonal(gradients.neutral)).mean()
    if loss.landmark_generation > 0:
        terms["landmark_generation"] = _landmark_generation(field, conditioning.landmarks, landmarks, on)
    if loss.landmark_consistency > 0:
        terms["landmark_consistency"] = torch.stack(
            [
                (trace.points[i + 1][:, count : count + 68] - landmarks[:, spec.stage_to]).abs().mean()
                for i, spec in enumerate(field.specs)
            ]
        ).sum()
    if loss.code > 0:
        terms["code"] = code_norm(codes, on).mean()
    if loss.neutral > 0:
        moved = trace.displacements[0][:, : batch["surface_points"].shape[1]]
        terms["neutral"] = (batch["is_neutral"].to(points.dtype) * moved.square().mean((1, 2))).mean()
    if dense:
        terms["dense"] = _dense(field.specs, batch, trace, count + 68)
    if loss.locality > 0:
        labels = torch.cat([batch["surface_parts"], batch["near_parts"]], 1)
        terms["locality"] = moved_elsewhere(field.specs, labels, trace).mean()
    return weighted(terms, loss)


def _landmark_generation(field: Cascade, generated: dict[str, Tensor], landmarks: Tensor, on: Tensor) -> Tensor:
    terms = []
    for spec in field.specs:
        error = (
            (generated[spec.name] - landmarks[:, spec.stage_from][:, field.landmark_ids[spec.name]]).abs().mean((1, 2))
        )
        terms.append((on * error if spec.name == "exp" else error).mean())
    return torch.stack(terms).sum()


def _dense(specs: list[NetSpec], batch: Batch, trace: Trace, first: int) -> Tensor:
    """L1 of each net's displacement at registered points, rows of the trace from `first` on, from the true one of its stage; summed.

    A part is a twentieth of a head, and far from it a window leaves its net nothing to do: so for a part net the points of the part
    count as much, together, as all those around it.
    """
    stages, labels = batch["stage_points"], batch["stage_part_labels"]
    terms = []
    for i, spec in enumerate(specs):
        moved = trace.displacements[i][:, first:]
        error = (moved - (stages[:, spec.stage_to] - stages[:, spec.stage_from])).abs().mean(2)
        if spec.part is None:
            terms.append(error.mean())
            continue
        inside = (labels == spec.part).expand_as(error)
        around = _around(inside, trace.windows[i], first)
        terms.append((_mean_where(error, inside) + _mean_where(error, around)).mean())
    return torch.stack(terms).sum()


def moved_elsewhere(specs: list[NetSpec], labels: Tensor, trace: Trace) -> Tensor:
    """How far each part net moves points around its part, [B]: mean lengths over the points whose label u8 [B,N] is not the part's
    and which its window lets it move, summed over the nets. The points are the first N rows of the trace."""
    terms = [
        _mean_where(length(moved[:, : labels.shape[1]]), _around(labels == spec.part, window, 0))
        for spec, moved, window in zip(specs, trace.displacements, trace.windows, strict=True)
        if spec.part is not None
    ]
    return torch.stack(terms).sum(0) if terms else trace.sdf.new_zeros(len(labels))


def _around(inside: Tensor, window: WindowTrace | None, first: int) -> Tensor:
    """Points [B,N] that are not of the part, and that its net can move all the same; rows of the window from `first` on."""
    if window is None:
        return ~inside
    return ~inside & (window.value[:, first : first + inside.shape[1], 0] > 0)


def _mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean [B] of the values [B,N] that are `chosen`; 0 where none is. A mean of its own for every head, so that parts of a batch average."""
    weights = chosen.to(values.dtype)
    return (values * weights).sum(1) / weights.sum(1).clamp_min(1)


def code_norm(codes: Codes, on: Tensor | None) -> Tensor:
    """Sum over the codes of mean z^2, [B]; a composite has no expression code (`on` [B] is 0)."""
    terms = []
    for name, code in codes.items():
        value = code.square().mean(1)
        terms.append(on * value if name == "exp" and on is not None else value)
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
    if loss.correction > 0:
        terms["correction"] = loss.correction * trace.correction.abs().mean(1)
    if loss.eikonal + loss.normal > 0:
        gradients = field.gradients(trace, conditioning)
        # A scan without normals has zeros in their place: those points say nothing about direction.
        known = (normals.abs().sum(-1) > 0).to(points.dtype)
        terms["eikonal"] = loss.eikonal * eikonal(gradients.point).mean(1)
        terms["normal"] = loss.normal * (known * normal_deviation(gradients.point, normals)).mean(1)
    if fit.locality > 0:
        # Codes are free where training never was: without this the nose's also learns what lies around the nose.
        count = points.shape[1] - batch["free_points"].shape[1]
        labels = template_labels(field, trace.points[-1][:, :count])
        terms["locality"] = fit.locality * moved_elsewhere(field.used(conditioning), labels, trace)
    return terms | code_prior(field, codes, fit)


@torch.no_grad()
def template_labels(field: Cascade, warped: Tensor) -> Tensor:
    """Part labels u8 [B,N] of points that lie at `warped` [B,N,3] in the template's space: those of its nearest registered points."""
    # Head by head: distances of all points of all heads to the template at once are gigabytes.
    return torch.stack([field.stage_parts[torch.cdist(points, field.stage_template).argmin(1)] for points in warped])
