"""Editing heads by their codes: swap parts, interpolate part after part, draw random ones, walk along principal components.

The first half works on codes alone; each command of the second half decodes its heads and measures how every point moved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from facegraft_model.displacement import TOLERANCE_MM, dense_displacement, describe_change
from facegraft_model.errors import ModelError
from facegraft_model.extract import Decoded, EmptyFieldError, decode
from facegraft_model.method import Codes, Field
from facegraft_model.metrics import Floats, Ints, Labels

PART_CODES = ("nose", "eyes", "mouth", "rem")
"""The codes of a neutral head, in the order of the cascade."""

GRAFT_PARTS = ("nose", "eyes", "mouth")
"""The parts that a graft takes from donors; the remainder is the recipient's."""


class Head(NamedTuple):
    """Somebody's codes, each [1,d], and what to call them."""

    name: str
    codes: Codes


class Step(NamedTuple):
    """One head of an edit: its codes, what it shows, the part that changes, and how far (t, or sigmas); None: nothing does."""

    codes: Codes
    label: str
    part: str | None
    amount: float | None


def require_part_codes(model: Field, purpose: str = "swap") -> None:
    """Raises ModelError for a method whose heads are not made of parts."""
    if not set(PART_CODES) <= set(model.code_dims):
        raise ModelError(
            f"this run's method is {model.config.model.method}: it has no part codes to {purpose}; take a run of preset paper or facegraft"
        )


def trained_head(model: Field, subject: str) -> Head:
    """The neutral head of a training subject. Raises DataError for somebody whom the model was not trained on."""
    require_part_codes(model, "edit")
    row = model.id_table.subject(subject)
    return Head(subject, {name: model.tables[name].detach()[row : row + 1] for name in PART_CODES})


def mean_codes(model: Field) -> dict[str, Tensor]:
    """Codes [1,d] of the mean head: neutral, every part's code the mean of the trained ones."""
    require_part_codes(model, "average")
    return {name: _like_table(model, name, model.code_statistics(name).mean[None]) for name in PART_CODES}


def swap_parts(host: Codes, donor: Codes, parts: Sequence[str]) -> dict[str, Tensor]:
    """The host's codes with those of the named parts taken from the donor; "exp", too, can be named.

    Raises ModelError for a part that either has no code of, or for codes of different sizes.
    """
    for name in parts:
        for who, codes in (("host", host), ("donor", donor)):
            if name not in codes:
                raise ModelError(f"the {who} has no code {name!r} to swap; it has {', '.join(codes)}")
        if host[name].shape != donor[name].shape:
            raise ModelError(
                f"code {name!r} is {tuple(host[name].shape)} in the host and {tuple(donor[name].shape)} in the donor: are both of one model?"
            )
    return {name: donor[name] if name in parts else code for name, code in host.items()}


def interpolate_parts(start: Codes, end: Codes, order: Sequence[str] = PART_CODES, steps: int = 4) -> list[Step]:
    """From one head to another part after part, linear in the codes: the start, then `steps` heads for each part of `order`.

    Each part moves from t = 1/steps to 1 and stays there while the next ones move. Codes not in `order` stay those of the start.
    Raises ModelError for a part without a code, one named twice, or no steps.
    """
    if steps < 1 or not order or len(set(order)) != len(order):
        raise ModelError(
            f"interpolation takes at least one step and each part once, not {steps} steps of {list(order)}"
        )
    swap_parts(start, end, order)  # says what does not fit
    result = [Step(dict(start), "start", None, None)]
    reached = dict(start)
    for name in order:
        for k in range(1, steps + 1):
            # The last step takes the code itself, free of rounding.
            code = end[name] if k == steps else torch.lerp(start[name], end[name], k / steps)
            result.append(Step({**reached, name: code}, f"{name} {k}/{steps}", name, k / steps))
        reached[name] = end[name]
    return result


def sample_codes(
    model: Field,
    count: int,
    seed: int,
    parts: Literal["all"] | Sequence[str] = "all",
    base: Codes | None = None,
    scale: float = 1.0,
) -> list[dict[str, Tensor]]:
    """`count` heads whose named parts are drawn from the Gaussian of the trained codes; codes [1,d].

    z = μ + scale · Σ^½ ε, with Σ^½ the symmetric root from the eigen-decomposition of the covariance: unlike a Cholesky factor it
    exists for fewer heads than dimensions, and it does not depend on the signs that eigenvectors come with. The other codes are
    those of `base` (its expression too), or the mean head's. Every part has its own random numbers: naming more parts does not
    change a part's draws, and more heads only add to them. Raises ModelError for unknown parts or a count below 1.
    """
    require_part_codes(model, "draw")
    chosen = PART_CODES if parts == "all" else tuple(parts)
    _check_parts(chosen)
    if count < 1 or seed < 0 or scale < 0:
        raise ModelError(f"count must be at least 1, seed and scale not negative, not {count}, {seed} and {scale}")
    drawn = {}
    for name in chosen:
        mean, covariance = model.code_statistics(name)
        values, vectors = torch.linalg.eigh(covariance.double().cpu())
        root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
        noise = named_rng(seed, "codes", name).standard_normal((count, len(mean)))
        drawn[name] = _like_table(model, name, mean.double().cpu() + scale * torch.from_numpy(noise) @ root)
    others = mean_codes(model) if base is None else base
    return [{**others, **{name: code[i : i + 1] for name, code in drawn.items()}} for i in range(count)]


@dataclass(frozen=True, eq=False)
class Components:
    """Principal components of the trained codes of one part, the strongest first: mean [d], directions [k,d], sigmas [k], f64.

    Only those with variance: at most one fewer than there are heads. The largest entry of a direction is positive.
    """

    mean: Tensor
    directions: Tensor
    sigmas: Tensor

    @property
    def explained(self) -> Tensor:
        """Share [k] of the variance."""
        return self.sigmas**2 / (self.sigmas**2).sum()


def principal_components(model: Field, name: str) -> Components:
    """PCA of a part's code table. Raises ModelError for an unknown part, or codes that are all the same."""
    require_part_codes(model, "analyse")
    _check_parts((name,))
    table = model.tables[name].detach().double().cpu()
    mean = table.mean(0)
    _, values, directions = torch.linalg.svd(table - mean, full_matrices=False)
    kept = values > 1e-6 * values[0] if len(table) > 1 else torch.zeros_like(values, dtype=torch.bool)
    if not kept.any():
        raise ModelError(f"all trained codes of part {name!r} are the same, so they have no principal components")
    directions = directions[kept]
    signs = directions.gather(1, directions.abs().argmax(1, keepdim=True)).sign()
    return Components(mean, directions * signs, values[kept] / (len(table) - 1) ** 0.5)


def component_codes(
    model: Field, part: str, component: int, sigmas: Sequence[float] = (-3.0, 0.0, 3.0), base: Codes | None = None
) -> list[Step]:
    """Heads whose part has the code μ + s σ_k u_k for each s of `sigmas`; the other codes are those of `base`, or the mean head's.

    component k counts from 0. Raises ModelError for one that the codes do not have.
    """
    found = principal_components(model, part)
    if not 0 <= component < len(found.sigmas):
        raise ModelError(
            f"part {part!r} has no component {component + 1}: its trained codes vary in {len(found.sigmas)} directions"
        )
    others = mean_codes(model) if base is None else base
    along = found.sigmas[component] * found.directions[component]
    return [
        Step(
            {**others, part: _like_table(model, part, (found.mean + s * along)[None])},
            f"{part} {component + 1} {s:+g}σ",
            part,
            float(s),
        )
        for s in sigmas
    ]


def named_rng(seed: int, *names: str) -> np.random.Generator:
    """Random numbers of their own for every purpose, so that no draw depends on what else is drawn."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, dtype="<u4").tolist()])


def _like_table(model: Field, name: str, code: Tensor) -> Tensor:
    table = model.tables[name]
    return code.to(device=table.device, dtype=table.dtype)


def _check_parts(parts: Sequence[str]) -> None:
    unknown = [name for name in parts if name not in PART_CODES]
    if unknown or not parts or len(set(parts)) != len(parts):
        raise ModelError(f"parts must be some of {', '.join(PART_CODES)}, each once, not {', '.join(parts) or 'none'}")


# -- commands: decoded heads and numbers ------------------------------------------------------------------------------


@dataclass(frozen=True)
class DecodeSettings:
    """resolution: nodes an axis of the extraction grid. tolerance_mm: see `displacement`. on_head(done, all): progress."""

    resolution: int = 256
    mode: Literal["sparse", "dense"] = "sparse"
    tolerance_mm: float = TOLERANCE_MM
    on_head: Callable[[int, int], None] | None = field(default=None, compare=False)


@dataclass(frozen=True, eq=False)
class EditedHead:
    """A decoded head of an edit and its place (row, column) on a sheet: vertices [n,3] in mm, faces [m,3], parts u8 [n] or None.

    displacement_mm [n]: how far each vertex has moved from the head number `base` of the edit, NaN where that head has no such
    point; None for a head that nothing is compared with. numbers: `displacement.describe_change` from the base to this head.
    """

    label: str
    row: int
    column: int
    codes: Codes
    vertices_mm: Floats
    faces: Ints
    parts: Labels | None
    template_coords: Floats | None
    part: str | None = None
    amount: float | None = None
    base: int | None = None
    displacement_mm: Floats | None = None
    numbers: dict[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class Edit:
    """The heads of one command in the order of its sheet, and all its numbers (plain JSON)."""

    heads: list[EditedHead]
    numbers: dict[str, Any]


class _Plan(NamedTuple):
    """A head to be decoded: `base` is the number of an earlier one, `changed` the parts whose codes differ from it."""

    step: Step
    row: int
    column: int
    base: int | None = None
    changed: tuple[str, ...] = ()


def swap_heads(model: Field, host: Head, donors: Mapping[str, Head], settings: DecodeSettings | None = None) -> Edit:
    """The host with the named parts of donors: sheet of the host, every donor, and the result, which is compared with the host.

    donors: part (or "exp") → whose. Raises ModelError for a method without part codes, and what `swap_parts` does.
    """
    require_part_codes(model)
    if not donors:
        raise ModelError("swap: name at least one part and its donor")
    codes: Codes = host.codes
    for part, donor in donors.items():
        codes = swap_parts(codes, donor.codes, (part,))
    distinct = {donor.name: donor for donor in donors.values()}
    result = host.name + "".join(f" + {part} of {donor.name}" for part, donor in donors.items())
    plan = [_Plan(Step(host.codes, host.name, None, None), 0, 0)]
    plan += [_Plan(Step(donor.codes, name, None, None), 0, i) for i, (name, donor) in enumerate(distinct.items(), 1)]
    plan.append(_Plan(Step(codes, result, None, None), 0, len(plan), 0, tuple(donors)))
    about = {"host": host.name, "donors": {part: donor.name for part, donor in donors.items()}}
    return _decode_plan(model, "swap", plan, about, settings)


def interpolate_heads(
    model: Field,
    start: Head,
    end: Head,
    order: Sequence[str] = PART_CODES,
    steps: int = 4,
    settings: DecodeSettings | None = None,
) -> Edit:
    """One head into another part after part; a row of the sheet for each part, from the head where that part begins to move.

    Each head is compared with that first head of its row, so that an error map shows what this part's code alone has changed.
    """
    require_part_codes(model, "interpolate")
    heads = interpolate_parts(start.codes, end.codes, order, steps)
    plan = [_Plan(heads[0]._replace(label=start.name), 0, 0)]
    for number, step in enumerate(heads[1:]):
        row, k = divmod(number, steps)
        assert step.part is not None
        plan.append(_Plan(step, row, k + 1, row * steps, (step.part,)))
    about = {"start": start.name, "end": end.name, "order": list(order), "steps": steps}
    return _decode_plan(model, "interpolate", plan, about, settings)


def generate_heads(
    model: Field,
    count: int,
    seed: int,
    parts: Literal["all"] | Sequence[str] = "all",
    base: Head | None = None,
    scale: float = 1.0,
    columns: int = 5,
    settings: DecodeSettings | None = None,
) -> Edit:
    """Random parts on a given head, or whole random faces; compared with that head, or with the mean head, which comes first."""
    drawn = sample_codes(model, count, seed, parts, None if base is None else base.codes, scale)
    first = Head("mean head", mean_codes(model)) if base is None else base
    changed = PART_CODES if parts == "all" else tuple(parts)
    plan = [_Plan(Step(first.codes, first.name, None, None), 0, 0)]
    for i, codes in enumerate(drawn, 1):
        row, column = divmod(i, columns)
        plan.append(_Plan(Step(codes, f"random {i}", None, None), row, column, 0, changed))
    about = {"count": count, "seed": seed, "parts": list(changed), "base": first.name, "scale": scale}
    return _decode_plan(model, "generate", plan, about, settings)


def component_heads(
    model: Field,
    parts: Sequence[str] = PART_CODES,
    components: int = 3,
    sigmas: Sequence[float] = (-3.0, 0.0, 3.0),
    base: Head | None = None,
    settings: DecodeSettings | None = None,
) -> Edit:
    """Principal components of each part: a row of the sheet for each, all compared with the head at 0σ, which comes first.

    The zero of a part is the mean of its codes. With a base, its other parts stay: then each part has its own head at 0σ.
    """
    require_part_codes(model, "analyse")
    _check_parts(parts)
    others = mean_codes(model) if base is None else base.codes
    plan: list[_Plan] = []
    variance: dict[str, list[float]] = {}
    for p, part in enumerate(parts):
        variance[part] = principal_components(model, part).explained[:components].tolist()
        zero = 0
        if p == 0 or base is not None:
            zero = len(plan)
            name = "mean head" if base is None else f"{base.name}, mean {part}"
            step = component_codes(model, part, 0, (0.0,), others)[0]
            plan.append(_Plan(step._replace(label=name, part=None, amount=None), p * (components + 1), 0))
        for k in range(components):
            for column, step in enumerate(component_codes(model, part, k, sigmas, others)):
                plan.append(_Plan(step, p * (components + 1) + k + 1, column, zero, (part,)))
    about = {
        "parts": list(parts),
        "components": components,
        "sigmas": list(sigmas),
        "base": "mean head" if base is None else base.name,
        "explained_variance": variance,
    }
    return _decode_plan(model, "components", plan, about, settings)


def decode_head(model: Field, codes: Codes, label: str, settings: DecodeSettings) -> Decoded:
    """`extract.decode`, whose error about a head without a surface says which head."""
    try:
        return decode(model, codes, resolution=settings.resolution, mode=settings.mode)
    except EmptyFieldError as error:
        raise EmptyFieldError(f"{label}: {error}") from error


def _decode_plan(
    model: Field, command: str, plan: Sequence[_Plan], about: Mapping[str, Any], settings: DecodeSettings | None
) -> Edit:
    settings = settings or DecodeSettings()
    decoded: list[Decoded] = []
    heads: list[EditedHead] = []
    for number, (step, row, column, base, changed) in enumerate(plan):
        # Walks along several components all pass through the same head.
        repeats = base is not None and _same_codes(step.codes, heads[base].codes)
        decoded.append(
            decoded[base] if base is not None and repeats else decode_head(model, step.codes, step.label, settings)
        )
        own, displacement, numbers = decoded[-1], None, None
        if base is not None:
            moved = dense_displacement(decoded[base], own, model.mm_per_unit, settings.tolerance_mm)
            numbers = describe_change(decoded[base], moved, changed)
            back = dense_displacement(own, decoded[base], model.mm_per_unit, settings.tolerance_mm)
            displacement = np.where(back.counted, back.lengths_mm, np.nan)
        heads.append(
            EditedHead(
                label=step.label,
                row=row,
                column=column,
                codes=step.codes,
                vertices_mm=own.mesh.vertices * model.mm_per_unit,
                faces=own.mesh.faces,
                parts=own.parts,
                template_coords=own.template_coords,
                part=step.part,
                amount=step.amount,
                base=base,
                displacement_mm=displacement,
                numbers=numbers,
            )
        )
        if settings.on_head is not None:
            settings.on_head(number + 1, len(plan))
    return Edit(
        heads,
        {
            "command": command,
            **about,
            "mm_per_unit": float(model.mm_per_unit),
            "resolution": settings.resolution,
            "heads": [
                {
                    "label": head.label,
                    "part": head.part,
                    "amount": head.amount,
                    "base": head.base,
                    "change": head.numbers,
                }
                for head in heads
            ],
        },
    )


def _same_codes(one: Codes, other: Codes) -> bool:
    return one.keys() == other.keys() and all(torch.equal(code, other[name]) for name, code in one.items())
