"""The folder of a run: its lock, and the settings that must be the same when training resumes."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from facegraft.store import write_json_atomic
from facegraft_model.checkpoints.checkpoint import latest
from facegraft_model.config import Config, FitConfig
from facegraft_model.errors import ModelError

CONFIG_FILE = "config.json"
FREE_TO_CHANGE = {
    "data": {"backend"},
    "train": {
        "steps",
        "accumulate",
        "compile",
        "log_every",
        "checkpoint_minutes",
        "keep_checkpoints",
        "validate_every",
        "validate_steps",
        "deterministic",
    },
    "fit": {item.name for item in fields(FitConfig)},
}
"""Settings that may differ when a run is resumed: they do not change the result of the next step, or only its rounding."""


def describe_run(config: Config, seed: int, fingerprint: str) -> dict[str, Any]:
    """The content of RUN/config.json. fingerprint: of the samples."""
    return {"config": config.to_json(), "seed": seed, "fingerprint": fingerprint}


def claim(run: Path, document: Mapping[str, Any], *, write: bool) -> None:
    """Write RUN/config.json, or check that existing checkpoints are of the same run. document: of `describe_run`.

    write: whether this process writes. Raises ModelError when the folder holds a run of another configuration, seed or dataset.
    """
    path = run / CONFIG_FILE
    if latest(run) is None:  # no checkpoint yet, so nothing can contradict it
        if write:
            write_json_atomic(path, document)
        return
    if not path.exists():
        raise ModelError(f"{run} holds checkpoints but no {CONFIG_FILE}; train into another folder")
    before = read_run_config(run)
    differing = [name for name in ("seed", "fingerprint") if before[name] != document[name]]
    then, now = Config.from_json(before["config"], str(path)).to_json(), document["config"]
    for group, values in now.items():
        if group == "preset":
            continue
        free = FREE_TO_CHANGE.get(group, set())
        if now["train"]["schedule"] == "cosine":  # the learning rate at every step depends on the number of steps
            free = free - {"steps"}
        differing += [
            f"{group}.{name} ({then[group][name]!r} before, {value!r} now)"
            for name, value in values.items()
            if name not in free and then[group][name] != value
        ]
    if differing:
        raise ModelError(
            f"{run} was trained with other settings: {', '.join(differing)}; use the same ones to resume, or another folder"
        )


def read_run_config(run: Path) -> Mapping[str, Any]:
    """RUN/config.json: configuration, seed and fingerprint of the data. Raises ModelError when the file is not valid."""
    try:
        document = json.loads((run / CONFIG_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{run / CONFIG_FILE} cannot be read: {error}; is this the folder of a training run?"
        ) from error
    if not isinstance(document, dict) or not {"config", "seed", "fingerprint"} <= set(document):
        raise ModelError(f"{run / CONFIG_FILE} is not a configuration of a training run")
    return document


@contextmanager
def locked(run: Path, *, wanted: bool = True) -> Iterator[None]:
    """Lock the folder, so that only one training uses it; only processes that write take the lock (`wanted`). Raises ModelError
    when another process has it."""
    if not wanted:
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
