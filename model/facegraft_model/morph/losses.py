"""The losses of a morph. Each term is a mean over a batch's items and points, as those of the cascade."""

from __future__ import annotations

import torch
from torch import Tensor

from facegraft.vocabulary import EXP, REM
from facegraft_model.config import FitConfig
from facegraft_model.losses import code_norm, eikonal, normal_deviation, robust
from facegraft_model.method import Batch, Codes, Terms, mahalanobis, sampled_points
from facegraft_model.morph.morph import LOST_MM, Conditioning, Morph, distance_at
from facegraft_model.morph.search import Located


def training_terms(field: Morph, batch: Batch, codes: Codes) -> Terms:
    """The terms of the training loss, weighted by `LossConfig`; those with weight 0 are left out."""
    loss = field.config.loss
    on = (~batch["is_composite"]).to(batch["landmarks"].dtype)
    conditioning = field.condition(codes, on)
    points, distances, normals = sampled_points(batch)
    located = field.attach(points, field.locate_nearly(points, conditioning), conditioning)
    terms = distance_terms(field, located, distances, normals, conditioning)
    if loss.dense > 0 and batch["stage_points"].shape[2]:
        terms["dense"] = loss.dense * dense_term(field, batch, conditioning, on)
    if field.topology is not None and len(batch["template_draws"]):
        terms["template"] = template_term(field, batch["template_draws"], conditioning)
    terms["code"] = loss.code * code_norm(codes, on).mean()
    return terms


def distance_terms(
    field: Morph, located: Located, distances: Tensor, normals: Tensor, conditioning: Conditioning
) -> Terms:
    """Distance, slope and normal at located points of heads; true distances [B,N] and normals [B,N,3]."""
    loss = field.config.loss
    found = (located.gap < LOST_MM / field.mm_per_unit).to(distances.dtype)
    sdf, own = distance_at(located.q, conditioning.template)
    terms: Terms = {"sdf": loss.sdf * (found * (sdf - distances).abs()).mean()}
    grad = (own.unsqueeze(2) @ located.inverse).squeeze(2)
    if loss.eikonal > 0:
        terms["eikonal"] = loss.eikonal * (found * eikonal(grad)).mean()
    if loss.normal > 0:
        terms["normal"] = loss.normal * (found * normal_deviation(grad, normals)).mean()
    return terms


def template_term(field: Morph, draws: Tensor, conditioning: Conditioning) -> Tensor:
    """Distance, slope and normal on the template's own surface, which few heads show everywhere: most have their mouth closed."""
    loss = field.config.loss
    assert field.topology is not None
    at = field.topology.at(draws, field.face_bounds)
    sdf, grad = distance_at(at.points[None], conditioning.template)
    value = loss.sdf * sdf.abs().mean() + loss.eikonal * eikonal(grad).mean()
    return value + loss.normal * normal_deviation(grad, at.normals[None]).mean()


def dense_term(field: Morph, batch: Batch, conditioning: Conditioning, on: Tensor) -> Tensor:
    """Mean L1 error of each net's displacement of registered points, summed over the nets. For a part: over its own points."""
    stages, rows = batch["stage_points"], batch["stage_rows"]
    opening = field.template_points[rows] - stages[:, -1]
    moved = field.registered(conditioning, rows)
    labels = batch["stage_part_labels"]
    last = stages.shape[1] - 1
    expression = stages[:, 0] - stages[:, 1]
    wanted = {EXP: on.view(-1, 1, 1) * expression - opening}
    wanted |= {name: stages[:, k] - stages[:, k + 1] for k, name in enumerate(field.parts, 1)}
    wanted[REM] = stages[:, last - 1] - stages[:, last]
    terms = []
    for name, truth in wanted.items():
        error = (moved[name] - truth).abs().mean(2)
        if name in field.parts:
            own = (labels == field.parts.label(name)).to(error.dtype)
            terms.append((error * own).mean() * (len(own) / own.sum().clamp_min(1)))
        else:
            terms.append(error.mean())
    return torch.stack(terms).sum()


def fit_terms(field: Morph, batch: Batch, codes: Codes, fit: FitConfig) -> Terms:
    """Terms [B] of the fit of codes by Adam: the distances, and the codes' prior."""
    conditioning = field.condition(codes)
    points, distances, _ = sampled_points(batch)
    located = field.attach(points, field.locate(points, conditioning), conditioning)
    error = (distance_at(located.q, conditioning.template)[0] - distances).abs()
    if fit.robust_mm > 0:
        error = robust(error, fit.robust_mm / field.mm_per_unit)
    terms: Terms = {"sdf": field.config.loss.sdf * error.mean(1)}
    if fit.prior == "gaussian":
        prior = torch.stack([mahalanobis(code, field.code_statistics(name)) for name, code in codes.items()]).sum(0)
        return {**terms, "code": fit.gaussian * prior}
    return {**terms, "code": fit.code * code_norm(codes, None)}
