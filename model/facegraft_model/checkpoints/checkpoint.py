"""Checkpoints of a training run: written atomically, checked byte by byte when read, and never pickled.

A run keeps them as

    RUN/checkpoints/step_00001234/model.safetensors   parameters and buffers by name
                                  optim.safetensors   the optimiser's moments (absent when there is no optimiser)
                                  state.json          sizes and checksums of both, and the caller's state
    RUN/checkpoints/latest                            the name of the folder to resume from

A folder is written under a temporary name, flushed to the disk and renamed; then `latest` is replaced atomically, and only
then are older folders removed. So a process that is killed at any moment leaves the previous checkpoint intact.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from facegraft.store import DamagedError, atomic
from facegraft.store.document import CHECKSUM, seal, unseal
from facegraft_model.checkpoints.tensor_file import (
    REMEDY,
    CheckpointError,
    check_fits,
    check_names,
    is_count,
    is_record,
    plain_tensors,
    read_tensors,
    read_whole,
    write_tensors,
)

FORMAT_NAME = "facegraft checkpoint"
FORMAT_VERSION = 1

CHECKPOINT_FOLDER = "checkpoints"
LATEST_FILE = "latest"
MODEL_FILE = "model.safetensors"
OPTIM_FILE = "optim.safetensors"
STATE_FILE = "state.json"

# The second name of a step is used when the step is saved again while `latest` still points to the first.
_FOLDER_NAME = re.compile(r"step_(\d{8,})(-2)?")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose model file has been read and checked.

    path: its folder. step: finished training steps. tensors: model tensors by name, on the CPU; those that a published model stores
    in 16 bits are float32 again.
    state: the `state` passed to `save`, as read back from JSON (tuples are lists).
    """

    path: Path
    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]
    torch_version: str
    _files: dict[str, Any] = field(repr=False)

    @property
    def model_sha256(self) -> str:
        """The sha256 of the file of the model's tensors."""
        found: str = self._files[MODEL_FILE]["sha256"]
        return found

    def optim(self) -> dict[str, Tensor]:
        """The optimiser's tensors, read and checked now (twice the size of the model). Raises CheckpointError."""
        if OPTIM_FILE not in self._files:
            raise CheckpointError(f"{self.path}: was saved without an optimiser, so training cannot resume from it")
        return read_tensors(self.path / OPTIM_FILE, self._files[OPTIM_FILE])


# -- writing ----------------------------------------------------------------------------------------------------------


def save(
    run: str | os.PathLike[str],
    step: int,
    model_tensors: Mapping[str, Tensor],
    optim_tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    keep: int = 2,
) -> Path:
    """Write the checkpoint of a step, point `latest` at it, then remove all but the newest `keep`. Returns its folder.

    model_tensors: e.g. `field.state_dict()`, any device. optim_tensors: of `optimiser_tensors`; empty for none.
    state: anything that JSON can hold (configuration, id table, mm per unit, fingerprint of the data, …).
    A step may be saved again: the new checkpoint replaces the old one once it is complete, sometimes under the step's second name.
    Raises CheckpointError for a number that is not finite (earlier checkpoints are kept), for a tensor that safetensors has no
    type for, and where the disk cannot be written; StoreError for a state that is not writable as JSON.
    """
    if step < 0 or keep < 1:
        raise CheckpointError(
            f"a checkpoint needs a step >= 0 and keep >= 1, not step {step} and keep {keep}"
        )
    parent = Path(run) / CHECKPOINT_FOLDER
    where = f"checkpoint of step {step} in {run}"
    payloads = {MODEL_FILE: plain_tensors(model_tensors, f"{where}: {MODEL_FILE}")}
    if optim_tensors:
        payloads[OPTIM_FILE] = plain_tensors(optim_tensors, f"{where}: {OPTIM_FILE}")
    document = _document(step, state)
    atomic.canonical_json(document)  # raises for an unwritable state before anything is written
    temporary = parent / atomic.temporary_name(_folder_name(step))
    try:
        atomic.make_folder(parent)
        _remove_leftovers(parent)
        temporary.mkdir()
        try:
            files = {name: write_tensors(temporary / name, tensors) for name, tensors in payloads.items()}
            atomic.write_and_sync(temporary / STATE_FILE, seal({**document, "files": files}))
            atomic.sync_folder(temporary)
            final = _free_name(parent, step)
            temporary.rename(final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        atomic.sync_folder(parent)
        atomic.write_bytes_atomic(parent / LATEST_FILE, f"{final.name}\n".encode())
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full; free space" if full else f"{error.strerror or error}; mend that"
        raise CheckpointError(
            f"cannot write the {where}: {reason} and resume, the previous checkpoint is untouched"
        ) from error
    prune(run, keep)
    return final


def write_weights(folder: Path, step: int, model_tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write a checkpoint without optimiser into an existing folder of any name, from which `load` reads it.

    Raises CheckpointError and StoreError as `save` does.
    """
    tensors = plain_tensors(model_tensors, f"{folder / MODEL_FILE}")
    files = {MODEL_FILE: write_tensors(folder / MODEL_FILE, tensors)}
    atomic.write_and_sync(folder / STATE_FILE, seal({**_document(step, state), "files": files}))


def _document(step: int, state: Mapping[str, Any]) -> dict[str, Any]:
    """state.json without the records of the files."""
    return {
        "format": FORMAT_NAME,
        "version": FORMAT_VERSION,
        "step": step,
        "torch": str(torch.__version__),
        "state": dict(state),
    }


def prune(run: str | os.PathLike[str], keep: int = 2) -> list[Path]:
    """Remove the checkpoints of a run except the one that `latest` names and the keep - 1 newest before it; returns the removed ones.

    Checkpoints of later steps (after training was resumed from an older one) are kept until training has passed them.
    Raises CheckpointError when one cannot be removed.
    """
    if keep < 1:
        raise CheckpointError(f"at least one checkpoint is kept, so keep cannot be {keep}")
    parent = Path(run) / CHECKPOINT_FOLDER
    current = _latest_name(parent)
    if current is None or not (match := _FOLDER_NAME.fullmatch(current)):
        return []
    step = int(match[1])
    older = [folder for folder in _folders(parent) if folder.name != current and _step_of(folder) <= step]
    # If a step was saved twice, only the folder that `latest` names belongs to this history.
    kept = [folder for folder in older if _step_of(folder) < step][: keep - 1]
    removed = [folder for folder in older if folder not in kept]
    for folder in removed:
        try:
            _discard(folder)
        except OSError as error:
            raise CheckpointError(
                f"cannot remove the old checkpoint {folder}: {error.strerror or error}; remove it by hand and resume"
            ) from error
    return removed


def _free_name(parent: Path, step: int) -> Path:
    """The folder for a step: a name that `latest` does not point to, cleared if an abandoned checkpoint has it."""
    plain = parent / _folder_name(step)
    final = plain if _latest_name(parent) != plain.name else plain.with_name(f"{plain.name}-2")
    if final.exists():
        _discard(final)
    return final


def _discard(folder: Path) -> None:
    """Remove a checkpoint folder. It is renamed first: a half-removed folder must not look like a checkpoint."""
    doomed = folder.with_name(atomic.temporary_name(folder.name))
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _remove_leftovers(parent: Path) -> None:
    """Remove the temporary folders and files of writers that are dead, or that had this process's id earlier."""
    own = f"{atomic.host_name()}-{os.getpid()}-"
    for leftover in parent.glob(f"*{atomic.TEMPORARY_MARK}*"):
        token = leftover.name.partition(atomic.TEMPORARY_MARK)[2]
        if token.startswith(own) or atomic.is_dead(token, leftover):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def _folder_name(step: int) -> str:
    return f"step_{step:08d}"


def _step_of(folder: Path) -> int:
    match = _FOLDER_NAME.fullmatch(folder.name)
    assert match is not None
    return int(match[1])


def _folders(parent: Path) -> list[Path]:
    """Checkpoint folders, newest step first."""
    found = [entry for entry in parent.iterdir() if _FOLDER_NAME.fullmatch(entry.name) and entry.is_dir()]
    return sorted(found, key=lambda entry: (_step_of(entry), entry.name), reverse=True)


# -- reading ----------------------------------------------------------------------------------------------------------


def latest(run: str | os.PathLike[str]) -> Path | None:
    """The folder of a run's latest checkpoint, or None when it has saved none yet.

    Raises CheckpointError when `latest` does not name a checkpoint of this run.
    """
    parent = Path(run) / CHECKPOINT_FOLDER
    name = _latest_name(parent)
    if name is None:
        return None
    file, folder = parent / LATEST_FILE, parent / name
    others = ", ".join(other.name for other in _folders(parent)) or "none"
    remedy = f"write the name of a checkpoint beside it into it (there are: {others})"
    if not _FOLDER_NAME.fullmatch(name):
        raise CheckpointError(
            f"{file} names {name[:80]!r}, which is not the name of a checkpoint (step_00001234); {remedy}"
        )
    if not folder.is_dir():
        raise CheckpointError(f"{file} names {name}, which is not there; {remedy}")
    if folder.resolve().parent != parent.resolve():
        raise CheckpointError(
            f"{file} names {name}, which leads out of the folder to {folder.resolve()}; load that folder itself, or {remedy}"
        )
    return folder


def named(run: str | os.PathLike[str], name: str) -> Path:
    """The folder of a run's checkpoint by name (step_00001234); it need not exist."""
    return Path(run) / CHECKPOINT_FOLDER / name


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint itself, not a run that holds some."""
    return any((folder / name).exists() for name in (STATE_FILE, MODEL_FILE, OPTIM_FILE))


def identity(checkpoint: Path) -> str | None:
    """The sha256 that identifies a checkpoint: that of its state file, which has the checksums of all others. None if it is missing."""
    state = checkpoint / STATE_FILE
    return atomic.sha256_file(state) if state.is_file() else None


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read the checkpoint in a folder, or the latest one of a run, and check every byte of state.json and of the model file.

    Raises CheckpointError, which names the file and the first tensor or field that is missing, unexpected, of a wrong shape or
    type, damaged or not finite.
    """
    folder = _resolve(Path(path))
    document = _read_state(folder / STATE_FILE)
    files = document["files"]
    stored = read_tensors(folder / MODEL_FILE, files[MODEL_FILE])
    tensors = {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in stored.items()}
    return Checkpoint(folder, document["step"], tensors, document["state"], document["torch"], files)


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], where: str | os.PathLike[str]) -> None:
    """Copy named tensors into a module that has exactly these, of the same shapes and types; all of them or none.

    where: what to call the source in an error, e.g. the checkpoint's path. Raises CheckpointError with the first tensor that does not match.
    """
    own = module.state_dict()
    check_names(own, tensors, os.fspath(where), "the model has another architecture than the checkpoint")
    for name, target in own.items():
        check_fits(name, tensors[name], target, os.fspath(where))
    module.load_state_dict(tensors)  # and not tensor by tensor: modules may have hooks for it


def _latest_name(parent: Path) -> str | None:
    file = parent / LATEST_FILE
    try:
        return file.read_bytes().decode("utf-8", "backslashreplace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror or error}") from error


def _resolve(path: Path) -> Path:
    if is_checkpoint(path):
        return path
    if (path / CHECKPOINT_FOLDER).is_dir():
        folder = latest(path)
        if folder is None:
            raise CheckpointError(f"{path} has no checkpoint yet; train it until its first one, or name another run")
        return folder
    if not path.is_dir():
        raise CheckpointError(
            f"{path} is not a folder; name a run or one of its checkpoints (RUN/{CHECKPOINT_FOLDER}/step_00001234)"
        )
    raise CheckpointError(
        f"{path} is neither a run (it has no {CHECKPOINT_FOLDER}/) nor a checkpoint (it has no {STATE_FILE})"
    )


def _read_state(path: Path) -> dict[str, Any]:
    """state.json without its checksum, with all our fields checked."""
    data = read_whole(path)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged (not JSON); {REMEDY}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT_NAME:
        raise CheckpointError(f"{path}: field 'format' is not {FORMAT_NAME!r}, so this is not a checkpoint of facegraft")
    version = document.get("version")
    if not is_count(version):
        raise CheckpointError(f"{path}: field 'version' is {version!r}, not a number; {REMEDY}")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: field 'version' is {version}; this facegraft reads {FORMAT_VERSION}, use the one that wrote it"
        )
    if CHECKSUM not in document:
        raise CheckpointError(f"{path}: field {CHECKSUM!r} is missing; {REMEDY}")
    try:
        document = unseal(data, str(path), REMEDY)
    except DamagedError as error:
        raise CheckpointError(str(error)) from error
    for name, right in (
        ("step", is_count(document.get("step"))),
        ("torch", isinstance(document.get("torch"), str)),
        ("state", isinstance(document.get("state"), dict)),
        ("files", isinstance(document.get("files"), dict) and MODEL_FILE in document["files"]),
    ):
        if not right:
            raise CheckpointError(f"{path}: field {name!r} is missing or not what a checkpoint has there; {REMEDY}")
    for name, record in document["files"].items():
        if name not in (MODEL_FILE, OPTIM_FILE) or not is_record(record):
            raise CheckpointError(
                f"{path}: field 'files' has an entry {name!r} that a checkpoint does not have; {REMEDY}"
            )
    return document
