"""Devices: choose one, measure its free memory, and copy small arrays to it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from facegraft_model.errors import ModelError

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device by name; auto: cuda if available. local_rank: number of this process on its machine, which takes the GPU of that number.

    Raises ModelError for a device that does not exist.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        if not torch.cuda.is_available():
            raise ModelError(
                f"no CUDA device was found by torch {torch.__version__}; use --device cpu, or install torch for CUDA"
            )
        count = torch.cuda.device_count()
        if local_rank >= count:
            raise ModelError(
                f"process {local_rank + 1} on this machine has no GPU: torch sees {count}, and each process takes one; "
                f"start torchrun with --nproc-per-node {count}"
            )
        return torch.device("cuda", local_rank)
    if name != "cpu":
        raise ModelError(f"no device {name!r}; there are auto, cpu and cuda")
    return torch.device("cpu")


def usable_device(device: str | torch.device) -> torch.device:
    """A device by torch's name. Raises ModelError for one that does not exist."""
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ModelError(f"no device {device!r}; there are cpu, cuda and cuda:N") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device {device} was asked for, but torch {torch.__version__} sees no CUDA device; use cpu")
    return found


def free_bytes(device: torch.device) -> int:
    """Bytes that can be allocated on a device without swapping.

    On a CPU: the available memory of Linux, or the rest of the container's limit (cgroup v2), whichever is less; on other systems
    all of the machine's memory.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if not MEMINFO.is_file():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
    available = int(lines["MemAvailable"].split()[0]) * 1024
    return min(available, _container_bytes(CGROUP, available))


def _container_bytes(folder: Path, unlimited: int) -> int:
    """Memory left under a container's limit, where its file cache counts as free; `unlimited` where there is no limit."""
    limit = folder / "memory.max"
    if not limit.is_file() or limit.read_text().strip() == "max":
        return unlimited
    cache = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())["inactive_file"]
    return max(0, int(limit.read_text()) - int((folder / "memory.current").read_text()) + int(cache))


def to_device(array: NDArray[np.int64], device: torch.device) -> torch.Tensor:
    """The array as a tensor on the device. To CUDA it goes through pinned memory, so that the host does not wait for the device."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
