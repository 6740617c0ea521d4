"""Scores as a text table: a row per method, with columns grouped by region."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from facegraft_model.errors import ModelError
from facegraft_model.evaluation.bootstrap import Interval
from facegraft_model.evaluation.merging import check_comparable, compare_scores
from facegraft_model.evaluation.records import FULL, Scores

FLOOR = "floor"
GAP = "   "


def score_table(
    results: Sequence[Scores], alignment: str = "none", tau_mm: float = 1.0, failed: Mapping[str, str] | None = None
) -> str:
    """Table of methods × (full, each part, rem) × (SCD mm, F, p2s mm, NC %), then the floor, then an explanation of the numbers.

    A method of several training seeds has a second row, ±: the standard deviation over seeds of the mean over heads. failed: the
    reasons, each in one line, of methods that have no scores; they are rows too. All results must have been scored in the same way (ModelError otherwise); the floor is that of the first.
    """
    if not results:
        raise ModelError("no scores to show")
    for other in results[1:]:
        check_comparable(results[0], other)
    taus = results[0].settings["taus_mm"]
    if tau_mm not in taus:
        raise ModelError(
            f"F was not scored at {tau_mm:g} mm; the scores have it at {', '.join(f'{tau:g}' for tau in taus)} mm"
        )
    columns = {
        "SCD": ("scd_mm", 1.0, 3),
        "F": (f"f_{tau_mm:g}mm", 1.0, 1),
        "p2s": ("p2s_mm", 1.0, 3),
        "NC": ("normal_consistency", 100.0, 2),
    }
    regions = results[0].regions
    rows = []
    for result in results:
        rows.append((result.method, _cells(regions, result.summary(alignment), columns)))
        if result.over_seeds is not None and len(result.training_seeds) > 1:
            spread = _seed_cells(regions, result.over_seeds[alignment], columns)
            rows.append((f"  ± {len(result.training_seeds)} seeds", spread))
    rows.append((FLOOR, _cells(regions, results[0].floor(), columns)))
    failed = failed or {}
    width = max(len("method"), *(len(name) for name, _ in rows), *(len(name) for name in failed))
    size = 6
    group = (size + 1) * len(columns) - 1
    groups = {region: max(group, len(region)) for region in regions}

    def line(name: str, cells: Mapping[str, Iterable[str]]) -> str:
        texts = (" ".join(cell.rjust(size) for cell in cells[region]).rjust(of) for region, of in groups.items())
        return GAP.join([name.ljust(width), *texts])

    lines = [
        GAP.join([" " * width, *(region.center(of) for region, of in groups.items())]).rstrip(),
        line("method", dict.fromkeys(regions, columns)),
        *(line(name, cells) for name, cells in rows),
        *failure_rows(failed, width),
    ]
    lines.append("")
    lines += [f"{result.method}: {_spread(result, alignment)}" for result in results]
    return "\n".join([*lines, "", *_notes(results[0], alignment, tau_mm)]) + "\n"


def failure_rows(failed: Mapping[str, str], width: int = 0) -> list[str]:
    """A row for each method that has no scores, with the reason."""
    return [GAP.join([name.ljust(width), f"FAILED: {reason}"]) for name, reason in failed.items()]


def difference_table(
    first: Scores,
    second: Scores,
    alignment: str = "none",
    metrics: Sequence[str] = ("scd_mm", "f_1mm", "p2s_mm", "normal_consistency"),
) -> str:
    """Table of second − first on the heads that both have, by region and metric, with the interval over subjects; * where it excludes 0."""
    differences = compare_scores(first, second, alignment)
    width = max(len("region"), *(len(region) for region in differences))
    lines = [
        f"{second.method} − {first.method}, the same heads, alignment {alignment}; 95 % interval over subjects, * where it excludes 0"
    ]
    lines.append(GAP.join(["region".ljust(width), *(name.center(28) for name in metrics)]).rstrip())
    for region in first.regions:
        missing = [name for name in metrics if name not in differences[region]]
        if missing:
            raise ModelError(f"no such metric: {missing[0]!r}; there are {', '.join(differences[region])}")
        lines.append(
            GAP.join(
                [region.ljust(width), *(_difference(differences[region][name]).ljust(28) for name in metrics)]
            ).rstrip()
        )
    return "\n".join(lines) + "\n"


def _cells(
    regions: Sequence[str],
    summary: Mapping[str, Mapping[str, Interval]],
    columns: Mapping[str, tuple[str, float, int]],
) -> dict[str, list[str]]:
    """The cells of each region; "-" for a missing metric (the floor's exact distances are 0 by definition)."""
    cells = {}
    for region in regions:
        metrics = summary.get(region, {})
        cells[region] = [
            f"{metrics[name].mean * factor:.{digits}f}" if name in metrics else "-"
            for name, factor, digits in columns.values()
        ]
    return cells


def _seed_cells(
    regions: Sequence[str], over_seeds: Mapping[str, Any], columns: Mapping[str, tuple[str, float, int]]
) -> dict[str, list[str]]:
    """Cells of standard deviations over seeds."""
    return {
        region: [
            f"{over_seeds[region][name]['std_seeds'] * factor:.{digits}f}" for name, factor, digits in columns.values()
        ]
        for region in regions
    }


def _spread(result: Scores, alignment: str) -> str:
    heads, failed = len(result.heads), len(result.failures)
    text = f"{heads} heads of {len(set(result.subjects))} subjects"
    text += f", {failed} FAILED and left out ({result.failures[0].key}: {result.failures[0].reason})" if failed else ""
    seeds = ", ".join("none" if seed is None else str(seed) for seed in result.training_seeds)
    text += f"; training seed {seeds}; resolution {result.record['resolution'] or '-'}; landmarks {result.record['landmarks']}"
    full = result.summary(alignment).get(FULL, {})
    for name, label in (("scd_mm", "SCD"), ("p2s_mm", "p2s")):
        if name in full:
            text += f"; full {label} {_interval(full[name])} mm"
            if result.over_seeds is not None and result.over_seeds[alignment][FULL][name]["std_seeds"] is not None:
                text += f" (sd over seeds {result.over_seeds[alignment]['full'][name]['std_seeds']:.4f})"
    return text


def _notes(result: Scores, alignment: str, tau_mm: float) -> list[str]:
    s = result.settings
    return [
        f"SCD, F at {tau_mm:g} mm: clouds of {s['full_points']:,} points, parts {s['part_points']:,} against the whole other shape. "
        "p2s: exact point to surface, both ways, mm. NC: normal consistency, %.",
        f"alignment {alignment}; parts labelled by the {s['labels']}; {s['truth']['mm_per_unit']:g} mm per unit; seed {s['seed']}; "
        "cut faces (neck, ball) not scored; floor: two samplings of the truth (exact distances: 0).",
    ]


def _interval(value: Interval) -> str:
    return f"{value.mean:.3f}" if value.low is None else f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"


def _difference(value: Interval) -> str:
    if value.low is None or value.high is None:
        return f"{value.mean:+.4f} [one subject]"
    mark = " *" if value.low > 0.0 or value.high < 0.0 else ""
    return f"{value.mean:+.4f} [{value.low:+.4f}, {value.high:+.4f}]{mark}"
