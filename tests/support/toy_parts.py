"""Parts for toy datasets: those of most tests, and any number of others."""

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


def made_up(count: int) -> Parts:
    """So many parts (13 at most) that no code has heard of, each around five landmarks in a row."""
    entries = [Part(f"patch_{chr(97 + number)}", tuple(range(5 * number, 5 * number + 5))) for number in range(count)]
    return Parts(f"patches{count}", tuple(entries))
