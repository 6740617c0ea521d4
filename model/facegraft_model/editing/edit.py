"""The commands that edit heads: each decodes the heads of its sheet and measures the displacement of every point.

The changes of the codes are in `partcodes`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from facegraft.arrays import Floats, Ints, Labels
from facegraft.parts import Parts
from facegraft.seeds import derived_seed
from facegraft.vocabulary import EXP
from facegraft_model.decoding.decode import Decoded, decode
from facegraft_model.decoding.displacement import TOLERANCE_MM, dense_displacement, describe_change
from facegraft_model.decoding.extract import EmptyFieldError
from facegraft_model.editing.partcodes import (
    Head,
    Step,
    chosen_codes,
    component_codes,
    interpolate_parts,
    mean_codes,
    principal_components,
    require_part_codes,
    sample_codes,
    swap_parts,
)
from facegraft_model.errors import ModelError
from facegraft_model.method import Codes, Field

COMPONENTS = 3
"""Principal components of a part that are shown."""


@dataclass(frozen=True)
class DecodeSettings:
    """resolution: nodes per axis of the extraction grid. tolerance_mm: see `displacement`. on_head(done, all): progress."""

    resolution: int = 256
    mode: Literal["sparse", "dense"] = "sparse"
    tolerance_mm: float = TOLERANCE_MM
    on_head: Callable[[int, int], None] | None = dataclasses.field(default=None, compare=False)


@dataclass(frozen=True, eq=False)
class EditedHead:
    """A decoded head of an edit and its place (row, column) on a sheet: vertices [n,3] in mm, faces [m,3], parts u8 [n] or None.

    displacement_mm [n]: displacement of each vertex from head number `base` of the edit, NaN where that head has no corresponding
    point; None for a head that is not compared. numbers: `displacement.describe_change` from the base to this head.
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
    """The heads of one command in the order of its sheet, all its numbers (plain JSON), and the parts of the heads."""

    heads: list[EditedHead]
    numbers: dict[str, Any]
    parts: Parts


class _Plan(NamedTuple):
    """A head to be decoded: `base` is the number of an earlier one, `changed` the parts whose codes differ from it."""

    step: Step
    row: int
    column: int
    base: int | None = None
    changed: tuple[str, ...] = ()


def swap_heads(field: Field, host: Head, donors: Mapping[str, Head], settings: DecodeSettings | None = None) -> Edit:
    """The host with the named parts of donors: a sheet of the host, every donor, and the result, which is compared with the host.

    donors: the donor of each part (or `vocabulary.EXP`). Raises ModelError for a method without part codes, and the errors
    of `swap_parts`.
    """
    require_part_codes(field)
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
    return _decode_plan(field, "swap", plan, about, settings)


def interpolate_heads(
    field: Field,
    start: Head,
    end: Head,
    order: Sequence[str] | None = None,
    steps: int = 4,
    settings: DecodeSettings | None = None,
) -> Edit:
    """Interpolate from one head to another, one part after another; the sheet has a row for each part.

    order: parts in the order in which they move; None: the order of the cascade, the remainder last.

    Each head is compared with the first head of its row, in which the row's part has not moved yet, so that the map shows the
    change by this part's code. The first head of a row is the last one of the row before, and is so compared with the first head
    of that row: its map shows what the last part has changed.
    """
    require_part_codes(field, "interpolate")
    order = chosen_codes(field, order)
    heads = interpolate_parts(start.codes, end.codes, order, steps)
    plan = [_Plan(heads[0]._replace(label=start.name), 0, 0)]
    for number, step in enumerate(heads[1:]):
        row, k = divmod(number, steps)
        assert step.part is not None
        plan.append(_Plan(step, row, k + 1, row * steps, (step.part,)))
    about = {"start": start.name, "end": end.name, "order": list(order), "steps": steps}
    return _decode_plan(field, "interpolate", plan, about, settings)


def generate_heads(
    field: Field,
    count: int,
    seed: int,
    parts: Sequence[str] | None = None,
    base: Head | None = None,
    scale: float = 1.0,
    columns: int = 5,
    settings: DecodeSettings | None = None,
) -> Edit:
    """Random parts on a given head, or random faces; compared with that head, or with the mean head, which comes first.

    parts: the parts whose codes are drawn; None: all of them.
    """
    require_part_codes(field, "draw")
    changed = chosen_codes(field, parts)
    drawn = sample_codes(field, count, seed, changed, None if base is None else base.codes, scale)
    first = Head("mean head", mean_codes(field)) if base is None else base
    plan = [_Plan(Step(first.codes, first.name, None, None), 0, 0)]
    for i, codes in enumerate(drawn, 1):
        row, column = divmod(i, columns)
        plan.append(_Plan(Step(codes, f"random {i}", None, None), row, column, 0, changed))
    about = {"count": count, "seed": seed, "parts": list(changed), "base": first.name, "scale": scale}
    return _decode_plan(field, "generate", plan, about, settings)


def figure_heads(
    field: Field,
    bases: Sequence[Head],
    draws: int = 2,
    seed: int = 0,
    parts: Sequence[str] | None = None,
    scale: float = 1.0,
    settings: DecodeSettings | None = None,
) -> Edit:
    """For each given head a row of the sheet: the head, then for each part in turn `draws` heads on which only that part is random.

    Each is compared with its own row's head. parts: None for all, the remainder last. A head's draws are its own (by its name): they do
    not depend on which other heads and parts are shown, and more draws only add to them. Raises ModelError for no heads, one given
    twice, and as `sample_codes` does.
    """
    require_part_codes(field, "draw")
    parts = chosen_codes(field, parts)
    names = [base.name for base in bases]
    if not names or len(set(names)) != len(names):
        raise ModelError(f"random parts: give some heads, each once, not {', '.join(names) or 'none'}")
    plan: list[_Plan] = []
    for row, base in enumerate(bases):
        original = len(plan)
        plan.append(_Plan(Step(base.codes, base.name, None, None), row, 0))
        for part in parts:
            drawn = sample_codes(field, draws, derived_seed(seed, "head", base.name), (part,), base.codes, scale)
            for number, codes in enumerate(drawn, 1):
                step = Step(codes, f"{base.name}, {part} {number}", part, None)
                plan.append(_Plan(step, row, len(plan) - original, original, (part,)))
    about = {"bases": names, "draws": draws, "seed": seed, "parts": list(parts), "scale": scale}
    return _decode_plan(field, "generate --figure", plan, about, settings)


def component_heads(
    field: Field,
    parts: Sequence[str] | None = None,
    components: int | None = None,
    sigmas: Sequence[float] = (-3.0, 0.0, 3.0),
    base: Head | None = None,
    settings: DecodeSettings | None = None,
) -> Edit:
    """Principal components of each part: a row of the sheet for each, all compared with the head at 0σ, which comes first.

    parts: None for all, including the remainder; the expression (`vocabulary.EXP`) only where it is named. components: of each part;
    None: COMPONENTS, or as many as its codes have. At 0σ, a part has the mean
    of its codes. With a base, the other parts keep the base's codes, so each part has its own head at 0σ; so has the
    expression, since the mean head is neutral.
    """
    require_part_codes(field, "analyse")
    parts = chosen_codes(field, parts, expression=True)
    others = mean_codes(field) if base is None else base.codes
    plan: list[_Plan] = []
    variance: dict[str, list[float]] = {}
    shared: int | None = None
    first = 0  # row of the sheet
    for part in parts:
        found = principal_components(field, part)
        count = min(COMPONENTS, len(found.sigmas)) if components is None else components
        variance[part] = found.explained[:count].tolist()
        if base is not None or part == EXP or shared is None:
            zero = len(plan)
            name = "mean head" if base is None else base.name
            if base is not None or part == EXP:
                name += f", mean {part}"
            else:
                shared = zero
            step = component_codes(field, part, 0, (0.0,), others)[0]
            plan.append(_Plan(step._replace(label=name, part=None, amount=None), first, 0))
        else:
            zero = shared
        for k in range(count):
            for column, step in enumerate(component_codes(field, part, k, sigmas, others)):
                plan.append(_Plan(step, first + k + 1, column, zero, (part,)))
        first += count + 1
    about = {
        "parts": list(parts),
        "components": {part: len(explained) for part, explained in variance.items()},
        "sigmas": list(sigmas),
        "base": "mean head" if base is None else base.name,
        "explained_variance": variance,
    }
    return _decode_plan(field, "components", plan, about, settings)


def decode_head(field: Field, codes: Codes, label: str, settings: DecodeSettings) -> Decoded:
    """`extract.decode`; its error for a head without a surface also names the head."""
    try:
        return decode(field, codes, resolution=settings.resolution, mode=settings.mode)
    except EmptyFieldError as error:
        raise EmptyFieldError(f"{label}: {error}") from error


def _decode_plan(
    field: Field, command: str, plan: Sequence[_Plan], about: Mapping[str, Any], settings: DecodeSettings | None
) -> Edit:
    settings = settings or DecodeSettings()
    decoded: list[Decoded] = []
    heads: list[EditedHead] = []
    for number, (step, row, column, base, changed) in enumerate(plan):
        # Walks along different components share the head at 0.
        repeats = base is not None and _same_codes(step.codes, heads[base].codes)
        decoded.append(
            decoded[base] if base is not None and repeats else decode_head(field, step.codes, step.label, settings)
        )
        own, displacement, numbers = decoded[-1], None, None
        if base is not None:
            moved = dense_displacement(field, decoded[base], own, step.codes, settings.tolerance_mm)
            numbers = describe_change(decoded[base], moved, changed, field.parts)
            back = dense_displacement(field, own, decoded[base], heads[base].codes, settings.tolerance_mm)
            displacement = np.where(back.counted, back.lengths_mm, np.nan)
        heads.append(
            EditedHead(
                label=step.label,
                row=row,
                column=column,
                codes=step.codes,
                vertices_mm=own.mesh.vertices * field.mm_per_unit,
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
            "mm_per_unit": float(field.mm_per_unit),
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
        field.parts,
    )


def _same_codes(one: Codes, other: Codes) -> bool:
    return one.keys() == other.keys() and all(torch.equal(code, other[name]) for name, code in one.items())
