"""Out-of-memory errors, with the setting that helps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from facegraft_model.errors import ModelError


@contextmanager
def named_out_of_memory(device: torch.device, what: str, knob: str) -> Iterator[None]:
    """Turn an allocator's failure, on any device, into a ModelError: `what` was too large, and `knob` is the setting that reduces it."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ModelError(f"out of memory on {device}: {what}; {knob}") from error
    except RuntimeError as error:
        if "allocate memory" not in str(error):  # the message of the CPU's allocator
            raise
        raise ModelError(f"out of memory on {device}: {what}; {knob}") from error
