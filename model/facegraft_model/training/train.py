"""Training: plain torch, resumable at any step, on a CPU, a GPU, or several under torchrun."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from facegraft.seeds import derived_seed
from facegraft.store import AnyPath, Location, place
from facegraft_model.checkpoints import checkpoint as checkpoints
from facegraft_model.checkpoints.modelstate import model_state
from facegraft_model.checkpoints.optim_state import optimiser_tensors, restore_optimiser
from facegraft_model.config import Config, windows
from facegraft_model.data.batches import BatchSource
from facegraft_model.devices import free_bytes
from facegraft_model.errors import ModelError
from facegraft_model.method import Batch, Field
from facegraft_model.models import build_field
from facegraft_model.outofmemory import EAGER_BYTES, named_out_of_memory
from facegraft_model.training.checksums import check_together
from facegraft_model.training.compiling import decided, not_compiled
from facegraft_model.training.memory import Need, parts_that_fit, step_need
from facegraft_model.training.meter import Meter
from facegraft_model.training.parallel import Agreements, Processes, joined
from facegraft_model.training.precision import precision
from facegraft_model.training.progress import ReadingLine
from facegraft_model.training.runfolder import claim, describe_run, locked
from facegraft_model.training.runlog import RunLog
from facegraft_model.training.schedule import learning_rate_factor, parameter_groups
from facegraft_model.training.setup import begin, data_facts, open_source, template_facts
from facegraft_model.training.signals import StopSignals
from facegraft_model.training.skips import Skips
from facegraft_model.training.step import StepResult, optimise, step_module
from facegraft_model.training.validate import Validation

Ended = Callable[[int, int], None]
"""Called with the number of finished steps and that of all steps."""


def train(
    samples: AnyPath,
    run: str | os.PathLike[str],
    config: Config,
    *,
    device: str = "auto",
    seed: int = 0,
    progress: bool = True,
    ended: Ended | None = None,
) -> Path:
    """Train a model on the training subjects of a dataset of samples; the same call resumes. Returns the last checkpoint.

    Writes RUN/config.json, RUN/checkpoints/…, RUN/metrics.jsonl and RUN/tensorboard/. A signal (`StopSignals`) to any of the processes
    ends it early, with a checkpoint. ended: what to call at the end, in the process that writes. A step whose gradient is not finite is skipped
    and counted.
    Raises ModelError for samples that cannot be used, a run of another configuration or of other data, gradients that are not finite in
    many steps in a row, and insufficient memory.
    """
    config = config.checked()
    data = config.data
    what = f"{data.items} items of {sum(windows(data).values())} points are too many at once with a model of width {config.model.width}"
    with (
        joined(device) as processes,
        locked(Path(run), wanted=processes.first),
        precision(config.train, processes.device),
        named_out_of_memory(processes.device, what, (split := _Split(config, processes)).advice),
    ):
        training = _Run(place(samples), Path(run), config, processes, seed, progress, split)
        checkpoint = training.train()
    if ended is not None and processes.first:
        ended(training.step, training.total)
    return checkpoint


class _Split:
    """Into how many parts a batch is split: as many as `train.accumulate` says, or on a GPU as many as fit."""

    def __init__(self, config: Config, processes: Processes) -> None:
        self.config, self.processes = config, processes
        self.own, self.parts = max(config.data.items // processes.world, 1), config.train.accumulate
        self.points = sum(windows(config.data).values()) + config.data.stage
        self.free = free_bytes(processes.device)

    def fit(self, need: Need, room: float) -> str:
        """Split into as many parts as `room` bytes ask for. Returns a line to show, empty where `train.accumulate` is enough.

        With train.deterministic the number of parts, which decides how sums are rounded, must not follow from what else uses the
        GPU: it is only named.
        """
        device, asked = self.processes.device, self.config.train.accumulate
        found = parts_that_fit(need, self.own, asked, room)
        enough = int(self.processes.most(found or self.own)[0])
        most = need.bytes(self.own / asked)
        if enough == asked and found is not None:
            return ""
        what = f"a step of {self.own} items of {self.points:,} points needs about {most / 1e9:.1f} GB, and {device} has {room / 1e9:.1f} GB for it"
        if self.config.train.deterministic:
            return f"{what}: should it run out of memory, resume with train.accumulate={enough}"
        self.parts = enough
        if found is None and self.processes.world == 1:
            return f"{what}: its items are taken one by one, and even one may be too much; fewer data.surface make it smaller"
        return f"{what}: its items are taken in {enough} parts (train.accumulate={enough}), with the same result"

    def advice(self) -> str:
        """Which settings make a step smaller: those with which the run resumes, and others for a new one."""
        finer = [n for n in range(2 * self.parts, self.own + 1) if self.own % n == 0]
        sufficient = [n for n in finer if EAGER_BYTES * self.points * self.own / n <= self.free] or finer[-1:]
        accumulate = [f"train.accumulate={n} (the same result in parts)" for n in sufficient[:1]]
        resuming = " or ".join([*accumulate, "data.backend=stream (the dataset is kept off the device)"])
        return f"resume with {resuming}, or train into another folder with fewer data.items or data.surface"


class _Run:
    """One process's share of a training run: its state, and saving it."""

    def __init__(
        self,
        samples: Location,
        run: Path,
        config: Config,
        processes: Processes,
        seed: int,
        progress: bool,
        split: _Split,
    ) -> None:
        self.run, self.config, self.processes, self.seed, self.progress = run, config, processes, seed, progress
        self.samples, self.split = samples, split
        self.compiling = decided(config.train, processes)
        self.notes = [self.compiling.note]
        self.verify = not check_together(samples, processes, self._reading("comparing checksums, shards"))
        self._planned: tuple[Field, Need] | None = None
        self.source = source = open_source(
            samples,
            config.data,
            processes.device,
            seed=seed,
            rank=processes.rank,
            world=processes.world,
            reserve=self._reserve,
            verify=self.verify,
            report=self._reading("reading the samples, items"),
        )
        claim(run, describe_run(config, seed, source.fingerprint), write=processes.first)
        if processes.device.type == "cuda":
            self.field, need = self._plan(source)
            # What is resident is there by now, so what is free is for the steps.
            self.notes.append(split.fit(need, free_bytes(processes.device)))
        else:
            self.field = self._new_field(source)
        self.field.to(processes.device).provenance = {"data": data_facts(source)}
        if self.field.matmul is not None:
            self.field.matmul = replace(self.field.matmul, half=config.train.precision == "fp16-hidden")
        groups = parameter_groups(self.field, config.train)
        self.base_lrs = [group["lr"] for group in groups]
        self.optimiser = torch.optim.Adam(groups, fused=processes.device.type == "cuda")
        self.total = config.train.steps or math.ceil(config.train.epochs * source.steps_per_epoch)
        self.skips = Skips(processes.device)
        self.step = self._resume()

    def _reading(self, what: str) -> ReadingLine | None:
        return ReadingLine(what, sys.stderr) if self.progress and self.processes.first else None

    def _new_field(self, source: BatchSource) -> Field:
        return build_field(self.config, source.id_table, template_facts(source), source.mm_per_unit, self.seed)

    def _plan(self, source: BatchSource) -> tuple[Field, Need]:
        """A new field, and what a step of it needs; made once."""
        if self._planned is None:
            field = self._new_field(source)
            self._planned = field, step_need(field, source, self.compiling.on)
        return self._planned

    def _reserve(self, source: BatchSource) -> float:
        """Bytes to keep free of the dataset: those of a step in as many parts as fit into the memory that is free now."""
        _, need = self._plan(source)
        parts = parts_that_fit(need, self.split.own, self.config.train.accumulate, free_bytes(self.processes.device))
        return need.bytes(self.split.own / (parts or self.split.own))

    def _resume(self) -> int:
        """Load the run's latest checkpoint, if there is one; returns the number of finished steps."""
        if checkpoints.latest(self.run) is None:
            self._begin()
            return 0
        found = checkpoints.load(self.run)
        if found.state["data"]["fingerprint"] != self.source.fingerprint:
            raise ModelError(f"{found.path} was trained on other samples than {self.samples}; train into another folder")
        checkpoints.load_into(self.field, found.tensors, found.path)
        named = self.field.named_parameters()
        restore_optimiser(self.optimiser, named, found.optim(), found.state["optimiser"], found.path)
        all_of_them, in_a_row = found.state.get("skipped_steps", (0, 0))  # older checkpoints have none
        self.skips = Skips(self.processes.device, (all_of_them, in_a_row))
        return found.step

    def _begin(self) -> None:
        """Prepare a new model. Each process uses the whole batches, not its share of them: all must begin alike."""
        if self.processes.world == 1:
            begin(self.field, self.source, self.seed)
            return
        data = replace(self.config.data, backend="stream")  # a second copy on the device may not fit
        with open_source(self.samples, data, self.processes.device, seed=self.seed, verify=self.verify) as whole:
            begin(self.field, whole, self.seed)

    # -- the loop -----------------------------------------------------------------------------------------------------

    def train(self) -> Path:
        """Train to the last step, or until a signal. Returns the latest checkpoint."""
        with self.source:
            if self.step >= self.total:
                found = checkpoints.latest(self.run)
                assert found is not None
                return found
            with StopSignals() as stop, self._log() as log:
                return self._loop(stop, log)

    def _loop(self, stop: StopSignals, log: RunLog) -> Path:
        train, data, processes = self.config.train, self.config.data, self.processes
        self.module = step_module(self.field, processes, compiled=self.compiling.on)
        self._unproven = self.compiling.on
        for note in filter(None, self.notes):
            log.note(note)
        validation = Validation(self.samples, self.config, self.field, processes.device, self.seed)
        meter = Meter(data.items, sum(windows(data).values()), self.step)
        saved, path = time.monotonic(), self.run
        agreements = Agreements(processes, self.step)
        while self.step < self.total:
            # A step is a pure function of the weights, the optimiser and its number: the batch, the rate and the
            # random numbers all derive from these, so a resumed run continues as if it had not been stopped.
            self._set_learning_rate()
            with meter.waiting():
                batch = self.source.batch(self.step)
            # Filled on the device: a number that is copied there would be waited for.
            epoch = torch.full((), self.step / self.source.steps_per_epoch, device=processes.device)
            result = self._optimise(batch, epoch, log)
            self.skips.add(result.grad_norm)
            self.step += 1
            done = self.step == self.total

            # Reading the loss waits for the device, so it is not read at every step.
            if self.step % train.log_every == 0 or done:
                self._record(log, result, meter)
                meter.restart(self.step)
            if validation.due(self.step, done) and processes.first:
                log.log(self.step, {"split": "validation", **validation.measure(self.step)})
                meter.restart(self.step)

            # All processes do the same, or one would wait for ever for another's gradient: the first one's clock says
            # when a checkpoint is due, and a signal may reach any of them alone, or one step earlier than the others.
            late = processes.first and time.monotonic() - saved > 60 * train.checkpoint_minutes
            asked, late = agreements.any(self.step, stop.asked, late)
            if done or late or asked:
                log.sync()  # every step before a checkpoint must have its record
                path = self._save() or self.run
                saved = time.monotonic()
            if asked and not done:
                log.note(f"stopped at step {self.step} of {self.total}; run the same command again to continue")
                break
        return path

    def _optimise(self, batch: Batch, epoch: Tensor, log: RunLog) -> StepResult:
        """A step. A compiled one whose first call fails is taken again without compiling, and said to be (`not_compiled`)."""
        train = replace(self.config.train, accumulate=self.split.parts)
        seed = derived_seed(self.seed, "step", self.step, self.processes.rank)
        torch.manual_seed(seed)  # for methods with dropout
        try:
            result = optimise(self.module, self.optimiser, batch, epoch, train)
        except Exception as error:
            note = not_compiled(error, train, self.processes) if self._unproven else None
            if note is None:
                raise
            log.note(note)
            self.module = step_module(self.field, self.processes, compiled=False)
            torch.manual_seed(seed)
            result = optimise(self.module, self.optimiser, batch, epoch, train)
        self._unproven = False
        return result

    # -- saving, logging and validation -------------------------------------------------------------------------------

    def _log(self) -> RunLog:
        rank = self.processes.rank
        return RunLog(
            self.run, total_steps=self.total, resume_step=self.step, progress=self.progress, rank=rank
        )

    def _set_learning_rate(self) -> None:
        factor = learning_rate_factor(self.config.train, self.step, self.source.steps_per_epoch, self.total)
        for group, lr in zip(self.optimiser.param_groups, self.base_lrs, strict=True):
            group["lr"] = lr * factor

    def _record(self, log: RunLog, result: StepResult, meter: Meter) -> None:
        """Log a step: loss and terms over all processes. Raises ModelError when many steps in a row were skipped."""
        values = self.processes.mean(torch.stack([result.loss, *result.terms.values()])).tolist()
        skipped, new = self.skips.checked(self.step)
        if new:
            log.note(f"step {self.step}: {new} steps since the last record had a gradient that is not finite, and were skipped ({skipped} so far)")
        record = dict(zip(["loss", *result.terms], values, strict=True)) | {
            "grad_norm": float(result.grad_norm), "skipped_steps": skipped
        }
        rates = meter.rates(self.step)
        record |= {name: getattr(rates, name) for name in ("points_per_s", "step_ms", "data_wait_ms")}
        record |= self.field.counters()
        record |= {"lr": self.optimiser.param_groups[0]["lr"], "epoch": self.step / self.source.steps_per_epoch}
        if self.processes.device.type == "cuda":
            record["peak_gb"] = torch.cuda.max_memory_allocated(self.processes.device) / 1e9
        log.log(self.step, record)
        log.progress(self.step, rates.items_per_s, record["loss"], rates.points_per_s)

    def _save(self) -> Path | None:
        if not self.processes.first:
            return None
        tensors, description = optimiser_tensors(self.optimiser, self.field.named_parameters())
        state = model_state(self.field, self.seed) | {"optimiser": description, "skipped_steps": self.skips.read()}
        keep = self.config.train.keep_checkpoints
        return checkpoints.save(self.run, self.step, self.field.state_dict(), tensors, state, keep)
