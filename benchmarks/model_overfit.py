"""Can the model hold a few heads at all? Trains on the scans of a small dataset, and compares its own codes' meshes with the truth.

    facegraft run ict --input FaceXModel -o four --set ingest.subjects=4 --set ingest.expressions=1 \\
        --set ingest.test_fraction=0 --set graft.donors=2
    python benchmarks/model_overfit.py four/samples
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from facegraft_model.data.batches import BatchSource
from facegraft_model.evaluation.records import ScoreSettings
from facegraft_model.evaluation.score import decode_items, evaluate
from facegraft_model.evaluation.truth import Truth
from facegraft_model.models import load_field
from facegraft_model.presets import TINY
from facegraft_model.training.train import train

SURFACE_BAR_MM, SCD_BAR_MM = 0.3, 0.25


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], help="group.name=value, on top of preset tiny"
    )
    arguments = parser.parse_args()
    config = TINY.with_settings(
        [
            "data.origins=scan",
            "data.items=4",
            "data.surface=512",
            f"train.steps={arguments.steps}",
            *arguments.settings,
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        field = load_field(train(arguments.samples, Path(folder) / "run", config, device="cpu"))
        seconds = time.perf_counter() - began
    with (
        BatchSource(
            arguments.samples,
            items=1,
            surface=20_000,
            near=5_000,
            free=2_000,
            stage=0,
            seed=1,
            origins=("scan",),
            id_table=field.id_table,
        ) as source,
        torch.no_grad(),
    ):
        rows, errors, codes = [], [], []
        for step in range(source.items_per_epoch):
            batch = source.batch(step)
            own = field.codes_of(batch)
            rows.append(source.rows[int(batch["item"][0])])
            codes.append(own)
            errors.append(
                [
                    field.mm_per_unit
                    * float((field.sdf(batch[f"{name}_points"], own) - batch.get(f"{name}_sdf", 0)).abs().mean())
                    for name in ("surface", "near", "free")
                ]
            )
    truth = Truth(arguments.samples)
    meshes = decode_items(field, rows, codes.__getitem__, truth, resolution=arguments.resolution)
    scores = evaluate(
        meshes,
        truth,
        ScoreSettings(),
        method="tiny",
        landmarks="none",
        resolution=arguments.resolution,
        training_seed=0,
    )
    summary, floor = scores.summary("none"), scores.floor()
    mean = torch.tensor(errors).mean(0)
    print(
        f"{len(rows)} heads, {arguments.steps} steps in {seconds:.0f} s, {sum(p.numel() for p in field.parameters()) / 1e6:.2f} M parameters\n"
    )
    print("| figure | value | bar |\n|---|---|---|")
    print(f"| mean abs. distance on the surface, mm | {mean[0]:.3f} | < {SURFACE_BAR_MM} |")
    print(f"| … of near points, free points, mm | {mean[1]:.3f}, {mean[2]:.3f} | |")
    for region in summary:
        scd, least = summary[region]["scd_mm"].mean, floor[region]["scd_mm"].mean
        bar = f"≤ floor + {SCD_BAR_MM}" if region == "full" else ""
        print(f"| SCD {region}, mm (floor) | {scd:.3f} ({least:.3f}) | {bar} |")
    print(f"| point to surface, full, mm | {summary['full']['p2s_mm'].mean:.3f} | |")


if __name__ == "__main__":
    main()
