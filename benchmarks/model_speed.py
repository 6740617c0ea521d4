# ruff: noqa: E402
"""One training step on a CPU: the explicit adjoint against double backward, in one run; memory; the share of the time for data.

    PYTHONPATH=model:. python benchmarks/model_speed.py [--preset paper] [--items 4] [--points 2048] [--samples DIR]

The arms start from the same weights and see the same batch, and take turns. Times are CPU seconds of one thread, which other load on the
machine hardly changes; wall-clock medians stand beside them. Memory is measured in a process of its own for each arm. Needs torch, numpy,
safetensors and pyarrow; the compiled arm needs a C++ compiler too (without one it is left out).
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
MALLOC = "MALLOC_MMAP_THRESHOLD_"
if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):  # read when the libraries are loaded
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ONE_THREAD})

import argparse
import datetime
import json
import platform
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from facegraft_model.config import Config
from facegraft_model.training.setup import open_source
from synthetic_samples import write_synthetic_samples
from training_arms import (
    CONFIGURATIONS,
    Arm,
    ArmSpec,
    Backend,
    StepTimer,
    Times,
    configuration,
    counted,
    exact_gradients,
    points_of,
    relative_error,
    start_model,
    table,
)

ARMS = [
    ArmSpec("double", "double backward, eager", double=True),
    ArmSpec("adjoint", "adjoint, eager"),
    ArmSpec("compiled", "adjoint, compiled", compiled=True),
]
EXACT_TOLERANCE = 1e-10
UNTIMED_STEPS = 2
CPU = torch.device("cpu")


def status_bytes(field: str) -> int:
    """VmRSS or VmHWM (its highest) of this process, from Linux."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return 1024 * int(lines[field].split()[0])


def print_peak(samples: Path, config: Config, spec: ArmSpec) -> None:
    """Print the bytes that one step needs above what the process held before it (weights, Adam's moments, the batch)."""
    with open_source(samples, replace(config.data, backend="resident"), CPU) as source:
        batch = source.batch(0)
        arm = Arm(spec, start_model(config, source), CPU)
    for _ in range(UNTIMED_STEPS):
        arm.step(batch)
    arm.optimiser.zero_grad(set_to_none=True)
    # getrusage's maximum starts with the parent's and keeps what start-up took, so the kernel's own mark is reset and read instead.
    Path("/proc/self/clear_refs").write_text("5")
    before = status_bytes("VmRSS")
    arm.step(batch)
    print(json.dumps(status_bytes("VmHWM") - before))


def peak_bytes(samples: Path, options: argparse.Namespace, spec: ArmSpec) -> int:
    """`print_peak` in a process whose freed tensors leave its memory at once."""
    command = [
        sys.executable,
        __file__,
        "--preset",
        options.preset,
        "--items",
        str(options.items),
        "--points",
        str(options.points),
    ]
    command += ["--samples", str(samples), "--peak", spec.name]
    done = subprocess.run(command, env={**os.environ, MALLOC: "65536"}, stdout=subprocess.PIPE, text=True, check=True)
    return int(json.loads(done.stdout.splitlines()[-1]))


def data_row(samples: Path, config: Config, arm: Arm, backend: Backend, steps: int) -> list[str]:
    """Steps with a new batch each, as the training loop takes them: where the time goes."""
    with open_source(samples, replace(config.data, backend=backend), CPU) as source:
        for step in range(UNTIMED_STEPS):
            arm.step(source.batch(step))
        timer = StepTimer(CPU)
        timer.mark()
        for step in range(UNTIMED_STEPS, UNTIMED_STEPS + steps):
            batch = source.batch(step)
            timer.mark()
            arm.step(batch)
            timer.mark()
        times = timer.seconds()
    waited = sum(times[::2])
    return [
        arm.spec.title,
        backend,
        str(steps),
        f"{1e3 * waited / steps:.2f}",
        f"{1e3 * sum(times) / steps:.0f}",
        f"{100 * waited / sum(times):.2f} %",
    ]


def measure(samples: Path, options: argparse.Namespace) -> bool:
    """Print the tables; False when the two ways to the gradient do not agree in float64."""
    config = configuration(options.preset, options.items, options.points)
    specs = [
        spec for spec in ARMS if not spec.compiled or (options.compile and shutil.which(os.environ.get("CXX", "g++")))
    ]
    with open_source(samples, replace(config.data, backend="resident"), CPU) as source:
        batch = source.batch(0)
        start = start_model(config, source)
    exact = exact_gradients(start, batch, CPU)
    oracle = relative_error(exact_gradients(start, batch, CPU, double=True), exact)
    arms, first, errors = {}, {}, {}
    for spec in specs:
        arms[spec.name] = arm = Arm(spec, start, CPU)
        began = time.perf_counter()
        found = arm.loss_and_gradients(batch)
        first[spec.name] = time.perf_counter() - began
        errors[spec.name] = relative_error(found, exact)
        for _ in range(UNTIMED_STEPS):
            arm.step(batch)
    cpu, wall = {name: Times() for name in arms}, {name: Times() for name in arms}
    for _ in range(options.rounds):
        for name, arm in arms.items():
            timers = StepTimer(CPU, time.process_time), StepTimer(CPU)
            for timer in timers:
                timer.mark()
            for _ in range(options.steps):
                arm.step(batch)
                for timer in timers:
                    timer.mark()
            cpu[name].rounds.append(timers[0].seconds())
            wall[name].rounds.append(timers[1].seconds())
    flops = {name: counted(arm, batch)[0] for name, arm in arms.items() if not arm.spec.compiled}
    peaks = {spec.name: peak_bytes(samples, options, spec) for spec in specs}
    points = points_of(config)
    base = cpu["double"]
    rows = []
    for spec in specs:
        times, (low, high) = cpu[spec.name], cpu[spec.name].spread
        rows.append(
            [
                spec.title,
                f"{times.median:.3f} ({low:.3f} to {high:.3f})",
                f"{times.median / base.median:.2f}",
                f"{wall[spec.name].median:.3f}",
                f"{options.items * points / times.median:,.0f}",
                f"{flops.get(spec.name, flops['adjoint']) / times.median / 1e9:.0f}",
                f"{peaks[spec.name] / 1e6:,.0f}",
                f"{first[spec.name]:.0f}",
                str(errors[spec.name]),
            ]
        )
    agrees = max(oracle) <= EXACT_TOLERANCE
    print(
        f"Preset {options.preset}, {options.items} heads × {points} points, {sum(p.numel() for p in start.parameters()) / 1e6:.1f} M weights; "
        f"{options.rounds} rounds of {options.steps} steps, the arms in turns, one thread.\n"
        f"{datetime.date.today().isoformat()}, torch {torch.__version__}, {platform.machine()}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.\n"
        f"Float64, all loss terms: double backward {'agrees' if agrees else 'DOES NOT AGREE'} with the adjoint: loss {oracle.loss:.0e}, "
        f"gradient of all weights {oracle.gradient:.0e}, of the worst tensor {oracle.worst:.0e} (bound {EXACT_TOLERANCE:g}).\n"
    )
    header = [
        "arm",
        "CPU s a step: median (medians of the rounds)",
        "× double backward",
        "wall s",
        "points/s",
        "GFLOP/s",
        "peak MB of a step",
        "first call, s",
    ]
    print(table([*header, "float32 error: loss, gradient, worst tensor"], rows) + "\n")
    rows = [
        data_row(samples, config, arms[name], backend, options.loop_steps)
        for name in list(arms)[1:]
        for backend in ("resident", "stream")
    ]
    print(table(["with the data", "back end", "steps", "waiting for data, ms a step", "ms a step", "share"], rows))
    return agrees


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="paper", choices=sorted(CONFIGURATIONS))
    parser.add_argument("--items", type=int, default=4, help="heads a step")
    parser.add_argument("--points", type=int, default=2048, help="points a head")
    parser.add_argument("--steps", type=int, default=5, help="timed steps a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loop-steps", type=int, default=10, help="steps of each run with data")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--samples", type=Path, help="a dataset of samples (default: 24 spheres, written for the run)")
    parser.add_argument(
        "--peak", choices=[spec.name for spec in ARMS], help="only print the bytes that one step of an arm needs"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        spec = next(spec for spec in ARMS if spec.name == options.peak)
        print_peak(options.samples, configuration(options.preset, options.items, options.points), spec)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        data = configuration(options.preset, options.items, options.points).data
        sizes = {kind: 4 * getattr(data, kind) for kind in ("surface", "near", "free")}
        samples = options.samples or write_synthetic_samples(
            Path(folder) / "samples", max(24, 2 * options.items), sizes
        )
        return 0 if measure(samples, options) else 1


if __name__ == "__main__":
    sys.exit(main())
