"""What looks odd in a set of heads, as a table: the same measures before ingest (the page of `--check`) and after it (the report)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from facegraft.heads.oddities import Statistic, listed
from facegraft.report.blocks import Block, Table, Text

NAMED = 20


def odd_blocks(found: Sequence[Statistic], rejects: Mapping[str, Sequence[str]]) -> list[Block]:
    """Each measure with its bound and the heads beyond it; rejects: keys by reason."""
    table = [[one.what, one.found, one.bound, f"✗ {listed(one.odd, NAMED)}" if one.odd else "✓ none" if one.bound != "–" else "–"] for one in found]
    blocks: list[Block] = [Table(["measure", "found", "bound", "odd"], table)]
    if rejects:
        told = [[str(len(keys)), reason, listed(list(keys), NAMED)] for reason, keys in rejects.items()]
        blocks += [Text("Rejected heads."), Table(["heads", "reason", "keys"], told, numeric=(0,))]
    if not rejects and not any(one.odd for one in found):
        blocks.insert(0, Text("Nothing looks odd."))
    return blocks
