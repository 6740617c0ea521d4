"""Time and error of fits, by Gauss-Newton and by Adam, of heads and of scans with their pose, and of registered output.

    python benchmarks/model_fit.py RUN SAMPLES [--heads 12] [--adam-steps 300] [--few 600]

RUN: of a method with neural bases (preset facegraft). On one thread; seconds are those of the processor. Errors are mean |sdf| in mm
at surface points that the fit has not seen. A scan is the front of a head, turned by TURN_DEG and shifted by SHIFT_MM, as a cloud
without normals or landmarks; its pose is found, and fitted with the codes. Registered output: the head on the training topology's vertices, and what a swap of the
first part moves there.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from facegraft_model.config import FitConfig
from facegraft_model.data.batches import BatchSource
from facegraft_model.decoding.registered import registered_vertices
from facegraft_model.fitting.commands import chosen_keys
from facegraft_model.fitting.fit import FittedCodes, fit_samples
from facegraft_model.fitting.scan import fit_scan
from facegraft_model.fitting.scanfile import Scan
from facegraft_model.method import Field
from facegraft_model.models import load_field

UNSEEN = 8192
FRONT = 0.1
"""Points of a scan have a larger z than this, in units."""
TURN_DEG = 15.0
SHIFT_MM = (10.0, -15.0, 20.0)
SCANNED = 20_000


def timed(what: Callable[[], FittedCodes]) -> tuple[FittedCodes, float]:
    began = time.process_time()
    found = what()
    return found, time.process_time() - began


def unseen_errors(field: Field, samples: str, keys: list[str], fitted: FittedCodes) -> np.ndarray:
    """Mean |sdf| [I] in mm at windows of surface points drawn with another seed."""
    errors = []
    for i, key in enumerate(keys):
        with BatchSource(
            samples, items=1, surface=UNSEEN, near=0, free=0, stage=0, split=None, keys=[key], seed=987, backend="stream"
        ) as source:
            points = source.batch(0)["surface_points"]
        codes = {name: code[i : i + 1] for name, code in fitted.codes.items()}
        with torch.no_grad():
            errors.append(float(field.sdf(points, codes).abs().mean()) * field.mm_per_unit)
    return np.array(errors)


def fitted_scan(field: Field, samples: str, key: str, fit: FitConfig) -> tuple[float, float]:
    """Seconds of a scan's fit, and its mean |sdf| in mm at as many points of the same part of the head that it has not seen."""
    with BatchSource(
        samples, items=1, surface=SCANNED, near=0, free=0, stage=0, split=None, keys=[key], seed=987, backend="stream"
    ) as source:
        points = source.batch(0)["surface_points"][0]
    angle = math.radians(TURN_DEG)
    turn = torch.tensor(
        [[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]], dtype=points.dtype
    )
    front = points[points[:, 2] > FRONT]
    seen, unseen = (field.mm_per_unit * own @ turn.T + torch.tensor(SHIFT_MM) for own in (front[::2], front[1::2]))
    began = time.process_time()
    fitted, pose = fit_scan(field, Scan(seen, torch.zeros_like(seen), {}), fit)
    seconds = time.process_time() - began
    placed = (unseen.double() @ pose[:3, :3].T + pose[:3, 3]).float()[None]
    with torch.no_grad():
        return seconds, float(field.sdf(placed, fitted.codes).abs().mean()) * field.mm_per_unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("samples")
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--adam-steps", type=int, default=300)
    parser.add_argument("--few", type=int, default=600, help="surface points of a faster fit")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    field = load_field(arguments.run)
    keys = chosen_keys(field, arguments.samples, "test", "scan")[: arguments.heads]
    fit: FitConfig = field.config.fit
    adam = replace(fit, solver="adam", steps=arguments.adam_steps, surface=512, items=1)
    results = {}
    print(f"{'fit':<28}{'s/head':>8}{'mean mm':>9}{'worst mm':>9}")
    few = replace(fit, items=1, surface=arguments.few)
    for name, config in (("Gauss-Newton", replace(fit, items=1)), (f"Gauss-Newton, {few.surface} points", few), (f"Adam, {arguments.adam_steps} iterations", adam)):
        (fitted, _), seconds = timed(lambda config=config: fit_samples(field, arguments.samples, keys, config))
        errors = unseen_errors(field, arguments.samples, keys, fitted)
        results[name] = fitted
        print(f"{name:<28}{seconds / len(keys):>8.2f}{errors.mean():>9.3f}{errors.max():>9.3f}", flush=True)
    for name, config in (("scan with pose", fit), (f"scan with pose, {few.surface} points", few)):
        times, errors = np.array([fitted_scan(field, arguments.samples, key, config) for key in keys]).T
        print(f"{name:<28}{times.mean():>8.2f}{errors.mean():>9.3f}{errors.max():>9.3f}", flush=True)
    codes = [
        {name: code[i : i + 1] for name, code in results["Gauss-Newton"].codes.items()} for i in range(min(2, len(keys)))
    ]
    began = time.process_time()
    host = registered_vertices(field, codes[0])
    seconds = time.process_time() - began
    print(f"\nregistered output: {len(host.vertices)} vertices in {seconds:.2f} s, {host.describe()}")
    part = field.parts.names[0]
    swapped = registered_vertices(field, codes[0] | {part: codes[-1][part]})
    moved = np.linalg.norm(swapped.vertices - host.vertices, axis=1) * field.mm_per_unit
    assert field.topology is not None
    own = field.topology.parts.cpu().numpy() == field.parts.label(part)
    print(f"swap of the {part}: its vertices move {moved[own].mean():.2f} mm, all others at most {moved[~own].max():.4f} mm")


if __name__ == "__main__":
    main()
