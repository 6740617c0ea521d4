"""Operations on the codes of parts: swap, interpolate one part after another, draw at random, walk along components.

Pure functions of codes [1,d] by name; `edit` decodes the results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from facegraft.errors import nearest, printable
from facegraft.parts import Parts
from facegraft.seeds import derived_seed
from facegraft.vocabulary import EXP, REM
from facegraft_model.errors import ModelError
from facegraft_model.method import Codes, Field


class Head(NamedTuple):
    """A head by its name and codes, each [1,d]."""

    name: str
    codes: Codes


class Step(NamedTuple):
    """One head of an edit: its codes, its label, the part that changes (None: no part), and the amount (t, or sigmas)."""

    codes: Codes
    label: str
    part: str | None
    amount: float | None


def part_codes(parts: Parts) -> tuple[str, ...]:
    """Names of the codes of a neutral head, in the order of the cascade: the parts, then the remainder."""
    return (*parts, REM)


def has_part_codes(field: Field) -> bool:
    """Whether a method's heads are made of parts."""
    return set(part_codes(field.parts)) <= set(field.code_dims)


def require_part_codes(field: Field, purpose: str = "swap") -> None:
    """Raises ModelError for a method whose heads are not made of parts."""
    if not has_part_codes(field):
        raise ModelError(
            f"this run's method is {field.config.model.method}: it has no part codes to {purpose}; take a run of preset paper or facegraft"
        )


def trained_head(field: Field, subject: str) -> Head:
    """The neutral head of a training subject. Raises DataError for a subject that the model was not trained on."""
    require_part_codes(field, "edit")
    row = field.id_table.subject(subject)
    return Head(subject, {name: field.tables[name].detach()[row : row + 1] for name in part_codes(field.parts)})


def mean_codes(field: Field) -> dict[str, Tensor]:
    """Codes [1,d] of the mean head: neutral, with the mean of the trained codes for every part."""
    require_part_codes(field, "average")
    return {name: _like_table(field, name, field.code_statistics(name).mean[None]) for name in part_codes(field.parts)}


def swap_parts(host: Codes, donor: Codes, parts: Sequence[str]) -> dict[str, Tensor]:
    """The host's codes, with those of the named parts taken from the donor; the expression can be named too.

    Raises ModelError for a part that the host or the donor has no code for, or for codes of different sizes.
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


def interpolate_parts(start: Codes, end: Codes, order: Sequence[str], steps: int = 4) -> list[Step]:
    """Interpolate the codes linearly, one part after another: the start, then `steps` heads for each part of `order`.

    Each part moves from t = 1/steps to 1 and stays there while the next ones move. Codes not in `order` keep the start's values.
    Raises ModelError for a part without a code, one named twice, or no steps.
    """
    if steps < 1 or not order or len(set(order)) != len(order):
        raise ModelError(
            f"interpolation takes at least one step and each part once, not {steps} steps of {list(order)}"
        )
    swap_parts(start, end, order)  # raises for codes that do not match
    result = [Step(dict(start), "start", None, None)]
    reached = dict(start)
    for name in order:
        for k in range(1, steps + 1):
            # The last step takes the end's code itself, without rounding.
            code = end[name] if k == steps else torch.lerp(start[name], end[name], k / steps)
            result.append(Step({**reached, name: code}, f"{name} {k}/{steps}", name, k / steps))
        reached[name] = end[name]
    return result


def sample_codes(
    field: Field,
    count: int,
    seed: int,
    parts: Sequence[str] | None = None,
    base: Codes | None = None,
    scale: float = 1.0,
) -> list[dict[str, Tensor]]:
    """`count` heads whose named parts (None: all of them) are drawn from the Gaussian of the trained codes; codes [1,d].

    z = μ + scale · Σ^½ ε, with Σ^½ the symmetric root from the eigen-decomposition of the covariance: unlike a Cholesky factor it
    exists for fewer heads than dimensions, and it does not depend on the signs of the eigenvectors. The other codes are
    those of `base` (including its expression), or the mean head's. Every part has its own random numbers: naming more parts does
    not change a part's draws, and a larger count only adds to them. Raises ModelError for unknown parts or a count below 1.
    """
    require_part_codes(field, "draw")
    chosen = chosen_codes(field, parts)
    if count < 1 or seed < 0 or scale < 0:
        raise ModelError(f"count must be at least 1, seed and scale not negative, not {count}, {seed} and {scale}")
    drawn = {}
    for name in chosen:
        mean, covariance = field.code_statistics(name)
        values, vectors = torch.linalg.eigh(covariance.double().cpu())
        root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
        noise = named_rng(seed, "codes", name).standard_normal((count, len(mean)))
        drawn[name] = _like_table(field, name, mean.double().cpu() + scale * torch.from_numpy(noise) @ root)
    others = mean_codes(field) if base is None else base
    return [{**others, **{name: code[i : i + 1] for name, code in drawn.items()}} for i in range(count)]


@dataclass(frozen=True, eq=False)
class Components:
    """Principal components of the trained codes of one part, the strongest first: mean [d], directions [k,d], sigmas [k], f64.

    Only components with variance are kept: at most one fewer than the number of heads. The largest entry of a direction is positive.
    """

    mean: Tensor
    directions: Tensor
    sigmas: Tensor

    @property
    def explained(self) -> Tensor:
        """Share [k] of the variance."""
        return self.sigmas**2 / (self.sigmas**2).sum()


def principal_components(field: Field, name: str) -> Components:
    """PCA of the code table of a part, or of the expression. Raises ModelError for an unknown part, or codes that are all the same."""
    require_part_codes(field, "analyse")
    chosen_codes(field, (name,), expression=True)
    table = field.tables[name].detach().double().cpu()
    mean = table.mean(0)
    _, values, directions = torch.linalg.svd(table - mean, full_matrices=False)
    kept = values > 1e-6 * values[0] if len(table) > 1 else torch.zeros_like(values, dtype=torch.bool)
    if not kept.any():
        raise ModelError(f"all trained codes of part {name!r} are the same, so they have no principal components")
    directions = directions[kept]
    signs = directions.gather(1, directions.abs().argmax(1, keepdim=True)).sign()
    return Components(mean, directions * signs, values[kept] / (len(table) - 1) ** 0.5)


def component_codes(
    field: Field, part: str, component: int, sigmas: Sequence[float] = (-3.0, 0.0, 3.0), base: Codes | None = None
) -> list[Step]:
    """Heads whose part has the code μ + s σ_k u_k for each s of `sigmas`; the other codes are those of `base`, or the mean head's.

    component k counts from 0. Raises ModelError for a component that the codes do not have.
    """
    found = principal_components(field, part)
    if not 0 <= component < len(found.sigmas):
        raise ModelError(
            f"part {part!r} has no component {component + 1}: its trained codes vary in {len(found.sigmas)} directions; ask for as many components"
        )
    others = mean_codes(field) if base is None else base
    along = found.sigmas[component] * found.directions[component]
    return [
        Step(
            {**others, part: _like_table(field, part, (found.mean + s * along)[None])},
            f"{part} {component + 1} {s:+g}σ",
            part,
            float(s),
        )
        for s in sigmas
    ]


def named_rng(seed: int, *purpose: str | int) -> np.random.Generator:
    """A separate stream of random numbers for every purpose, so that draws do not depend on each other."""
    return np.random.default_rng(derived_seed(seed, *purpose))


def _like_table(field: Field, name: str, code: Tensor) -> Tensor:
    table = field.tables[name]
    return code.to(device=table.device, dtype=table.dtype)


def chosen_codes(field: Field, names: Sequence[str] | None, *, expression: bool = False) -> tuple[str, ...]:
    """The named codes, or all of `part_codes`. expression: `vocabulary.EXP` may be named too.

    Raises ModelError for a part that the model does not have, one named twice, or no name.
    """
    known = part_codes(field.parts)
    chosen = known if names is None else tuple(names)
    for name in chosen:
        if expression and name == EXP:
            if EXP not in field.tables:
                raise ModelError(f"the model has no expression code; its codes are {', '.join(field.code_dims)}")
        elif name not in known:
            raise ModelError(no_part(name, known))
    if not chosen or len(set(chosen)) != len(chosen):
        raise ModelError(f"name some of the parts {', '.join(known)}, each once, not {', '.join(chosen) or 'nothing'}")
    return chosen


def no_part(name: str, known: Sequence[str]) -> str:
    """The message for a part that the model does not have, with the most similar part or the list of parts."""
    listed = ", ".join(known)
    return f"the model has no part {printable(name)!r}{nearest(name, known, f'its parts are {listed}')}"
