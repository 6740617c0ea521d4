"""Time and error of fits, by Gauss-Newton and by Adam, and of registered output.

    python benchmarks/model_fit.py RUN SAMPLES [--heads 12] [--adam-steps 300] [--few 800]

RUN: of a method with neural bases (preset facegraft). On one thread; seconds are those of the processor. Errors are mean |sdf| in mm
at surface points that the fit has not seen. Registered output: the head on the training topology's vertices, and what a swap of the
first part moves there.
"""

from __future__ import annotations

import argparse
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
from facegraft_model.method import Field
from facegraft_model.models import load_field

UNSEEN = 8192


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("samples")
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--adam-steps", type=int, default=300)
    parser.add_argument("--few", type=int, default=800, help="surface points of a faster fit")
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
