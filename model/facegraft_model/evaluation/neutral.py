"""The fits of neutral scans, between which parts are exchanged to measure disentanglement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from facegraft.vocabulary import EXP, SCAN
from facegraft_model.editing.partcodes import Head
from facegraft_model.errors import ModelError


def fitted_neutral(items: Sequence[Mapping[str, Any]], neutral: str) -> dict[str, int]:
    """By subject, the row of the fit of the neutral scan. Raises ModelError when a subject has two."""
    fitted: dict[str, int] = {}
    for row, item in enumerate(items):
        if item["origin"] != SCAN or item["expression"] != neutral:
            continue
        if item["subject"] in fitted:
            raise ModelError(
                f"the fits hold two neutral scans of subject {item['subject']!r} ({items[fitted[item['subject']]]['key']} and {item['key']}); keep one"
            )
        fitted[str(item["subject"])] = row
    return fitted


def neutral_heads(items: Sequence[Mapping[str, Any]], codes: Mapping[str, Tensor], neutral: str) -> list[Head]:
    """The fitted neutral heads by subject, without expression; for `leakage_study`."""
    return [
        Head(subject, {name: one_head(codes, name, row) for name in codes if name != EXP})
        for subject, row in sorted(fitted_neutral(items, neutral).items())
    ]


def one_head(codes: Mapping[str, Tensor], name: str, row: int) -> Tensor:
    """The code [1,d] of one fit, from codes [I,d]."""
    return codes[name][row : row + 1]
