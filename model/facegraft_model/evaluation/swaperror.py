"""Swap error: heads decoded from a host's codes with donors' part codes, scored against the geometric grafts of the same heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from facegraft.arrays import Floats
from facegraft.vocabulary import COMPOSITE, TEST
from facegraft_model.data.ids import written_rows
from facegraft_model.data.items import neutral_expression
from facegraft_model.editing.partcodes import named_rng, part_codes, require_part_codes
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.leakage import check_grafted
from facegraft_model.evaluation.neutral import fitted_neutral, one_head
from facegraft_model.evaluation.records import Scores, ScoreSettings
from facegraft_model.evaluation.score import decode_items, evaluate
from facegraft_model.evaluation.truth import Truth
from facegraft_model.method import Codes, Field

DEFINITION = (
    "codes of a host with the part codes of donors, decoded without expression and scored like any reconstruction, against "
    "the graft of the same heads as geometry; all heads held out, their codes fitted to their own neutral scans"
)


def swap_error(
    field: Field,
    items: Sequence[Mapping[str, Any]],
    codes: Mapping[str, Tensor],
    truth: Truth,
    *,
    parts: Sequence[str] | None = None,
    split: str = TEST,
    pairs: int | None = None,
    seed: int = 0,
    to_model: Floats | None = None,
    resolution: int = 256,
    settings: ScoreSettings | None = None,
    method: str = "",
    training_seed: int | None = None,
    on_head: Callable[[Any], None] | None = None,
) -> Scores:
    """Scores of swapped codes against the grafts of the same heads: full and by part, with floors and intervals.

    items, codes {name: [I,d]}, to_model [I,4,4] or None: fits of scans, row by row; only neutral scans are used (`fitted_neutral`).
    The truth is every composite of `split` in the samples whose recipient and donors differ and all have a fit, or `pairs` of them
    chosen by the seed. The reconstruction is decoded from the recipient's codes, without expression, with the codes of `parts` taken
    from the donors of that composite; parts: None for all; () swaps nothing and gives the distance of the recipient from its grafts.
    The graft is in the recipient's frame, so the recipient's alignment (to_model) applies to it too.
    Scores.record["swap"] has the numbers of composites: all, used, and without a fit. Raises ModelError where none can be used.
    """
    require_part_codes(field)
    parts = field.parts.names if parts is None else parts
    for part in parts:
        check_grafted(field, part)
    fitted = fitted_neutral(items, neutral_expression(truth.samples))
    grafts, lacking = _grafts(truth, split, fitted)
    if not grafts:
        raise ModelError(
            f"{truth.samples.path}: no composite of split {split!r} whose recipient and donors all have a fitted neutral scan "
            f"({len(fitted)} have, {lacking} composites lack one); fit the neutral scans of that split first"
        )
    used = grafts
    if pairs is not None and pairs < len(grafts):
        used = [grafts[i] for i in np.sort(named_rng(seed, "grafts").permutation(len(grafts))[:pairs])]

    def codes_of(i: int) -> Codes:
        row = used[i]
        swapped = {name: one_head(codes, name, fitted[row["recipient"]]) for name in part_codes(field.parts)}
        for part in parts:
            swapped[part] = one_head(codes, part, fitted[row[truth.parts.donor_columns[part]]])
        return swapped

    alignments = None if to_model is None else np.stack([to_model[fitted[row["recipient"]]] for row in used])
    return evaluate(
        decode_items(field, used, codes_of, truth, resolution=resolution, to_model=alignments),
        truth,
        settings or ScoreSettings(),
        method=method or f"{field.config.preset}, swapped codes",
        landmarks="none",
        resolution=resolution,
        training_seed=training_seed,
        record={
            "swap": {
                "definition": DEFINITION,
                "parts": list(parts),
                "split": split,
                "composites": len(grafts) + lacking,
                "composites_without_fit": lacking,
                "composites_used": len(used),
                "chosen_with_seed": seed if len(used) < len(grafts) else None,
                "subjects": len({row["recipient"] for row in used}),
            }
        },
        on_head=on_head,
    )


def _grafts(truth: Truth, split: str, fitted: Mapping[str, int]) -> tuple[list[dict[str, Any]], int]:
    """Composites with other subjects' parts, all of whose subjects are fitted, by key; and the number in the split that lack a fit."""
    grafts, lacking = [], 0
    rows = written_rows(truth.samples.index, truth.parts, split).to_pylist()
    for row in sorted(rows, key=lambda row: str(row["key"])):
        if row["origin"] != COMPOSITE or truth.parts.is_self_graft(row):
            continue
        people = {row[column] for column in truth.parts.head_columns}
        if people <= fitted.keys():
            grafts.append(row)
        else:
            lacking += 1
    return grafts, lacking
