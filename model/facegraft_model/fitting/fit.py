"""Fitting latent codes to heads (Eq. 12 of Gu and Pears 2024): the weights are frozen, and Adam optimises the codes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from facegraft.seeds import derived_seed
from facegraft.vocabulary import COMPOSITE, EXP, ORIGINS
from facegraft_model.config import FitConfig, windows
from facegraft_model.data.batches import BatchSource
from facegraft_model.errors import ModelError
from facegraft_model.fitting.gaussnewton import STAGES, Solution, Stage, gauss_newton
from facegraft_model.fitting.starts import EXPRESSION_PRECISION, begun
from facegraft_model.method import SHARED, Batch, Field, sampled_points
from facegraft_model.rates import cosine, stepped
from facegraft_model.seeds import generator

Landmarks = Literal["none", "given", "predicted"]
LANDMARK_WEIGHT = 100.0
"""Weight of |warped landmarks - the template's|, equal to that of landmark consistency in training."""

MEASURED = 1024
"""Points by which the error of a fit is measured."""

Report = Callable[[int, int, float], None]
"""Called with (finished iterations, all iterations, mean loss of a head)."""


@dataclass(frozen=True)
class FittedCodes:
    """codes: [I,dim] by name (zeros where a head has none); errors_mm [I]: mean |sdf| of its surface points at the end (`surface_errors`)."""

    codes: dict[str, Tensor]
    errors_mm: Tensor


@contextmanager
def exact(field: Field) -> Iterator[None]:
    """float32 products without TF32 or rounded operands, independent of the settings for training."""
    precision, matmul = torch.get_float32_matmul_precision(), field.matmul
    torch.set_float32_matmul_precision("highest")
    if matmul is not None:
        field.matmul = replace(matmul, half=False)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        if matmul is not None:
            field.matmul = matmul


def optimise_codes(
    field: Field,
    batch_of: Callable[[int], Batch],
    rows: Mapping[str, Tensor],
    fit: FitConfig,
    *,
    seed: int,
    landmarks: bool = False,
    moving: tuple[nn.Module, float] | None = None,
    report: Report | None = None,
) -> FittedCodes:
    """Codes of I heads by `fit.steps` iterations of Adam, whose rate falls as `fit.schedule` says.

    batch_of(iteration): a batch with "item" [b], indices of the I heads. rows: by code name, the row of each head's code [I]; heads
    that share an identity share rows, and a code that is not named is not used. landmarks: also pull batch["landmarks"][:, 0] to the
    template's (or to batch["landmark_targets"]). moving: further parameters to fit, with their learning rate relative to the codes'
    (the pose that batch_of applies to a scan). Raises ModelError when a loss is not finite.
    """
    device = next(field.parameters()).device
    count = len(next(iter(rows.values())))
    if fit.solver == "gauss-newton":
        return _solved_codes(field, batch_of(0), rows, fit, seed, landmarks, report)
    params = {
        name: nn.Parameter(_start(field, name, int(place.max()) + 1, fit, seed).to(device))
        for name, place in rows.items()
    }
    rows = {name: place.to(device) for name, place in rows.items()}
    groups: list[dict[str, Any]] = [{"params": list(params.values()), "rate": 1.0}]
    if moving is not None:
        groups.append({"params": [p for p in moving[0].parameters() if p.requires_grad], "rate": moving[1]})
    optimiser = torch.optim.Adam(groups, lr=fit.lr)
    frozen = [parameter for parameter in field.parameters() if parameter.requires_grad]
    with exact(field), _frozen(frozen):
        for iteration in range(fit.steps):
            lr = fit.lr * learning_rate(fit, iteration)
            for group in optimiser.param_groups:
                group["lr"] = lr * group["rate"]
            batch = batch_of(iteration)
            item = batch["item"]
            codes = {name: params[name][place[item]] for name, place in rows.items()}
            terms = field.fit_terms(batch, codes, fit)
            if landmarks:
                moved = field.warp(batch["landmarks"][:, 0], codes)
                terms["landmarks"] = LANDMARK_WEIGHT * (
                    moved - batch.get("landmark_targets", field.template_landmarks)
                ).abs().mean((1, 2))
            loss = torch.stack(list(terms.values())).sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            if iteration % 20 == 19 or iteration == fit.steps - 1:
                value = float(loss.detach()) / len(item)
                if not math.isfinite(value):
                    raise ModelError(f"the loss became {value} at iteration {iteration + 1} of the fit; lower fit.lr")
                if report is not None:
                    report(iteration + 1, fit.steps, value)
        fitted = {name: params[name].detach()[rows[name]] for name in rows}
        errors = surface_errors(field, batch_of(fit.steps), fitted, count)
    return FittedCodes({name: code.cpu() for name, code in fitted.items()}, errors)


def learning_rate(fit: FitConfig, iteration: int) -> float:
    """Adam's learning rate in an iteration, relative to the first."""
    if fit.schedule == "cosine":
        return cosine(iteration / fit.steps)
    return stepped(fit.lr_factor, fit.lr_every, fit.lr_from, iteration)


def _solved_codes(
    field: Field,
    batch: Batch,
    rows: Mapping[str, Tensor],
    fit: FitConfig,
    seed: int,
    landmarks: bool,
    report: Report | None,
) -> FittedCodes:
    """Codes of I heads by Gauss-Newton. Heads that share no code are solved one after the other: their systems are separate."""
    device = next(field.parameters()).device
    count = len(next(iter(rows.values())))
    places = {int(item): i for i, item in enumerate(batch["item"])}
    codes = {name: torch.zeros(count, field.code_dims[name]) for name in rows}
    errors = torch.full((count,), math.nan)
    groups = _linked(rows, count)
    with exact(field), torch.no_grad():
        for number, group in enumerate(groups):
            index = torch.tensor([places[head] for head in group], device=device)
            own = {name: value if name in SHARED else value[index] for name, value in batch.items()}
            own["item"] = torch.arange(len(group), device=device)
            if landmarks:
                own.setdefault("landmark_targets", field.template_landmarks.expand(len(group), -1, -1))
            local = {name: torch.unique(place[list(group)], return_inverse=True)[1] for name, place in rows.items()}
            start = {
                name: _start(field, name, int(place.max()) + 1, fit, seed).to(device) for name, place in local.items()
            }
            trial: Solution | None = None
            stages: Sequence[Stage] = STAGES
            if EXP in start:
                # Head by head, also where heads share an identity: one may be neutral and the next have its mouth open.
                for head, row in enumerate(local[EXP].tolist()):
                    alone = {name: value if name in SHARED else value[head : head + 1] for name, value in own.items()}
                    first = {name: start[name][place[head : head + 1]] for name, place in local.items()}
                    expression, trial, stages = begun(field, alone, fit, first)
                    start[EXP][row] = expression[0]
            if len(group) > 1:
                trial, stages = None, STAGES  # each was begun alone
            steps = None if report is None else _steps_of(report, number, len(groups), fit.steps)
            solution = gauss_newton(
                field, own, local, fit, start, precision=EXPRESSION_PRECISION, stages=stages, warm_start=trial, report=steps
            )
            fitted = {name: solution.codes[name][place] for name, place in local.items()}
            for name, code in fitted.items():
                codes[name][list(group)] = code.cpu()
            errors[list(group)] = surface_errors(field, own, fitted, len(group))
    return FittedCodes(codes, errors)


def _steps_of(report: Report, number: int, count: int, steps: int) -> Callable[[int, float], None]:
    return lambda done, cost: report(number * steps + done, count * steps, cost)


def _linked(rows: Mapping[str, Tensor], count: int) -> list[tuple[int, ...]]:
    """The heads in groups that share rows of codes, each in order."""
    group = list(range(count))
    for place in rows.values():
        first: dict[int, int] = {}
        for head, row in enumerate(place.tolist()):
            old, new = group[head], group[first.setdefault(row, head)]
            group = [new if member == old else member for member in group]
    return [tuple(i for i in range(count) if group[i] == leader) for leader in dict.fromkeys(group)]


@torch.no_grad()
def surface_errors(field: Field, batch: Batch, codes: Mapping[str, Tensor], count: int) -> Tensor:
    """Mean |sdf| in mm of each head's surface points (the first MEASURED), [count]; NaN for heads that are not in the batch.

    A fit without surface points (DeepSDF's) is measured at all its points, by the difference from the true distance.
    """
    errors = torch.full((count,), math.nan)
    item = batch["item"]
    surface = min(batch["surface_points"].shape[1], MEASURED) or None
    points, truth = (tensor[:, :surface] for tensor in sampled_points(batch)[:2])
    error = (field.sdf(points, {name: code[item] for name, code in codes.items()}) - truth).abs()
    errors[item.cpu()] = field.mm_per_unit * error.mean(1).cpu()
    return errors


def fit_samples(
    field: Field,
    samples: str,
    keys: Sequence[str],
    fit: FitConfig,
    *,
    seed: int = 0,
    landmarks: Landmarks = "none",
    share_identity: bool = False,
    report: Report | None = None,
    verify: bool = True,
) -> tuple[FittedCodes, list[dict[str, Any]]]:
    """Fit items of a dataset of samples; returns their codes and their rows of the index, in the order of `keys`.

    share_identity: one set of identity codes for all expressions of a subject. Composites are neutral: they get no expression code.
    verify: check the sha256 of each shard at its first open. Raises DataError for samples in other coordinates than the model's.
    """
    if landmarks != "none" and not field.has_warp:
        raise ModelError(
            f"landmarks={landmarks}: method {field.config.model.method} has no map to a template, so landmarks cannot be used"
        )
    device = next(field.parameters()).device
    expect = field.provenance["data"]["coordinates"]
    with BatchSource(
        samples,
        items=len(keys),
        surface=0,
        near=0,
        free=0,
        stage=0,
        split=None,
        keys=keys,
        expect=expect,
        backend="stream",
        verify=verify,
    ) as whole:
        index = whole.rows
    groups = _groups(index, fit.items, share_identity, EXP in field.code_dims)
    codes = {name: torch.zeros(len(keys), dim) for name, dim in field.code_dims.items()}
    errors = torch.full((len(keys),), math.nan)
    for number, group in enumerate(groups):
        chosen = [index[i] for i in group]
        source = BatchSource(
            samples,
            items=len(group),
            **windows(fit),
            stage=0,
            split=None,
            keys=[row["key"] for row in chosen],
            seed=derived_seed(seed, "fit", chosen[0]["key"]) % 2**31,
            expect=expect,
            device=device,
            backend="auto",
            verify=verify,
        )
        with source:
            batch_of = source.batch if landmarks != "predicted" else _with_predicted(field, source.batch)
            fitted = optimise_codes(
                field,
                batch_of,
                _rows(field, chosen, share_identity),
                fit,
                seed=derived_seed(seed, "codes", chosen[0]["key"]),
                landmarks=landmarks != "none",
                report=None if report is None else _part_of(report, number, len(groups)),
            )
        for name, code in fitted.codes.items():
            codes[name][group] = code
        errors[group] = fitted.errors_mm
    return FittedCodes(codes, errors), index


def _start(field: Field, name: str, count: int, fit: FitConfig, seed: int) -> Tensor:
    if fit.init == "mean":
        return field.code_statistics(name).mean.cpu().expand(count, -1).clone()
    return field.initial_code(name, count, generator(seed, name))


def _rows(field: Field, chosen: Sequence[Mapping[str, Any]], share_identity: bool) -> dict[str, Tensor]:
    """The row of each head's code among a group's codes."""
    own = torch.arange(len(chosen))
    subjects = sorted({row["subject"] for row in chosen})
    composite = chosen[0]["origin"] == COMPOSITE
    # Composites of one recipient are different heads: their parts come from different donors.
    sharing = share_identity and not composite
    shared = torch.tensor([subjects.index(row["subject"]) for row in chosen]) if sharing else own
    return {
        name: own if name in (EXP, "shape") else shared
        for name in field.code_dims
        if not (name == EXP and composite)
    }


def _groups(
    index: Sequence[Mapping[str, Any]], size: int, share_identity: bool, has_expression: bool
) -> list[list[int]]:
    """Groups of heads to fit together: at most `size` heads, scans or composites only, and all heads of a subject in one group."""
    groups: list[list[int]] = []
    for origin in ORIGINS:
        places = [i for i, row in enumerate(index) if row["origin"] == origin]
        if not share_identity or origin == COMPOSITE:
            groups += [places[a : a + size] for a in range(0, len(places), size)]
            continue
        by_subject: dict[str, list[int]] = {}
        for i in places:
            by_subject.setdefault(index[i]["subject"], []).append(i)
        current: list[int] = []
        for own in by_subject.values():
            if current and len(current) + len(own) > size:
                groups.append(current)
                current = []
            current = current + own
        groups += [current] if current else []
    return groups


def _part_of(report: Report, number: int, count: int) -> Report:
    return lambda done, steps, loss: report(number * steps + done, count * steps, loss)


def _with_predicted(field: Field, batch_of: Callable[[int], Batch]) -> Callable[[int], Batch]:
    def predicted(iteration: int) -> Batch:
        batch = dict(batch_of(iteration))
        batch["landmarks"] = predict_landmarks(field, batch["surface_points"])[:, None]
        return batch

    return predicted


def predict_landmarks(field: Field, points: Tensor) -> Tensor:
    """Landmarks [B,68,3] of heads without any: the points of each head [B,n,3] nearest to the template's landmarks.

    A guess for heads that are aligned with the training data; its quality depends on how much the head resembles the template.
    """
    nearest = torch.cdist(field.template_landmarks.expand(len(points), -1, -1), points).argmin(2)
    return points.gather(1, nearest.unsqueeze(-1).expand(-1, -1, 3))


@contextmanager
def _frozen(parameters: list[nn.Parameter]) -> Iterator[None]:
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
