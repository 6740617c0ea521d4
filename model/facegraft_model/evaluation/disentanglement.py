"""Disentanglement of the parts' codes of fitted heads: leakage, swap error and predictability, and their table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from facegraft_model.decoding.extract import EmptyFieldError
from facegraft_model.editing.edit import DecodeSettings
from facegraft_model.editing.partcodes import has_part_codes
from facegraft_model.evaluation.leakage import leakage_study
from facegraft_model.evaluation.neutral import neutral_heads
from facegraft_model.evaluation.predictability import variation_predictability
from facegraft_model.evaluation.records import FULL, Scores, ScoreSettings
from facegraft_model.evaluation.scorefiles import to_json
from facegraft_model.evaluation.swaperror import swap_error
from facegraft_model.evaluation.truth import Truth
from facegraft_model.fitting.fits import Fits

Progress = Callable[[str, int, int], None]
"""Called with the name of the work, the count done and the total."""

SWAPPED, UNCHANGED = "swapped", "host unchanged"
PREDICTED_RESOLUTION = 128
"""Most nodes per axis of the grid for predictability: its features are displacements of registered points, not of the mesh."""


def measure_disentanglement(
    fits: Fits,
    truth: Truth,
    *,
    resolution: int,
    pairs: int,
    predictability: int,
    scoring: ScoreSettings,
    progress: Progress | None = None,
) -> dict[str, Any] | None:
    """Leakage, swap error and variation predictability as JSON; a model without a surface has {"failed": why}.

    pairs: number of pairs of heads for leakage and swap error. predictability: number of base heads of variation predictability.
    Returns None where nothing can be measured: 0 pairs, fewer than two neutral heads, or a method without part codes.
    """
    if pairs == 0 or not has_part_codes(fits.field):
        return None
    try:
        return _measured(fits, truth, resolution, pairs, predictability, scoring, progress)
    except EmptyFieldError as error:
        return {"failed": str(error)}


def _measured(
    fits: Fits,
    truth: Truth,
    resolution: int,
    pairs: int,
    predictability: int,
    scoring: ScoreSettings,
    progress: Progress | None,
) -> dict[str, Any] | None:
    field = fits.field
    heads = neutral_heads(fits.items, fits.codes, str(field.provenance["data"]["neutral_expression"]))
    if len(heads) < 2:
        return None
    settings = DecodeSettings(resolution=resolution)
    leakage = leakage_study(
        field, heads, pairs=pairs, seed=scoring.seed, settings=settings, progress=_named("leakage", progress)
    )
    swaps = {}
    for name, parts in ((SWAPPED, field.parts.names), (UNCHANGED, ())):
        scored = swap_error(
            field,
            fits.items,
            fits.codes,
            truth,
            parts=parts,
            split=str(fits.items[0]["split"]),
            pairs=pairs,
            seed=scoring.seed,
            to_model=fits.alignment.numpy(),
            resolution=resolution,
            settings=scoring,
            method=f"{field.config.preset}, {name}",
            training_seed=field.provenance["seed"],
            on_head=counted(f"swap error, {name}", pairs, progress),
        )
        swaps[name] = to_json(scored)
    result: dict[str, Any] = {"leakage": leakage.to_json(), "swap_error": swaps}
    if predictability > 0:
        coarse = DecodeSettings(resolution=min(resolution, PREDICTED_RESOLUTION))
        study = variation_predictability(field, bases=predictability, seed=scoring.seed, settings=coarse)
        result["variation_predictability"] = study.to_json()
    return result


def counted(what: str, total: int, progress: Progress | None) -> Callable[[object], None]:
    """A function that reports one more of `what` as done each time it is called."""
    done = 0

    def one_more(_: object) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(what, done, total)

    return one_more


def _named(what: str, progress: Progress | None) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(what, done, total)


# -- the table --------------------------------------------------------------------------------------------------------

CELL, GAP = 6, "  "
MEANING = (
    "leakage: rms displacement outside the part / inside it when only that part's code changes. swap error: decoded swap of codes",
    "against the geometric graft of the same heads; host unchanged: the same for the host's own codes, what doing nothing scores.",
)


def disentanglement_table(results: Sequence[Scores]) -> str:
    """Leakage and swap error by part, one row per method (the mean over its training seeds); empty where nothing was measured. All results must have the same parts."""
    rows: list[tuple[str, list[list[str]]]] = []
    failures = []
    for result in results:
        measured = result.disentanglement
        runs = [run for run in (measured if isinstance(measured, list) else [measured]) if run]
        if not runs:
            continue
        failed = next((run["failed"] for run in runs if "failed" in run), None)
        if failed is not None:
            failures.append(f"{result.method}: no leakage and no swap error: {failed}")
        else:
            rows.append((result.method, _groups(runs, result.parts)))
    if not rows:
        return "".join(f"\n{line}\n" for line in failures)
    parts = results[0].parts
    heads = {"leakage": parts, "swap error, p2s mm": (FULL, *parts), UNCHANGED: parts}
    widths = [[max(CELL, len(name)) for name in names] for names in heads.values()]
    groups = [sum(of_group) + len(of_group) - 1 for of_group in widths]
    # A group is at least as wide as its heading: its last column is widened as needed.
    for of_group, group, heading in zip(widths, groups, heads, strict=True):
        of_group[-1] += max(0, len(heading) - group)
    first = max(len("method"), *(len(name) for name, _ in rows))

    def line(name: str, cells: Sequence[Sequence[str]]) -> str:
        texts = [
            " ".join(cell.rjust(width) for cell, width in zip(group, of_group, strict=True))
            for group, of_group in zip(cells, widths, strict=True)
        ]
        return GAP.join([name.ljust(first), *texts])

    headings = [
        heading.center(sum(of_group) + len(of_group) - 1) for heading, of_group in zip(heads, widths, strict=True)
    ]
    lines = [
        "",
        GAP.join([" " * first, *headings]).rstrip(),
        line("method", list(heads.values())),
        *(line(name, cells) for name, cells in rows),
        "",
        *MEANING,
        *failures,
    ]
    return "\n".join(lines) + "\n"


def _groups(runs: Sequence[Mapping[str, Any]], parts: Sequence[str]) -> list[list[str]]:
    """Cells of a row by group: leakage of each part; swap error of the head and of each part; that of the unchanged host by part."""
    groups = [_values(run, parts) for run in runs]
    return [[_mean(values) for values in zip(*group, strict=True)] for group in zip(*groups, strict=True)]


def _values(measured: Mapping[str, Any], parts: Sequence[str]) -> list[list[float | None]]:
    """The values of `_groups` of one run."""
    leakage = measured["leakage"]["parts"]
    swapped, unchanged = (measured["swap_error"][name]["summary"]["none"] for name in (SWAPPED, UNCHANGED))
    ratios = [leakage[part]["ratio"] for part in parts]
    return [
        [None if ratio is None else float(ratio["mean"]) for ratio in ratios],
        [float(swapped[region]["p2s_mm"]["mean"]) for region in (FULL, *parts)],
        [float(unchanged[part]["p2s_mm"]["mean"]) for part in parts],
    ]


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.3f}" if known else "-"
