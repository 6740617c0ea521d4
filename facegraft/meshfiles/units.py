"""Which unit a file is in, by the size of what is in it."""

from __future__ import annotations

import math

from facegraft.vocabulary import UNITS


def likely_units(length: float, mm_per_unit: float, mean: float, accepted: tuple[float, float]) -> list[float]:
    """Units (mm) other than `mm_per_unit` in which a length would be one that is accepted, the nearest to the mean first.

    length: in mm, as read with mm_per_unit. mean, accepted: in mm.
    """
    if not (length > 0 and math.isfinite(length)):
        return []
    nearest = sorted(UNITS, key=lambda unit: abs(math.log(unit * length / mm_per_unit / mean)))
    return [unit for unit in nearest if unit != mm_per_unit and accepted[0] <= unit * length / mm_per_unit <= accepted[1]]


def unit_advice(units: list[float], option: str, mm_per_unit: float) -> str:
    """What to say about a file of one of `likely_units`. option: that sets the unit, up to its value (`mm_per_unit=`)."""
    first, *others = units
    also = "".join(f", or {option}{unit:g} if it is in {UNITS[unit]}" for unit in others[:1])
    return f"the file seems to be in {UNITS[first]}; give {option}{first:g}{also} (it was read with {mm_per_unit:g})"
