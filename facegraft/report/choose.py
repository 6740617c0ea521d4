"""Which items the page shows: the same ones for the same data, spread over the whole dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from facegraft.heads.names import natural_key
from facegraft.report.gather import is_self_graft

T = TypeVar("T")
Row = Mapping[str, Any]


def spread(things: Sequence[T], count: int) -> list[T]:
    """At most `count` of the things, evenly spaced, the first among them."""
    if len(things) <= count:
        return list(things)
    return [things[i * len(things) // count] for i in range(count)]


def heads_grid(
    rows: Sequence[Row], subjects: int, expressions: int
) -> tuple[list[str], list[str], dict[tuple[str, str], str]]:
    """(subjects, expressions, {(subject, expression): key}) of a contact sheet of heads, neutral first."""
    keys = {(row["subject"], row["expression"]): row["key"] for row in rows}
    names = sorted({row["subject"] for row in rows}, key=natural_key)
    order: dict[str, None] = {}
    for row in sorted(rows, key=lambda row: natural_key(row["key"])):
        order.setdefault(row["expression"])
    kinds = sorted(order, key=lambda name: name != "neutral")
    return spread(names, subjects), kinds[:1] + spread(kinds[1:], expressions - 1), keys


def composites_shown(rows: Sequence[Row], count: int) -> list[Row]:
    """Composites of one donor, then such of several, about half of each where both are there; self-grafts only for want of others."""
    others = [row for row in rows if not is_self_graft(row)]
    if not others:
        return spread(rows, count)
    single = [row for row in others if row["donor_nose"] == row["donor_eyes"] == row["donor_mouth"]]
    mixed = [row for row in others if not (row["donor_nose"] == row["donor_eyes"] == row["donor_mouth"])]
    many = min(len(mixed), max(count // 2, count - len(single)))
    all_different = [row for row in mixed if len({row["donor_nose"], row["donor_eyes"], row["donor_mouth"]}) == 3]
    return spread(single, count - many) + spread(all_different if len(all_different) >= many else mixed, many)


def composites_measured(rows: Sequence[Row], count: int) -> list[Row]:
    """Composites (not self-grafts) over which seams are averaged."""
    return spread([row for row in rows if not is_self_graft(row)], count)
