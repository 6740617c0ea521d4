"""Bounds of a configuration's numbers, declared at each field and checked in one place.

Every number must be finite and not negative; `positive`, `at_least` and `below` are stricter.
"""

from __future__ import annotations

import math
from dataclasses import field, fields
from typing import Any

from facegraft_model.errors import ModelError


def positive(default: float | None) -> Any:
    """A field whose value is above 0."""
    return field(default=default, metadata={"positive": True})


def at_least(least: float, default: float, why: str) -> Any:
    """A field whose value is `least` or more. why: the end of the message."""
    return field(default=default, metadata={"least": least, "why": why})


def below(limit: float, default: float) -> Any:
    """A field whose value is below `limit`."""
    return field(default=default, metadata={"below": limit})


def added(default: Any, **known: Any) -> Any:
    """A field that configurations of earlier versions lack; they did what its default says. known: its bounds, as `positive=True`."""
    return field(default=default, metadata={"added": True, **known})


def check_bounds(group: Any, name: str) -> None:
    """Raises ModelError for the first number of a dataclass that is out of its bounds. name: of the group, for the message."""
    for item in fields(group):
        value, known = getattr(group, item.name), item.metadata
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        what = f"{name}.{item.name}"
        if known.get("positive") and value <= 0:
            otherwise = "; leave it out (none) for its default" if item.default is None else ""
            raise ModelError(f"{what} must be positive, but is {value:g}{otherwise}")
        if value < 0 or not math.isfinite(value):
            raise ModelError(f"{what} must not be negative or infinite, but is {value}")
        if "least" in known and value < known["least"]:
            raise ModelError(f"{what} must be at least {known['least']}, but is {value}: {known['why']}")
        if "below" in known and value >= known["below"]:
            raise ModelError(f"{what} must be below {known['below']:g}, but is {value}")
