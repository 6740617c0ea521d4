"""Errors of the engine, with a message of one line for the user."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from facegraft.errors import FacegraftError


class EngineError(FacegraftError):
    """A run cannot start, continue or finish: what, where, and what to do. `exit_code` is the exit code of the command."""

    exit_code = 1


class OptionError(EngineError):
    """An invalid option: wrong usage, found before any work is done."""

    exit_code = 2


class RunInterrupted(EngineError):
    """The user stopped the run (Ctrl-C). Everything committed stays; the same command continues from there."""

    exit_code = 130


class StageSetupError(EngineError):
    """The stage itself cannot be imported or built in a worker, so that no item can be processed."""


class ItemRejected(FacegraftError):
    """Raised by an item function to refuse one item for a reason that a user should read in the index.

    `offending`: small arrays that help to find the cause; they are written next to the reject's record.
    """

    def __init__(self, reason: str, offending: Mapping[str, np.ndarray] | None = None) -> None:
        super().__init__(reason)
        self.offending = {name: np.asarray(array) for name, array in (offending or {}).items()}
        for name, array in self.offending.items():
            if array.dtype.kind not in "biuf":
                raise TypeError(f"offending array {name!r} must hold numbers or booleans, not {array.dtype}")
