"""The training loop: plain torch, resumable at any step, on a CPU, a GPU, or several under torchrun."""

from __future__ import annotations

import fcntl
import math
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from facegraft.store import place, write_json_atomic
from facegraft.vocabulary import TRAIN
from facegraft_model.config import Config, TrainConfig
from facegraft_model.data.batches import BatchSource
from facegraft_model.errors import ModelError
from facegraft_model.field import FaceField
from facegraft_model.method import Batch, Field, TemplateFacts, Terms
from facegraft_model.models import build_field
from facegraft_model.modelstate import model_state
from facegraft_model.nets.siren import Matmul
from facegraft_model.outofmemory import named_out_of_memory
from facegraft_model.seeds import derived_seed
from facegraft_model.training import checkpoint as checkpoints
from facegraft_model.training.optim_state import optimiser_tensors, restore_optimiser
from facegraft_model.training.parallel import Processes, joined
from facegraft_model.training.runlog import RunLog
from facegraft_model.training.validate import Validation

CONFIG_FILE = "config.json"
FREE_TO_CHANGE = {
    "data": {"backend"},
    "train": {
        "steps",
        "compile",
        "log_every",
        "checkpoint_minutes",
        "keep_checkpoints",
        "validate_every",
        "validate_steps",
        "deterministic",
    },
    "fit": {item.name for item in fields(Config().fit)},
}
"""Settings that may differ when a run is resumed: they do not change what the next step computes."""


class TrainingStep(nn.Module):
    """Loss of a batch: one module, so that one graph can be compiled and DDP sees every parameter."""

    def __init__(self, field: Field) -> None:
        super().__init__()
        self.field = field

    def forward(self, batch: Batch, epoch: Tensor) -> tuple[Tensor, Terms]:
        terms = self.field.training_terms(batch, self.field.codes_of(batch), epoch)
        return torch.stack(list(terms.values())).sum(), terms


def train(
    samples: str | os.PathLike[str],
    run: str | os.PathLike[str],
    config: Config,
    *,
    device: str = "auto",
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Train a model on the training subjects of a dataset of samples; the same call resumes. Returns the last checkpoint.

    Writes RUN/config.json, RUN/checkpoints/…, RUN/metrics.jsonl and RUN/tensorboard/.
    Raises ModelError for samples that cannot be trained on, a run of another configuration or of other data, a loss that is no longer
    a number, and memory that does not suffice.
    """
    config = config.checked()
    data = config.data
    what = f"{data.items} items of {data.surface + data.near + data.free} points are too many at once with a model of width {config.model.width}"
    knob = (
        f"set train.accumulate to {2 * config.train.accumulate} (the same result in parts), lower data.items or data.surface, "
        "or keep the dataset off the device (data.backend=stream)"
    )
    with (
        joined(device) as processes,
        _locked(Path(run), processes),
        _precision(config.train, processes.device),
        named_out_of_memory(processes.device, what, knob),
    ):
        return _Run(place(samples), Path(run), config, processes, seed, progress).train()


class _Run:
    """One process's share of a training run."""

    def __init__(
        self, samples: Path, run: Path, config: Config, processes: Processes, seed: int, progress: bool
    ) -> None:
        self.run, self.config, self.processes, self.seed, self.progress = run, config, processes, seed, progress
        self.source = _open_source(samples, config, processes, seed)
        self.data: dict[str, Any] = {
            "samples": str(samples.resolve()),
            "fingerprint": self.source.fingerprint,
            "coordinates": self.source.coordinates,
            "neutral_expression": self.source.neutral_expression,
        }
        self._check_same_run()
        source = self.source
        if source.stage_template is None or source.landmarks_template is None or source.stage_parts is None:
            raise ModelError(
                f"{samples} holds no template morph, which the models learn their template from; sample surfaces that were cleaned from "
                "composites and heads together (facegraft clean COMPOSITES HEADS -o SURFACES)"
            )
        template = TemplateFacts(source.landmarks_template.cpu(), source.stage_template.cpu(), source.stage_parts.cpu())
        self.field = build_field(config, source.id_table, template, source.mm_per_unit, seed).to(processes.device)
        self.field.provenance = {"data": self.data}
        if isinstance(self.field, FaceField):
            self.field.matmul = Matmul(config.train.precision == "fp16-hidden")
        groups = parameter_groups(self.field, config.train)
        self.base_lrs = [group["lr"] for group in groups]
        self.optimiser = torch.optim.Adam(groups, fused=processes.device.type == "cuda")
        self.total = config.train.steps or math.ceil(config.train.epochs * source.steps_per_epoch)
        self.step = self._resume()

    # -- what may be resumed ------------------------------------------------------------------------------------------

    def _check_same_run(self) -> None:
        """Raises ModelError when the folder holds a run of another configuration, seed or dataset."""
        document: dict[str, Any] = {
            "config": self.config.to_json(),
            "seed": self.seed,
            "fingerprint": self.source.fingerprint,
        }
        path = self.run / CONFIG_FILE
        if checkpoints.latest(self.run) is None:  # nothing was learnt yet, so nothing can be at odds with it
            if self.processes.first:
                write_json_atomic(path, document)
            return
        if not path.exists():
            raise ModelError(f"{self.run} holds checkpoints but no {CONFIG_FILE}; train into another folder")
        before = read_run_config(self.run)
        differing = [name for name in ("seed", "fingerprint") if before[name] != document[name]]
        then, now = Config.from_json(before["config"], str(path)).to_json(), document["config"]
        for group, values in now.items():
            if group == "preset":
                continue
            free = FREE_TO_CHANGE.get(group, set())
            if now["train"]["schedule"] == "cosine":  # its rate at every step depends on how many there are
                free = free - {"steps"}
            differing += [
                f"{group}.{name} ({then[group][name]!r} before, {value!r} now)"
                for name, value in values.items()
                if name not in free and then[group][name] != value
            ]
        if differing:
            raise ModelError(
                f"{self.run} was trained with other settings: {', '.join(differing)}; use the same ones to resume, or another folder"
            )

    def _resume(self) -> int:
        if checkpoints.latest(self.run) is None:
            return 0
        found = checkpoints.load(self.run)
        if found.state["data"]["fingerprint"] != self.source.fingerprint:
            raise ModelError(
                f"{found.path} was trained on other samples than {self.source.store.path}; train into another folder"
            )
        checkpoints.load_into(self.field, found.tensors, found.path)
        restore_optimiser(
            self.optimiser, self.field.named_parameters(), found.optim(), found.state["optimiser"], found.path
        )
        return found.step

    # -- the loop -----------------------------------------------------------------------------------------------------

    def train(self) -> Path:
        with self.source:
            return self._train()

    def _train(self) -> Path:
        train, data, device = self.config.train, self.config.data, self.processes.device
        if self.step >= self.total:
            found = checkpoints.latest(self.run)
            assert found is not None
            return found
        module = self._module()
        points = data.items * (data.surface + data.near + data.free)
        stop = _StopSignals()
        validation = Validation(place(self.data["samples"]), self.config, self.field, device, self.seed)
        saved, path = time.monotonic(), None
        waited, since, since_step = 0.0, time.perf_counter(), self.step
        with (
            stop,
            RunLog(
                self.run,
                total_steps=self.total,
                resume_step=self.step,
                progress=self.progress,
                rank=self.processes.rank,
            ) as log,
        ):
            while self.step < self.total:
                self._set_learning_rate()
                began = time.perf_counter()
                batch = self.source.batch(self.step)
                waited += time.perf_counter() - began
                loss, terms, norm = self._optimise(module, batch)
                self.step += 1
                done = self.step == self.total
                if self.step % train.log_every == 0 or done:
                    record = self._record(loss, terms) | {"grad_norm": float(norm)}
                    elapsed, count = time.perf_counter() - since, self.step - since_step
                    record |= {
                        "points_per_s": points * count / elapsed,
                        "step_ms": 1e3 * elapsed / count,
                        "data_wait_ms": 1e3 * waited / count,
                        "lr": self.optimiser.param_groups[0]["lr"],
                        "epoch": self.step / self.source.steps_per_epoch,
                    }
                    if device.type == "cuda":
                        record["peak_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
                    log.log(self.step, record)
                    log.progress(self.step, data.items * count / elapsed, record["loss"], points * count / elapsed)
                    waited, since, since_step = 0.0, time.perf_counter(), self.step
                if validation.due(self.step, done) and self.processes.first:
                    log.log(self.step, {"split": "validation", **validation.measure(self.step)})
                    since, since_step, waited = time.perf_counter(), self.step, 0.0
                late = time.monotonic() - saved > 60 * train.checkpoint_minutes
                asked = bool(self.processes.agreed(float(stop.asked)))
                if self.processes.agreed(float(done or late)) or asked:
                    log.sync()
                    path = self._save()
                    saved = time.monotonic()
                if asked:
                    log.note(f"stopped at step {self.step} of {self.total}; the same command goes on from there")
                    break
        return path if path is not None else self.run

    def _module(self) -> nn.Module:
        step = TrainingStep(self.field)
        device = self.processes.device
        if self.config.train.compile == "on" or (self.config.train.compile == "auto" and device.type == "cuda"):
            step.compile(fullgraph=True, dynamic=False)
        if self.processes.world == 1:
            return step
        return DistributedDataParallel(step, device_ids=[device] if device.type == "cuda" else None)

    def _optimise(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Terms, Tensor]:
        """One optimiser step: loss, terms, norm of the gradient before clipping.

        The batch goes through in `accumulate` equal parts, whose gradients add up to the whole's.
        """
        train = self.config.train
        self.optimiser.zero_grad(set_to_none=True)
        torch.manual_seed(
            derived_seed(self.seed, "step", self.step, self.processes.rank)
        )  # dropout, where a method has it
        epoch = torch.tensor(self.step / self.source.steps_per_epoch, device=self.processes.device)
        total: Terms = {}
        loss = torch.zeros((), device=self.processes.device)
        parts = split_batch(batch, train.accumulate)
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            quiet = module.no_sync() if isinstance(module, DistributedDataParallel) and not last else nullcontext()
            with quiet:
                part_loss, terms = module(part, epoch)
                (part_loss / len(parts)).backward()
            loss = loss + part_loss.detach() / len(parts)
            total = {name: total.get(name, 0) + value.detach() / len(parts) for name, value in terms.items()}
        norm = nn.utils.clip_grad_norm_(self.field.parameters(), train.clip_grad or math.inf)
        self.optimiser.step()
        return loss, total, norm

    def _set_learning_rate(self) -> None:
        factor = learning_rate_factor(self.config.train, self.step, self.source.steps_per_epoch, self.total)
        for group, lr in zip(self.optimiser.param_groups, self.base_lrs, strict=True):
            group["lr"] = lr * factor

    def _record(self, loss: Tensor, terms: Terms) -> dict[str, Any]:
        """Loss and terms of a step, over all processes."""
        values = self.processes.mean(torch.stack([loss, *terms.values()])).tolist()
        if not math.isfinite(values[0]):
            raise ModelError(
                f"the loss became {values[0]} at step {self.step}; the checkpoints before are kept. Lower train.lr, or set train.clip_grad (such as 1e3)"
            )
        return dict(zip(["loss", *terms], values, strict=True))

    def _save(self) -> Path | None:
        if not self.processes.first:
            return None
        tensors, description = optimiser_tensors(self.optimiser, self.field.named_parameters())
        state = model_state(self.field, self.data, self.seed) | {"optimiser": description}
        return checkpoints.save(
            self.run, self.step, self.field.state_dict(), tensors, state, self.config.train.keep_checkpoints
        )


def parameter_groups(field: Field, train: TrainConfig) -> list[dict[str, Any]]:
    """Parameters by learning rate: networks, last layers of hyper-networks, latent codes."""
    rates = {"networks": train.lr, "heads": train.head_lr or train.lr, "codes": train.code_lr or train.lr}
    rates |= {prefix: train.lr * factor for prefix, factor in field.lr_factors.items()}
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in rates}
    for name, parameter in field.named_parameters():
        own = next((prefix for prefix in field.lr_factors if name.startswith(prefix)), None)
        kind = "codes" if name.startswith("tables.") else "heads" if ".heads." in name else "networks"
        groups[own or kind].append(parameter)
    return [{"params": parameters, "lr": rates[name]} for name, parameters in groups.items() if parameters]


def learning_rate_factor(train: TrainConfig, step: int, steps_per_epoch: float, total: int) -> float:
    """Learning rate of a step relative to the highest: a pure function, so that nothing has to be saved."""
    warmup = min(1.0, (step + 1) / (train.warmup_steps + 1))
    if train.schedule == "cosine":
        return warmup * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(step / total, 1.0))))
    epoch = step / steps_per_epoch
    drops = 0 if epoch < train.lr_from else int((epoch - train.lr_from) // train.lr_every) + 1
    return warmup * train.lr_factor**drops


def split_batch(batch: Batch, parts: int) -> list[Batch]:
    """A batch as equal parts of its items. Raises ModelError when they do not come out equal."""
    if parts == 1:
        return [batch]
    count = len(batch["item"])
    if count % parts:
        raise ModelError(f"{count} items of a process cannot be split into train.accumulate={parts} equal parts")
    shared = {"stage_part_labels"}
    size = count // parts
    return [
        {name: value if name in shared else value[index * size : (index + 1) * size] for name, value in batch.items()}
        for index in range(parts)
    ]


def read_run_config(run: Path) -> Mapping[str, Any]:
    """RUN/config.json: configuration, seed and fingerprint of the data. Raises ModelError when it is none."""
    import json

    try:
        document = json.loads((run / CONFIG_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{run / CONFIG_FILE} cannot be read: {error}; is this the folder of a training run?"
        ) from error
    if not isinstance(document, dict) or not {"config", "seed", "fingerprint"} <= set(document):
        raise ModelError(f"{run / CONFIG_FILE} is no configuration of a training run")
    return document


def _open_source(samples: Path, config: Config, processes: Processes, seed: int) -> BatchSource:
    data = config.data
    return BatchSource(
        samples,
        items=data.items,
        surface=data.surface,
        near=data.near,
        free=data.free,
        stage=data.stage,
        seed=seed,
        split=TRAIN,
        origins=None if data.origins == "all" else (data.origins,),
        device=processes.device,
        backend=data.backend,
        rank=processes.rank,
        world=processes.world,
    )


@contextmanager
def _locked(run: Path, processes: Processes) -> Iterator[None]:
    """One training at a time in a folder. Raises ModelError when another holds it."""
    if not processes.first:
        yield
        return
    run.mkdir(parents=True, exist_ok=True)
    with (run / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ModelError(
                f"{run} is being trained by another process; wait for it, or train into another folder"
            ) from error
        yield


@contextmanager
def _precision(train: TrainConfig, device: torch.device) -> Iterator[None]:
    """Precision of matrix products for the time of the training."""
    wanted = train.precision
    if wanted == "auto":
        wanted = "tf32" if device.type == "cuda" else "fp32"
    before = torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.set_float32_matmul_precision("highest" if wanted == "fp32" else "high")
    if train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.use_deterministic_algorithms(deterministic)


class _StopSignals:
    """SIGTERM and Ctrl-C end training after the step that is under way, with a checkpoint."""

    asked = False

    def __enter__(self) -> None:
        try:
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not the main thread: whoever started the thread handles signals
            self._before = {}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


__all__ = ["TrainingStep", "learning_rate_factor", "read_run_config", "split_batch", "train"]
