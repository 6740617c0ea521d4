"""The number of training steps that a budget of seconds pays for: a few steps are timed, and the pace is kept in a file.

Seconds are those of the processor (`time.process_time`, summed over threads) on a CPU, so that other load on the machine does not
count, and those of the clock on a GPU. Counted are the steps, with their batches, and the work of a method before its first step
(`Field.begin`). Opening the dataset, compiling and validation are not.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from facegraft.store import AnyPath, write_json_atomic
from facegraft_model.config import Config
from facegraft_model.data.batches import BatchSource
from facegraft_model.errors import ModelError
from facegraft_model.method import Field
from facegraft_model.models import build_field
from facegraft_model.outofmemory import named_out_of_memory
from facegraft_model.training.compiling import decided
from facegraft_model.training.parallel import joined
from facegraft_model.training.precision import precision
from facegraft_model.training.schedule import parameter_groups
from facegraft_model.training.setup import begin, open_source, template_facts
from facegraft_model.training.step import optimise, step_module

PACE_FILE = "budget.json"
WARM_UP = 3
"""Steps before those that are timed: the first ones allocate and compile."""
TIMED_SECONDS, FEWEST, MOST = 3.0, 3, 50
"""The timed steps take at least this long, within these counts."""

@dataclass(frozen=True)
class Pace:
    """Seconds of a training step, seconds before the first step, and steps in an epoch."""

    seconds_per_step: float
    seconds_before: float
    steps_per_epoch: float

    def steps_in(self, seconds: float) -> int:
        """Steps that a budget pays for. Raises ModelError where it does not pay for one."""
        steps = int((seconds - self.seconds_before) / self.seconds_per_step)
        if steps < 1:
            raise ModelError(
                f"{seconds:g} seconds do not pay for one step: {self.seconds_before:.1f} s before the first and {self.seconds_per_step:.2f} s "
                "for each; give more seconds, or a smaller model or batch (--set data.items=4)"
            )
        return steps

    def seconds_at(self, step: int) -> float:
        """Seconds of training when a step is finished."""
        return self.seconds_before + step * self.seconds_per_step


def pace_of(folder: Path, samples: AnyPath, config: Config, device: str, seed: int) -> Pace:
    """The pace in FOLDER/budget.json, if it is of this configuration and device; otherwise it is measured and written there.

    So a resumed comparison trains for the same number of steps. Raises ModelError for a damaged file, and the errors of
    `measured_pace`.
    """
    path = folder / PACE_FILE
    of = {"config": _timed_settings(config), "device": device}
    if path.exists():
        try:
            document = json.loads(path.read_bytes())
            if document["of"] == json.loads(json.dumps(of)):
                return Pace(**document["pace"])
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"{path} is damaged ({error!r}); delete it and the run beside it, and train anew"
            ) from error
    pace = measured_pace(samples, config, device=device, seed=seed)
    write_json_atomic(path, {"of": of, "pace": asdict(pace)})
    return pace


def measured_pace(samples: AnyPath, config: Config, *, device: str = "auto", seed: int = 0) -> Pace:
    """Time a few steps of a new model. Raises ModelError as training does: for samples that cannot be used, or too little memory."""
    with (
        joined(device) as processes,
        precision(config.train, processes.device),
        named_out_of_memory(processes.device, f"{config.data.items} items", "lower data.items or data.surface"),
        open_source(samples, config.data, processes.device, seed=seed) as source,
    ):
        field = build_field(config, source.id_table, template_facts(source), source.mm_per_unit, seed)
        field.to(processes.device).train()
        before = _before_first_step(field, source, seed)
        optimiser = torch.optim.Adam(parameter_groups(field, config.train), lr=config.train.lr)
        module = step_module(field, processes, compiled=decided(config.train, processes).on)

        def step(number: int) -> None:
            epoch = torch.full((), number / source.steps_per_epoch, device=processes.device)
            optimise(module, optimiser, source.batch(number), epoch, config.train)

        for number in range(WARM_UP):
            step(number)
        began, count = _now(processes.device), 0
        elapsed = 0.0
        while count < FEWEST or (count < MOST and elapsed < TIMED_SECONDS):
            step(WARM_UP + count)
            count += 1
            elapsed = _now(processes.device) - began
        return Pace(elapsed / count, before, source.steps_per_epoch)


def total_steps(config: Config, pace: Pace) -> int:
    """The number of steps of a configuration without a budget."""
    return config.train.steps or math.ceil(config.train.epochs * pace.steps_per_epoch)


def _before_first_step(field: Field, source: BatchSource, seed: int) -> float:
    """Do what a method does with the data before its first step, and return the seconds that it took."""
    device = field.template_points.device
    began = _now(device)
    begin(field, source, seed)
    return _now(device) - began


def _now(device: torch.device) -> float:
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def _timed_settings(config: Config) -> dict[str, Any]:
    """The settings on which the time of a step depends; not the length of the training."""
    document = config.to_json()
    document["train"] = {name: document["train"][name] for name in ("accumulate", "precision", "compile", "pretrain")}
    document.pop("fit")
    document.pop("preset")
    return document
