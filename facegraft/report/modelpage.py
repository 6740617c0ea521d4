"""The report's section about a model that was trained in the folder's model/: its loss curve, its fits and a swap."""

from __future__ import annotations

import json
from typing import Any

import matplotlib
from PIL import Image

from facegraft.report import charts
from facegraft.report.blocks import Block, Chart, Picture, Section, Sheet, Table, Text
from facegraft.report.modelfiles import METRICS, PICTURES, SCORES
from facegraft.store.remote import Location

NOT_TERMS = ("step", "loss", "split", "points_per_s", "step_ms", "data_wait_ms", "lr", "grad_norm", "skipped_steps")
"""Fields of a log record that are not terms of the loss."""


def model_section(folder: Location) -> Section | None:
    """The section about FOLDER/model, or None where no model was trained."""
    metrics = folder / METRICS
    if not metrics.exists():
        return None
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    blocks: list[Block] = [Chart(training_curve(records))]
    scores = folder / SCORES
    if scores.exists():
        blocks.append(_score_table(json.loads(scores.read_bytes())))
    for name, caption in PICTURES:
        if (folder / name).exists():
            blocks.append(Sheet([Picture(Image.open((folder / name).open("rb")).convert("RGB"), caption)], 1, 600))
    steps = max(record["step"] for record in records)
    rate = sum(record.get("points_per_s", 0.0) for record in records) / max(
        sum("points_per_s" in record for record in records), 1
    )
    blocks.append(Text(f"{steps:,} steps at {rate:,.0f} points a second."))
    lead = "A small parts-based implicit model, trained on these samples; heads of subjects that it never saw, fitted by their codes alone."
    return Section("model", "Model", lead, blocks)


def training_curve(records: list[dict[str, Any]]) -> str:
    """Loss terms over steps, logarithmic."""
    trained = [record for record in records if record.get("split") != "validation"]
    with matplotlib.rc_context(charts.STYLE):
        figure = charts.figure_of(11.2, 3.2)
        axis = figure.subplots()
        names = dict.fromkeys(name for record in trained for name in record if name not in NOT_TERMS)
        for name in names:
            known = [record for record in trained if isinstance(record.get(name), float) and record[name] > 0]
            if known:
                label = name.replace("_", " ")
                axis.plot([record["step"] for record in known], [record[name] for record in known], lw=1.2, label=label)
        axis.set_yscale("log")
        axis.set_xlabel("step")
        axis.set_ylabel("weighted loss term")
        figure.legend(loc="outside right upper")
        return charts.to_svg(figure, "training", "Loss terms over the steps of the training")


def _score_table(scores: dict[str, Any]) -> Table:
    rows = []
    for region, values in scores["summary"]["none"].items():
        floor = scores["floor"][region]
        rows.append([
            region, f"{values['scd_mm']['mean']:.3f}", f"{floor['scd_mm']['mean']:.3f}", f"{values['p2s_mm']['mean']:.3f}",
            f"{values['f_1mm']['mean']:.1f}", f"{100 * values['normal_consistency']['mean']:.2f}",
        ])  # fmt: skip
    head = ["region", "SCD (mm)", "its floor", "point to surface (mm)", "F at 1 mm", "normal consistency (%)"]
    return Table(head, rows, numeric=(1, 2, 3, 4, 5))
