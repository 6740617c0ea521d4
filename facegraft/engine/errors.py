"""What the engine refuses, as errors with one line for the user."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from facegraft.errors import FacegraftError


class EngineError(FacegraftError):
    """A run cannot start, go on or finish: what, where, and what to do. `exit_code` is what the command should exit with."""

    exit_code = 1


class OptionError(EngineError):
    """An option that cannot be what was meant: wrong usage, found out before anything is done."""

    exit_code = 2


class RunInterrupted(EngineError):
    """The user stopped the run (Ctrl-C). Everything committed stays; the same command goes on from there."""

    exit_code = 130


class StageSetupError(EngineError):
    """The stage itself cannot be imported or built in a worker, so that no item can be processed."""


class ItemRejected(FacegraftError):
    """Raised by an item function to refuse one item for a reason that a user should read in the index.

    `offending`: small arrays worth keeping for the post-mortem; they are written beside the reject's record.
    """

    def __init__(self, reason: str, offending: Mapping[str, np.ndarray] | None = None) -> None:
        super().__init__(reason)
        self.offending = {name: np.asarray(array) for name, array in (offending or {}).items()}
        for name, array in self.offending.items():
            if array.dtype.kind not in "biuf":
                raise TypeError(f"offending array {name!r} must hold numbers or booleans, not {array.dtype}")
