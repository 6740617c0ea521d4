"""A safetensors file with a checksum for every tensor, so that damage is found and located.

The checksums are stored outside the file, as its record: {"bytes", "sha256", "tensors": {NAME: {"dtype", "shape", "crc32"}}}.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from facegraft.store import atomic
from facegraft_model.errors import ModelError

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
REMEDY = "restore the file, or load another checkpoint of the run by its folder"


class CheckpointError(ModelError):
    """A checkpoint cannot be written, read or used here: which file, which tensor or field, and what to do."""


def plain_tensors(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Contiguous CPU tensors that share no memory, as safetensors requires.

    Raises CheckpointError for a value that is not finite and for a type that a safetensors file does not have.
    """
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES or tensor.layout != torch.strided:
            raise CheckpointError(
                f"{where}: tensor {name!r} is {tensor.dtype}, {tensor.layout}, which a checkpoint does not hold"
            )
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.numel() * tensor.element_size():
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        plain[name] = tensor
        check_finite(name, tensor, where, "training has diverged; nothing was written, resume from the last checkpoint")
    return plain


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Write a safetensors file durably; returns its record for state.json."""
    data = safetensors.torch.save(tensors)
    atomic.write_and_sync(path, data)
    entries = {
        name: {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "crc32": _crc32(_raw(tensor))}
        for name, tensor in tensors.items()
    }
    return {"bytes": len(data), "sha256": atomic.sha256_bytes(data), "tensors": entries}


def read_whole(path: Path) -> bytes:
    """The bytes of a file of a checkpoint. Raises CheckpointError."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; {REMEDY}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}; {REMEDY}") from error


def is_count(value: object) -> bool:
    """Whether a JSON value is a whole number of at least 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_record(record: object) -> bool:
    """Whether a JSON value is the record of a file."""
    if not isinstance(record, dict) or not isinstance(record.get("tensors"), dict):
        return False
    entries = all(
        isinstance(entry, dict) and entry.keys() == {"dtype", "shape", "crc32"} for entry in record["tensors"].values()
    )
    return entries and is_count(record.get("bytes")) and isinstance(record.get("sha256"), str)


def read_tensors(path: Path, record: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a safetensors file, each compared with its record. Raises CheckpointError."""
    data = read_whole(path)
    size = f"it has {len(data)} bytes where {record['bytes']} were written"
    header = _header(data)
    if header is None:
        reason = f"is truncated ({size})" if len(data) < record["bytes"] else "is damaged in its header"
        raise CheckpointError(f"{path} {reason}; {REMEDY}")
    wanted = record["tensors"]
    check_names(wanted, header, str(path), "the file is not the one that was written")
    for name in sorted(wanted):
        found, entry = header[name], wanted[name]
        for what in ("shape", "dtype"):
            if found[what] != entry[what]:
                raise CheckpointError(
                    f"{path}: tensor {name!r} has {what} {found[what]} where {entry[what]} was written; {REMEDY}"
                )
        if found["end"] > len(data):
            raise CheckpointError(f"{path}: tensor {name!r} is truncated ({size}); {REMEDY}")
        if _crc32(memoryview(data)[found["begin"] : found["end"]]) != entry["crc32"]:
            raise CheckpointError(
                f"{path}: tensor {name!r} is damaged (its bytes are not those that were written); {REMEDY}"
            )
    if len(data) != record["bytes"]:
        raise CheckpointError(f"{path} is damaged ({size}); {REMEDY}")
    if atomic.sha256_bytes(data) != record["sha256"]:
        raise CheckpointError(
            f"{path} is damaged (its sha256 is not the one of its record, though every tensor is whole); {REMEDY}"
        )
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a safetensors file, though it is what its record says ({error}); {REMEDY}"
        ) from error
    for name in sorted(tensors):
        check_finite(name, tensors[name], str(path), "load an earlier checkpoint of the run by its folder")
    return tensors


def _header(data: bytes) -> dict[str, dict[str, Any]] | None:
    """Type, shape and byte range of each tensor of a safetensors file; None when the header cannot be read.

    Parsed here, since the library refuses a damaged file as a whole and cannot say which tensor is damaged.
    """
    start = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or len(data) < start:
        return None
    try:
        header = json.loads(data[8:start])
        return {
            name: {
                "dtype": entry["dtype"],
                "shape": entry["shape"],
                "begin": start + int(entry["data_offsets"][0]),
                "end": start + int(entry["data_offsets"][1]),
            }
            for name, entry in header.items()
        }
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError, IndexError, OverflowError):
        return None


def check_names(wanted: Iterable[str], found: Iterable[str], where: str, reason: str) -> None:
    """Raises CheckpointError with the first tensor that only one side has."""
    wanted, found = set(wanted), set(found)
    if missing := wanted - found:
        raise CheckpointError(f"{where}: tensor {min(missing)!r} is missing (one of {len(missing)}); {reason}")
    if extra := found - wanted:
        raise CheckpointError(f"{where}: tensor {min(extra)!r} has no place here (one of {len(extra)}); {reason}")


def check_fits(name: str, tensor: Tensor, target: Tensor, where: str) -> None:
    """Raises CheckpointError when a tensor has another shape or type than its target, or a value that is not finite."""
    for what, given, own in (("shape", list(tensor.shape), list(target.shape)), ("dtype", tensor.dtype, target.dtype)):
        if given != own:
            raise CheckpointError(
                f"{where}: tensor {name!r} has {what} {given} where {own} is needed; use the checkpoint's own configuration"
            )
    check_finite(name, tensor, where, "load another checkpoint")


def check_finite(name: str, tensor: Tensor, where: str, remedy: str) -> None:
    """Raises CheckpointError with the number of values that are NaN or infinite."""
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise CheckpointError(
            f"{where}: tensor {name!r} has {bad} of {tensor.numel()} values that are NaN or infinite; {remedy}"
        )


def _raw(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, without a copy."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _crc32(data: memoryview) -> str:
    return f"{zlib.crc32(data):08x}"
