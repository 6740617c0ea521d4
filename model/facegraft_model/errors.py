"""The base of the errors of the model's side."""

from __future__ import annotations

from facegraft.store import StoreError


class ModelError(StoreError):
    """Configuration, checkpoint, data and machine do not fit together: one line that says what, where, and what to do."""
