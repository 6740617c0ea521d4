"""How far the heads of a set reach, by which the scale of all is chosen: does one subject alone decide it?"""

from __future__ import annotations

from collections.abc import Mapping

from facegraft.heads.typical import FEWEST

ONE_DECIDES = 1.10
"""Ratio of the largest head's radius to the second's from which on that one subject decides (among 200 random heads it is below 1.02)."""


def largest_two(radii: Mapping[str, float]) -> tuple[str, float, float] | None:
    """(subject, its radius, the second largest radius) of radii in mm by subject; None for fewer than two."""
    if len(radii) < 2:
        return None
    ordered = sorted(radii, key=lambda subject: (-radii[subject], subject))
    return ordered[0], radii[ordered[0]], radii[ordered[1]]


def one_decides(radii: Mapping[str, float]) -> str | None:
    """One line where the largest head alone decides the size of the unit ball for all; None where it does not, or there are fewer than three."""
    found = largest_two(radii)
    if found is None or len(radii) < FEWEST or found[1] <= ONE_DECIDES * found[2]:
        return None
    subject, largest, second = found
    return (
        f"subject {subject} alone decides the scale of all heads: its skin reaches {largest:.0f} mm from the middle of the head, {largest / second - 1:.0%} farther "
        f"than the next largest ({second:.0f} mm; up to {ONE_DECIDES - 1:.0%} is usual); look at it, and leave it out where it is no sound head"
    )
