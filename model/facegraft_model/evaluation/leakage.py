"""Leakage: displacement outside a part, relative to inside, when only the part's code changes (0: nothing moves outside)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from facegraft.vocabulary import REM
from facegraft_model.decoding.decode import Decoded
from facegraft_model.decoding.displacement import UNMOVED_MM, dense_displacement, describe_change
from facegraft_model.editing.edit import DecodeSettings, decode_head
from facegraft_model.editing.partcodes import Head, named_rng, no_part, require_part_codes, swap_parts
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.bootstrap import Interval, bootstrap
from facegraft_model.method import Codes, Field

Progress = Callable[[int, int], None]
"""Called with the number of finished pairs and the total."""

DEFINITION = (
    "only one part's code changes from that of head a to that of head b; rms displacement of the vertices of the decoded "
    "head a that are not of the part, divided by that of those that are; weighted by area; displacement by dense correspondence "
    "through the template (each vertex followed to the point with its template coordinates; where that fails, the nearest point of the "
    "changed mesh laid out in template space); outside: all other labels within the unit ball, neck and cut surface included; vertices whose "
    "correspondence is farther than template_tolerance_mm in template space are left out of both (excluded_percent)"
)


@dataclass(frozen=True)
class Leakage:
    """Displacement in mm (rms by area) inside and outside a part whose code was changed, over n_inside and n_outside vertices.

    ratio: outside ÷ inside; None where the part itself does not move (less than `displacement.UNMOVED_MM`).
    excluded_percent: share of the head's area without a counterpart within the tolerance; of the part's, excluded_inside_percent.
    """

    host: str
    donor: str
    part: str
    ratio: float | None
    inside_mm: float
    outside_mm: float
    n_inside: int
    n_outside: int
    excluded_percent: float
    excluded_inside_percent: float


def leakage(field: Field, codes_a: Codes, codes_b: Codes, part: str, settings: DecodeSettings | None = None) -> Leakage:
    """Leakage of one part between two heads; only its code changes, from that of a to that of b. Codes [1,d].

    Displacement is that of the vertices of the decoded a to the points of the changed head with the same template coordinates.
    Inside: the vertices of a labelled as the part. Outside: *all* others within the unit ball: the other parts, the remainder,
    the neck and its cap, up to the part's border, without a margin. RMS are weighted by area. Vertices whose counterpart is
    farther than `tolerance_mm` away in template space are left out of both.
    Raises ModelError for the remainder, whose code moves everything by design, and for a part without comparable vertices.
    """
    settings = settings or DecodeSettings()
    require_part_codes(field)
    check_grafted(field, part)
    return _leakage(
        field, Head("a", codes_a), Head("b", codes_b), part, decode_head(field, codes_a, "a", settings), settings
    )


@dataclass(frozen=True)
class LeakageSummary:
    """Leakage of one part over pairs: mean ratio with its interval over hosts, pooled ratio, and the number of pairs without a ratio."""

    part: str
    ratio: Interval | None
    pooled: float | None
    inside_mm: float
    outside_mm: float
    n_pairs: int
    n_hosts: int
    unmoved: int
    excluded_percent: float

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": None if self.ratio is None else self.ratio.to_json()}


@dataclass(frozen=True)
class LeakageStudy:
    """Leakage of each part, with the values of every pair."""

    parts: dict[str, LeakageSummary]
    pairs: list[Leakage]
    settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {
            "settings": self.settings,
            "parts": {name: summary.to_json() for name, summary in self.parts.items()},
            "pairs": [asdict(pair) for pair in self.pairs],
        }


def leakage_study(
    field: Field,
    heads: Sequence[Head],
    *,
    parts: Sequence[str] | None = None,
    pairs: int = 20,
    seed: int = 0,
    settings: DecodeSettings | None = None,
    bootstrap_rounds: int = 2000,
    progress: Progress | None = None,
) -> LeakageStudy:
    """Leakage of each part (None: of all) over `pairs` ordered pairs of heads, chosen by `choose_pairs`: all parts use the same pairs.

    The interval is that of the mean over pairs under resampling of hosts. Pairs in which the part does not move are counted as
    `unmoved` and have no ratio: a code without effect does not leak, but is not a success either.
    """
    settings = settings or DecodeSettings()
    require_part_codes(field)
    parts = field.parts.names if parts is None else parts
    for part in parts:
        check_grafted(field, part)
    chosen = sorted(choose_pairs(len(heads), pairs, seed))
    found: list[Leakage] = []
    host_number, base = -1, None
    for done, (a, b) in enumerate(chosen):
        if base is None or host_number != a:
            host_number, base = a, decode_head(field, heads[a].codes, heads[a].name, settings)
        found += [_leakage(field, heads[a], heads[b], part, base, settings) for part in parts]
        if progress is not None:
            progress(done + 1, len(chosen))
    return LeakageStudy(
        {part: _summary(part, [pair for pair in found if pair.part == part], seed, bootstrap_rounds) for part in parts},
        found,
        {
            "pairs": len(chosen),
            "heads": len(heads),
            "seed": seed,
            "resolution": settings.resolution,
            "template_tolerance_mm": settings.tolerance_mm,
            "mm_per_unit": float(field.mm_per_unit),
            "bootstrap_rounds": bootstrap_rounds,
            "definition": DEFINITION,
        },
    )


def choose_pairs(heads: int, count: int, seed: int) -> list[tuple[int, int]]:
    """`count` different ordered pairs (host, donor), or all possible ones; every head is host equally often, to within one."""
    if heads < 2 or count < 1:
        raise ModelError(f"pairs of heads: needs at least 2 heads and 1 pair, not {heads} and {count}")
    rng = named_rng(seed, "pairs")
    order, shifts = rng.permutation(heads), 1 + rng.permutation(heads - 1)
    pairs = [(int(order[i]), int(order[(i + shift) % heads])) for shift in shifts for i in range(heads)]
    return pairs[:count]


def _leakage(field: Field, a: Head, b: Head, part: str, base: Decoded, settings: DecodeSettings) -> Leakage:
    what = f"{a.name} with the {part} of {b.name}"
    codes = swap_parts(a.codes, b.codes, (part,))
    other = decode_head(field, codes, what, settings)
    moved = dense_displacement(field, base, other, codes, settings.tolerance_mm)
    change = describe_change(base, moved, (part,), field.parts)
    inside, outside = change["inside"], change["outside"]
    for name, region in (("inside", inside), ("outside", outside)):
        if region["rms_mm"] is None:
            raise ModelError(
                f"{what}: nothing {name} the part corresponds within {settings.tolerance_mm:g} mm ({region['area_mm2']:.0f} mm² are labelled so); "
                "raise the resolution or the tolerance, or train longer"
            )
    excluded = 100.0 * float(moved.areas_mm2[~moved.counted].sum() / moved.areas_mm2.sum())
    return Leakage(
        a.name,
        b.name,
        part,
        change["leakage"],
        inside["rms_mm"],
        outside["rms_mm"],
        inside["n"],
        outside["n"],
        excluded,
        inside["excluded_percent"],
    )


def _summary(part: str, pairs: Sequence[Leakage], seed: int, rounds: int) -> LeakageSummary:
    measured = [pair for pair in pairs if pair.ratio is not None]
    inside, outside = (
        float(np.sqrt(np.mean([value**2 for value in values])))
        for values in ([pair.inside_mm for pair in pairs], [pair.outside_mm for pair in pairs])
    )
    ratio = None
    if measured:
        values = {"ratio": np.array([pair.ratio for pair in measured], dtype=np.float64)}
        ratio = bootstrap(values, [pair.host for pair in measured], named_rng(seed, "bootstrap"), rounds)["ratio"]
    return LeakageSummary(
        part,
        ratio,
        outside / inside if inside >= UNMOVED_MM else None,
        inside,
        outside,
        len(pairs),
        len({pair.host for pair in pairs}),
        len(pairs) - len(measured),
        float(np.mean([pair.excluded_percent for pair in pairs])),
    )


def check_grafted(field: Field, part: str) -> None:
    """Raises ModelError for the remainder, which is never grafted, and for a part that the model does not have."""
    if part == REM:
        raise ModelError(
            f"leakage is defined for {', '.join(field.parts)}, not {part!r}: the remainder's code moves the parts along with the face"
        )
    if part not in field.parts:
        raise ModelError(no_part(part, field.parts.names))
