"""The log of a training run: metrics.jsonl always, TensorBoard when it is installed, a progress line on stderr.

metrics.jsonl has one JSON object per line: "step", then the measured values (loss, each of its terms, points_per_s, data_wait_ms, …);
records of the validation set have "split": "validation". A value that is not finite is written as null. A line is written by one
system call, so a killed process leaves at most an incomplete last line, without a newline; readers ignore it.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from facegraft.store import atomic
from facegraft_model.errors import ModelError
from facegraft_model.training.progress import ProgressLine

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class LogError(ModelError):
    """The log of a run cannot be read or written: which file, which line, and what to do."""


class RunLog:
    """Writes the log of a run; on ranks above 0 it does nothing. Use it in a `with`, or close it.

    run: its folder, created if missing. total_steps: for the progress line. resume_step: finished steps of the checkpoint from which
    training resumes: records of later steps are dropped (they will be written again), so that curves have no repeats.
    tensorboard, progress: whether to write event files and to show progress.
    Raises LogError when the log is damaged or cannot be written.
    """

    def __init__(
        self,
        run: str | os.PathLike[str],
        *,
        total_steps: int,
        resume_step: int = 0,
        tensorboard: bool = True,
        progress: bool = True,
        rank: int = 0,
    ) -> None:
        self.path = Path(run) / METRICS_FILE
        self._descriptor: int | None = None
        self._events: Any = None
        self._line: ProgressLine | None = None
        if rank > 0:
            return
        if progress:
            self._line = ProgressLine(total_steps, sys.stderr)
        dropped = truncate_metrics(run, resume_step)
        if dropped:
            self.note(f"{self.path}: dropped {dropped} lines after step {resume_step}, from which training resumes")
        try:
            atomic.make_folder(Path(run))
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise LogError(f"cannot write {self.path}: {error.strerror or error}; mend that and resume") from error
        if tensorboard:
            self._open_events(Path(run) / TENSORBOARD_FOLDER, resume_step)

    def _open_events(self, folder: Path, resume_step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.note(f"tensorboard is not installed (pip install tensorboard): the curves are only in {METRICS_FILE}")
            return
        # TensorBoard hides the events of earlier writers from purge_step on.
        self._events = SummaryWriter(str(folder), purge_step=resume_step + 1)

    def log(self, step: int, record: Mapping[str, Any]) -> None:
        """Append a record: numbers (also numpy's and tensors of one element), text, or None. Raises LogError."""
        if self._descriptor is None:
            return
        plain = {"step": step, **{name: _plain(name, value) for name, value in record.items() if name != "step"}}
        data = (json.dumps(plain, allow_nan=False, ensure_ascii=False) + "\n").encode()
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            raise LogError(
                f"cannot write {self.path}: {error.strerror or error}; mend that and resume from the last checkpoint"
            ) from error
        if self._events is not None:
            split = plain.get("split", "train")
            for name, value in plain.items():
                if name != "step" and isinstance(value, int | float):
                    self._events.add_scalar(f"{split}/{name}", value, step)

    def progress(self, step: int, items_per_s: float, loss: float, points_per_s: float | None = None) -> None:
        """Show a finished step on stderr: a bar on a terminal, else a line about every 30 seconds."""
        if self._line is not None:
            self._line.update(step, items_per_s, loss, points_per_s)

    def note(self, text: str) -> None:
        """Print a line on stderr without damaging the progress bar."""
        if self._line is not None:
            self._line.note(text)

    def sync(self) -> None:
        """Flush the log to the disk; call it before a checkpoint, so that all steps before the checkpoint have their record."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        if self._line is not None:
            self._line.close()
        if self._events is not None:
            self._events.close()
            self._events = None
        if self._descriptor is not None:
            os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(run: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a run in the order of writing; empty when it has no log. A line that is still being written is left out.

    Raises LogError with the number of a line that is not a record.
    """
    path = Path(run) / METRICS_FILE
    return [_record(path, number, line) for number, line in enumerate(_lines(path), 1)]


def truncate_metrics(run: str | os.PathLike[str], step: int) -> int:
    """Drop the records of steps after `step` and an incomplete last line; returns the number of dropped lines.

    The file is replaced atomically. Raises LogError for a damaged line.
    """
    path = Path(run) / METRICS_FILE
    lines = _lines(path)
    kept = [line for number, line in enumerate(lines, 1) if _record(path, number, line)["step"] <= step]
    data = b"".join(line + b"\n" for line in kept)
    size = path.stat().st_size if path.exists() else 0
    if len(data) == size:
        return 0
    atomic.write_bytes_atomic(path, data)
    torn = size > sum(len(line) + 1 for line in lines)
    return len(lines) - len(kept) + torn


def _lines(path: Path) -> list[bytes]:
    """The lines that end in a newline, without it."""
    try:
        return path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LogError(f"cannot read {path}: {error.strerror or error}") from error


def _record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LogError(f"{path}: line {number} is not JSON; remove that line") from error
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        raise LogError(f"{path}: line {number} is not a record with a 'step'; remove that line")
    return record


def _plain(name: str, value: Any) -> int | float | str | None:
    """A value for JSON; numpy and torch scalars by their item()."""
    if isinstance(value, np.generic | np.ndarray | torch.Tensor) and math.prod(value.shape) == 1:
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    raise LogError(f"the record has a {type(value).__name__} under {name!r}; log one number, a text or None")
