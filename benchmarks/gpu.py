"""Correctness and speed of the model's training step on a GPU, in one call of six minutes for each preset.

    PYTHONPATH=model:. python benchmarks/gpu.py --output paper.md
    PYTHONPATH=model:. python benchmarks/gpu.py --presets cascade --output cascade.md
    PYTHONPATH=model:. python benchmarks/gpu.py --device cpu --presets tiny-cascade --items 2 --points 256 --steps 2 --no-compile

Needs torch (2.11 or later), numpy, safetensors and pyarrow, and no data: it writes a small dataset of spheres and reads it as training does.
The arms start from the same weights and see the same batch, and take turns: A2 gradients by double backward (autograd twice, what ImFace
does), B the explicit adjoint, C the adjoint compiled, D compiled with 16-bit operands in hidden layers. What matters most comes first, and
each part is written as soon as it is known: rates of the machine and of weight gradients, correctness, then at the whole batch C beside B and
A2 with one compilation, the loop with data, D beside C with another; last the small batch in the same order. An arm that runs out of
memory or time is a line of the table. Exit code 1: an arm failed otherwise, or float64 gradients differ by more than 1e-10.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import math
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import FrameType

import torch
from facegraft_model.config import Config
from facegraft_model.field import CascadeField
from facegraft_model.training.setup import open_source
from synthetic_samples import write_synthetic_samples
from torch import Tensor
from training_arms import (
    CONFIGURATIONS,
    Arm,
    ArmSpec,
    Backend,
    Errors,
    Gradients,
    StepTimer,
    Times,
    configuration,
    counted,
    exact_gradients,
    first_points,
    points_of,
    relative_error,
    start_model,
    table,
)

from facegraft.store import write_bytes_atomic

STAGES = [
    [
        ArmSpec("C", "adjoint, compiled, tf32", compiled=True),
        ArmSpec("B", "adjoint, eager, tf32"),
        ArmSpec("A2", "double backward, eager, tf32", double=True),
    ],
    [ArmSpec("D", "adjoint, compiled, fp16-hidden", compiled=True, half=True)],
]
"""The arms by importance: those of a stage are compiled and timed in turns before the next stage, which takes turns with BESIDE."""
BESIDE = "C"
ARMS = [spec for stage in STAGES for spec in stage]
SPLITS = (4, 16, 36, 144, 576)
"""Parts into which the sum over the points of a weight's gradient is split."""
POINTS = 16_384
FACESCAPE_ITEMS, FACESCAPE_EPOCHS, PAPER_BATCH = 12_070, 850, 36
PAPER_HOURS = 124
"""What Gu and Pears (2024) report for this schedule, on two A40."""
EXACT_TOLERANCE = 1e-10
CHECK_ITEMS, CHECK_POINTS = 2, 256
UNTIMED_STEPS = 2


class TimeLimitError(BaseException):
    """Raised in the midst of a library's code, whose `except Exception` must not keep it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeLimitError when the block takes longer."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeLimitError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Report:
    """Markdown that is printed as it grows; the file is whole after each addition, so that a run cut short leaves what it measured."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.parts = path, list[str]()

    def add(self, text: str) -> None:
        print(text + "\n", flush=True)
        self.parts.append(text)
        if self.path is not None:
            write_bytes_atomic(self.path, ("\n\n".join(self.parts) + "\n").encode())


@dataclass
class Rates:
    """What the machine reaches: bytes/s of a copy (read plus write), FLOP/s of large products."""

    copy: float
    half: float
    tf32: float


@dataclass
class Result:
    """What was measured of an arm; `ended` says why it was given up."""

    arm: Arm | None
    times: Times = field(default_factory=Times)
    errors: Errors | None = None
    first_call: float = math.nan
    peak_bytes: int = 0
    ended: str = ""
    flops: int = 0
    traffic: int = 0


# -- the machine ------------------------------------------------------------------------------------------------------


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free_memory(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def median_seconds(device: torch.device, action: Callable[[], object], repeat: int = 10) -> float:
    for _ in range(3):
        action()
    timer = StepTimer(device)
    timer.mark()
    for _ in range(repeat):
        action()
        timer.mark()
    return Times([timer.seconds()]).median


def machine(device: torch.device, report: Report) -> Rates:
    """Measure the ceilings, and say what machine this is."""
    cuda = device.type == "cuda"
    size, count, rows = (8192, 2**29, 16384) if cuda else (512, 2**24, 256)
    source = torch.empty(count, device=device).uniform_()
    target = torch.empty_like(source)
    copy = 8 * count / median_seconds(device, partial(target.copy_, source))
    del source, target
    rates, batched = {}, {}
    torch.set_float32_matmul_precision("high" if cuda else "highest")
    for name, dtype in (("half", torch.bfloat16), ("tf32", torch.float32)):
        x, y = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        rates[name] = 2 * size**3 / median_seconds(device, partial(torch.mm, x, y))
        x, y = (
            torch.randn(36, rows, 128, device=device, dtype=dtype),
            torch.randn(36, 128, 128, device=device, dtype=dtype),
        )
        batched[name] = 2 * 36 * rows * 128**2 / median_seconds(device, partial(torch.bmm, x, y))
    del x, y
    free_memory(device)
    if cuda:
        properties = torch.cuda.get_device_properties(device)
        what = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    else:
        what = f"CPU {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    tf32 = "tf32" if cuda else "fp32"
    report.add(
        "\n".join(
            [
                f"# Training step: {what}",
                "",
                f"{datetime.date.today().isoformat()}, torch {torch.__version__}, Python {platform.python_version()}, {os.cpu_count()} CPU cores.",
                f"This machine: copy {copy / 1e12:.3g} TB/s; {size}-wide products: bf16 {rates['half'] / 1e12:.3g} TFLOP/s, {tf32} {rates['tf32'] / 1e12:.3g}; "
                f"36 products of {rows} × 128 by 128 × 128, as in the nets: bf16 {batched['half'] / 1e12:.3g}, {tf32} {batched['tf32'] / 1e12:.3g}.",
            ]
        )
    )
    return Rates(copy, rates["half"], rates["tf32"])


def weight_gradients(device: torch.device, report: Report) -> None:
    """The gradient of a shared weight [128,128], a product that sums over all points of a batch: whole, and in parts that are then added."""
    cuda = device.type == "cuda"
    count = PAPER_BATCH * POINTS if cuda else 9_216
    rows = []
    torch.set_float32_matmul_precision("high" if cuda else "highest")
    for name, dtype in (("tf32" if cuda else "fp32", torch.float32), ("bf16", torch.bfloat16)):
        g, h = (torch.randn(count, 128, device=device, dtype=dtype) for _ in range(2))
        exact = g.double().T @ h.double()
        forms: list[tuple[str, Callable[[], Tensor]]] = [("whole", partial(whole_product, g, h))]
        forms += [(f"in {parts} parts", partial(split_product, g, h, parts)) for parts in SPLITS]
        for title, form in forms:
            seconds = median_seconds(device, form)
            error = float((form().double() - exact).norm() / exact.norm())
            rate, read = 2 * count * 128**2 / seconds / 1e12, 2 * g.numel() * g.element_size() / seconds / 1e12
            rows.append([name, title, f"{1e3 * seconds:.3g}", f"{rate:.3g}", f"{read:.3g}", f"{error:.0e}"])
        del g, h, exact
        free_memory(device)
    report.add(
        f"## Gradients of shared weights: {count:,} points, 128 × 128\n\n"
        + table(["operands", "sum over the points", "ms", "TFLOP/s", "TB/s read", "relative error"], rows)
    )


def whole_product(g: Tensor, h: Tensor) -> Tensor:
    """g^T h [o,i] of g [n,o] and h [n,i]."""
    return g.T @ h


def split_product(g: Tensor, h: Tensor, parts: int) -> Tensor:
    """The same as the sum, in float32, of the products of equal parts of the rows."""
    pieces = torch.bmm(g.view(parts, -1, g.shape[1]).transpose(1, 2), h.view(parts, -1, h.shape[1]))
    return pieces.sum(0, dtype=torch.float32)


# -- correctness ------------------------------------------------------------------------------------------------------


def correctness(start: CascadeField, batch: dict[str, Tensor], device: torch.device, report: Report, title: str) -> bool:
    """Loss and gradients of every precision against float64 on the CPU, on a few points. False when float64 does not agree."""
    small = first_points(batch, CHECK_ITEMS, CHECK_POINTS)
    on_cpu = {name: value.cpu() for name, value in small.items()}
    exact = exact_gradients(start, on_cpu, torch.device("cpu"))

    def eager(precision: str, spec: ArmSpec) -> Gradients:
        torch.set_float32_matmul_precision(precision)
        return Arm(spec, start, device).loss_and_gradients(small)

    name = device.type.upper()
    found = {
        "float64, CPU, double backward": exact_gradients(start, on_cpu, torch.device("cpu"), double=True),
        f"float64, {name}, adjoint": exact_gradients(start, small, device),
        f"float32, {name}, adjoint": eager("highest", ArmSpec("", "")),
    }
    if device.type == "cuda":
        found["tf32, CUDA, double backward"] = eager("high", ArmSpec("", "", double=True))
        found["tf32, CUDA, adjoint"] = eager("high", ArmSpec("", ""))
    found[f"fp16-hidden, {name}, adjoint"] = eager("high", ArmSpec("", "", half=True))
    errors = {what: relative_error(value, exact) for what, value in found.items()}
    free_memory(device)
    good = all(max(error) <= EXACT_TOLERANCE for what, error in errors.items() if what.startswith("float64"))
    points = sum(small[field].shape[1] for field in ("surface_points", "near_points", "free_points"))
    report.add(
        f"## Correctness, preset {title}\n\nAgainst the adjoint in float64 on the CPU; {CHECK_ITEMS} heads × {points} points, all loss terms; "
        f"float64 {'agrees' if good else 'DOES NOT AGREE'} to {EXACT_TOLERANCE:g}.\n\n"
        + table(
            ["relative error", "loss", "gradient of all weights", "… of the worst tensor"],
            [[what, *(f"{value:.1e}" for value in error)] for what, error in errors.items()],
        )
    )
    return good


# -- speed ------------------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """The settings of the run and the clock that it must beat."""

    device: torch.device
    steps: int
    rounds: int
    compile: bool
    ends: float
    arm_seconds: float
    longest_first_call: float = 0.0
    failed: bool = False

    def left(self) -> float:
        return self.ends - time.monotonic()

    @contextmanager
    def guarded(self, result: Result, seconds: float) -> Iterator[None]:
        """An arm that cannot go on is a result: note why, free what it holds, and go on with the others."""
        try:
            with time_limit(min(seconds, self.left())):
                yield
        except TimeLimitError:
            result.ended = "out of time"
        except torch.OutOfMemoryError:
            result.ended = "out of memory"
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            result.ended = f"failed: {type(error).__name__}: {lines[0][:100]}".replace("|", "/")
            self.failed = True
            print(f"{result.ended}\n{error}", file=sys.stderr)
        if result.ended:
            result.arm = None
            free_memory(self.device)

    def warm_up(self, spec: ArmSpec, start: CascadeField, batch: dict[str, Tensor], exact: Gradients) -> Result:
        result = Result(None)
        if spec.compiled and not self.compile:
            result.ended = "not compiled"
        elif self.left() < (1.3 * self.longest_first_call if spec.compiled else 0) + 15:
            result.ended = "no time left"
        if result.ended:
            return result
        free_memory(self.device)  # what an arm before left when it ran out of memory
        with self.guarded(result, self.arm_seconds):
            arm = result.arm = Arm(spec, start, self.device)
            synchronize(self.device)
            began = time.perf_counter()
            found = arm.loss_and_gradients(batch)
            synchronize(self.device)
            result.first_call = time.perf_counter() - began
            if spec.compiled:
                self.longest_first_call = max(self.longest_first_call, result.first_call)
            result.errors = relative_error(found, exact)
            del found
            if not spec.compiled:
                result.flops, result.traffic = counted(arm, batch)
            for _ in range(UNTIMED_STEPS):
                arm.step(batch)
            synchronize(self.device)
        return result

    def round(self, result: Result, batch: dict[str, Tensor]) -> None:
        """Some untimed steps (the allocator starts empty for each arm), then the timed ones."""
        arm, cuda = result.arm, self.device.type == "cuda"
        if arm is None:
            return
        if self.left() < 10:
            result.ended, result.arm = "" if result.times.rounds else "no time left", None
            return
        with self.guarded(result, self.arm_seconds):
            arm.optimiser.zero_grad(set_to_none=True)
            free_memory(self.device)
            before = torch.cuda.memory_allocated(self.device) if cuda else 0
            if cuda:
                torch.cuda.reset_peak_memory_stats(self.device)
            for _ in range(UNTIMED_STEPS):
                arm.step(batch)
            timer = StepTimer(self.device)
            timer.mark()
            for _ in range(self.steps):
                loss = arm.step(batch)
                timer.mark()
            result.times.rounds.append(timer.seconds())
            if not math.isfinite(float(loss)):
                raise ArithmeticError(f"the loss became {float(loss)}")
            if cuda:
                result.peak_bytes = max(result.peak_bytes, torch.cuda.max_memory_allocated(self.device) - before)
            arm.optimiser.zero_grad(set_to_none=True)

    def begin(self, start: CascadeField, batch: dict[str, Tensor]) -> Gradients:
        """Forget what was compiled for the batch before; the exact gradients of this one."""
        torch.set_float32_matmul_precision("high" if self.device.type == "cuda" else "highest")
        torch.compiler.reset()  # only so many compiled variants of one function are kept
        exact = exact_gradients(start, batch, self.device)
        free_memory(self.device)
        return exact

    def compare(
        self,
        stage: list[ArmSpec],
        start: CascadeField,
        batch: dict[str, Tensor],
        exact: Gradients,
        beside: dict[str, Result],
    ) -> dict[str, Result]:
        """The arms of a stage, warmed up one after the other and then timed in turns, also with those `beside` them."""
        results = {spec.name: self.warm_up(spec, start, batch, exact) for spec in stage}
        if all(result.arm is None for result in results.values()):
            beside = {}
        arms = {name: result.arm for name, result in results.items()}
        for _ in range(self.rounds):
            for result in (*beside.values(), *results.values()):
                self.round(result, batch)
        for name, result in results.items():
            result.arm = result.arm or (arms[name] if result.times.rounds and not result.ended else None)
        return results


def speed_table(results: dict[str, Result], rates: Rates, items: int, points: int, cuda: bool) -> str:
    base = results["A2"].times if "A2" in results else Times()
    flops = next((results[name].flops for name in ("B", "A2") if name in results and results[name].flops), 0)
    steps = math.ceil(FACESCAPE_EPOCHS * FACESCAPE_ITEMS / PAPER_BATCH)
    rows = []
    for spec in [spec for spec in ARMS if spec.name in results]:
        result = results[spec.name]
        title = f"{spec.name}: {spec.title}" if cuda else f"{spec.name}: {spec.title}".replace("tf32", "fp32")
        if not result.times.rounds:
            rows.append([title, result.ended, *[""] * 9])
            continue
        median, (low, high) = result.times.median, result.times.spread
        floor = flops / (rates.half if spec.half else rates.tf32)
        rows.append(
            [
                title + (f" ({result.ended})" if result.ended else ""),
                f"{1e3 * median:.1f} ({1e3 * low:.1f} to {1e3 * high:.1f})",
                f"{items * points / median / 1e6:.3g} M",
                f"{base.median / median:.2f}" if base.rounds else "",
                f"{(result.flops or flops) / median / 1e12:.3g}" if flops else "",
                f"{result.traffic / median / 1e12:.3g}" if result.traffic else "",
                f"{1e3 * floor:.1f}" if flops else "",
                f"{(result.peak_bytes + (result.arm.state_bytes() if result.arm else 0)) / 1e9:.1f}"
                if result.peak_bytes
                else "",
                f"{result.first_call:.1f}",
                str(result.errors),
                f"{steps * median / 3600:.1f}" if items == PAPER_BATCH else "",
            ]
        )
    return table(
        [
            "arm",
            "ms a step: median (medians of the rounds)",
            "points/s",
            "speed-up over A2",
            "TFLOP/s",
            "TB/s counted",
            "floor, ms",
            "peak GB",
            "first call, s",
            "error: loss, gradient, worst tensor",
            "hours",
        ],
        rows,
    )


def data_share(bench: Bench, samples: Path, config: Config, result: Result, steps: int, backend: Backend) -> list[str]:
    """The whole step, data included: [back end, steps, ms a step, share of the time for data, hours]."""
    arm = result.arm
    assert arm is not None
    free_memory(bench.device)
    with open_source(samples, replace(config.data, backend=backend), bench.device) as source:
        for step in range(UNTIMED_STEPS):
            arm.step(source.batch(step))
        timer = StepTimer(bench.device)
        timer.mark()
        for step in range(UNTIMED_STEPS, UNTIMED_STEPS + steps):
            batch = source.batch(step)
            timer.mark()
            arm.step(batch)
            timer.mark()
        times = timer.seconds()
    waits, whole = times[::2], Times([[a + b for a, b in zip(times[::2], times[1::2], strict=True)]]).median
    total = math.ceil(FACESCAPE_EPOCHS * FACESCAPE_ITEMS / PAPER_BATCH)
    hours = f"{total * whole / 3600:.1f}" if config.data.items == PAPER_BATCH else ""
    return [backend, str(steps), f"{1e3 * whole:.1f}", f"{100 * sum(waits) / sum(times):.2f} %", hours]


def loop_with_data(
    bench: Bench, samples: Path, config: Config, results: dict[str, Result], steps: int, name: str, report: Report
) -> None:
    """The fastest arm so far in a loop with data, from memory and streamed."""
    timed = {key: result for key, result in results.items() if result.arm is not None and result.times.rounds}
    if not timed:
        return
    fastest = min((result.times.median, key) for key, result in timed.items())[1]
    rows = []
    backends: list[tuple[Backend, int]] = [("resident", steps), ("stream", max(steps // 4, 2))]
    for backend, count in backends:
        loop = Result(timed[fastest].arm)
        with bench.guarded(loop, bench.arm_seconds):
            rows.append(data_share(bench, samples, config, loop, count, backend))
        if loop.ended:
            rows.append([backend, str(count), loop.ended, "", ""])
    report.add(
        f"With the data, arm {fastest}, preset {name}:\n\n"
        + table(["back end", "steps", "ms a step", "share of the time for data", "hours"], rows)
    )


# -- the run ----------------------------------------------------------------------------------------------------------


def benchmark(options: argparse.Namespace, samples: Path, report: Report) -> bool:
    """Everything, in the order of importance; True when nothing failed."""
    device = torch.device(options.device)
    bench = Bench(
        device,
        options.steps,
        options.rounds,
        options.compile,
        time.monotonic() + 60 * options.minutes,
        options.arm_seconds,
    )
    good = True
    rates = machine(device, report)
    weight_gradients(device, report)
    groups = [
        (name, items) for items in dict.fromkeys((options.items, options.small_items)) for name in options.presets
    ]
    configs = {group: configuration(*group, options.points) for group in groups}
    sizes = {
        kind: 2 * max(getattr(config.data, kind) for config in configs.values()) for kind in ("surface", "near", "free")
    }
    write_synthetic_samples(samples, 4 * options.items, sizes)
    for (name, items), config in configs.items():
        if bench.left() < 30:
            report.add(f"## Speed, preset {name}, batch {items}\n\nNo time left.")
            continue
        points = points_of(config)
        with open_source(samples, replace(config.data, backend="resident"), device) as source:
            batch = source.batch(0)
            start = start_model(config, source)
        if items == options.items:
            good &= correctness(start, batch, device, report, name)
        hours = (
            f" Hours: {FACESCAPE_EPOCHS} epochs of {FACESCAPE_ITEMS} heads at batch {PAPER_BATCH}, for which the paper reports {PAPER_HOURS} on two A40."
            if items == PAPER_BATCH
            else ""
        )
        exact = bench.begin(start, batch)
        results: dict[str, Result] = {}
        for number, stage in enumerate(STAGES):
            beside = {key: result for key, result in results.items() if key == BESIDE and result.arm is not None}
            results |= bench.compare(stage, start, batch, exact, beside)
            names = ", ".join(spec.name for spec in stage)
            report.add(
                f"## Speed, preset {name}, batch {items} × {points} points: {names}\n\n{options.rounds} rounds of {options.steps} steps, the arms in turns.{hours} "
                "Errors: loss and gradient of this batch against float64. Floor: the adjoint's products at the machine's tf32 (D: bf16) rate. "
                "Peak: one step with weights and Adam's moments, without data. First call: with compilation.\n\n"
                + speed_table(results, rates, items, points, device.type == "cuda")
            )
            good &= not bench.failed
            if number == 0 and items == options.items:
                loop_with_data(bench, samples, config, results, options.loop_steps, name, report)
        del results, exact, start, batch
        free_memory(device)
    return good and not bench.failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--presets", nargs="+", default=["paper"], choices=sorted(CONFIGURATIONS))
    parser.add_argument("--items", type=int, default=PAPER_BATCH, help="heads a step")
    parser.add_argument(
        "--small-items", type=int, help="the second batch size (default: 8, or --items when that is less)"
    )
    parser.add_argument("--points", type=int, help="points a head (default: the preset's, 16,384)")
    parser.add_argument("--steps", type=int, default=20, help="timed steps a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loop-steps", type=int, help="steps of the run with data (default: 5 × --steps)")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument(
        "--minutes", type=float, help="what does not fit is left out, and said to be (default: 6 for each preset)"
    )
    parser.add_argument(
        "--arm-seconds", type=float, default=120.0, help="longest time for the first call, or a round, of an arm"
    )
    parser.add_argument("--output", type=Path, help="write the Markdown there too")
    options = parser.parse_args()
    options.small_items = options.small_items or min(8, options.items)
    options.loop_steps = options.loop_steps or 5 * options.steps
    options.minutes = options.minutes or 6.0 * len(options.presets)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"torch {torch.__version__} sees no CUDA device; use --device cpu with small sizes")
    with tempfile.TemporaryDirectory() as folder:
        return 0 if benchmark(options, Path(folder) / "samples", Report(options.output)) else 1


if __name__ == "__main__":
    sys.exit(main())
