"""Choose the items that the page shows: the same ones for the same data, spread over the whole dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from facegraft.heads.names import natural_key
from facegraft.parts import Parts
from facegraft.vocabulary import NEUTRAL

T = TypeVar("T")
Row = Mapping[str, Any]


def spread(things: Sequence[T], count: int) -> list[T]:
    """At most `count` of the things, evenly spaced and including the first."""
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
    kinds = sorted(order, key=lambda name: name != NEUTRAL)
    return spread(names, subjects), kinds[:1] + spread(kinds[1:], expressions - 1), keys


def composites_shown(rows: Sequence[Row], parts: Parts, count: int) -> list[Row]:
    """Composites of one donor, then of several donors, about half of each if there are both; self-grafts only if there are no others."""
    others = [row for row in rows if not parts.is_self_graft(row)]
    if not others:
        return spread(rows, count)
    donors = {row["key"]: {row[column] for column in parts.donor_columns.values()} for row in others}
    single = [row for row in others if len(donors[row["key"]]) == 1]
    mixed = [row for row in others if len(donors[row["key"]]) > 1]
    many = min(len(mixed), max(count // 2, count - len(single)))
    most = max((len(donors[row["key"]]) for row in mixed), default=0)
    all_different = [row for row in mixed if len(donors[row["key"]]) == most]
    return spread(single, count - many) + spread(all_different if len(all_different) >= many else mixed, many)


def composites_measured(rows: Sequence[Row], parts: Parts, count: int) -> list[Row]:
    """Composites (not self-grafts) over which seams are averaged."""
    return spread([row for row in rows if not parts.is_self_graft(row)], count)


def composites_of_one_host(rows: Sequence[Row], parts: Parts, count: int) -> list[Row]:
    """At most `count` composites that have all their parts from one donor, each another, on the same recipient: the first of those that
    have most; empty where no recipient has any."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        donors = {row[column] for column in parts.donor_columns.values()}
        if len(donors) == 1 and not parts.is_self_graft(row):
            found.setdefault(row["recipient"], {}).setdefault(donors.pop(), row)
    best = max(found.values(), key=len, default={})
    return list(best.values())[:count]
