"""The parts of most toy datasets; others are made by `facegraft_model.testing.made_up_parts`."""

from __future__ import annotations

from facegraft.parts import Part, Parts

EYES = Parts(
    "eyes",
    (
        Part("nose", (27, 30, 31, 33, 35)),
        Part("eyes", (36, 39, 42, 45, 27)),
        Part("mouth", (48, 51, 54, 57, 62)),
    ),
)
"""Three parts, called as those of the shipped region set `eyes`, around landmarks of our own."""


def head_row(subject: str, expression: str = "neutral", donor: str | None = None) -> dict[str, str]:
    """What an index row says of a head whose parts all come from one donor (default: its own)."""
    donors = dict.fromkeys(EYES.donor_columns.values(), donor or subject)
    return {"subject": subject, "recipient": subject, **donors, "expression": expression}
