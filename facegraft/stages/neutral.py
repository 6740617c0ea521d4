"""Which heads of a dataset are neutral: parts are grafted between them, and they fix a subject's frame."""

from __future__ import annotations

import logging

from facegraft.errors import FacegraftError
from facegraft.store import Dataset
from facegraft.vocabulary import NEUTRAL

log = logging.getLogger("facegraft")


class NeutralError(FacegraftError):
    """A dataset without neutral heads."""


def neutral_keys(heads: Dataset) -> dict[str, tuple[str, str]]:
    """For each subject, (key of its neutral head, split). A subject without a neutral head cannot be grafted: it is left
    out, with a warning. Raises NeutralError where no subject has one.
    """
    rows = [row for row in heads.index.to_pylist() if row["status"] == "written"]
    neutral = {row["subject"]: (row["key"], row["split"]) for row in rows if row["expression"] == NEUTRAL}
    without = sorted({row["subject"] for row in rows} - set(neutral))
    if not neutral:
        raise NeutralError("the heads hold no neutral expression; grafts are made between neutral heads")
    if without:
        log.warning("%d subjects without a neutral head are left out: %s", len(without), ", ".join(without[:10]))
    return neutral
