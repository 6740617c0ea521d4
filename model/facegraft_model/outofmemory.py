"""Out-of-memory errors, with the setting that helps; and what a point needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from facegraft_model.errors import ModelError

EAGER_BYTES, COMPILED_BYTES = 125_000, 90_000
"""Memory a point of a training step with preset paper, eager and compiled: 71.6 and 50.2 GB for 36 heads of 16,384 points, rounded up.
Counted by torch's allocator for CUDA, with kernels that do nothing (torch 2.11); on a CPU 122 and 86 kB (docs/benchmarks.md)."""
FIT_BYTES = 96_000
"""The same of an iteration of a fit by Adam: 25.0 GB for 16 heads of 16,384 points."""


@contextmanager
def named_out_of_memory(device: torch.device, what: str, knob: str | Callable[[], str]) -> Iterator[None]:
    """Turn an allocator's failure, on any device, into a ModelError: `what` was too large, and `knob` is the setting that reduces it,
    or makes the text when it is needed."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _named(device, what, knob) from error
    except RuntimeError as error:
        if "allocate memory" not in str(error):  # the message of the CPU's allocator
            raise
        raise _named(device, what, knob) from error


def _named(device: torch.device, what: str, knob: str | Callable[[], str]) -> ModelError:
    return ModelError(f"out of memory on {device}: {what}; {knob if isinstance(knob, str) else knob()}")
