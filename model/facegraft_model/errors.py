"""The base class of the model's errors."""

from __future__ import annotations

from facegraft.store import StoreError


class ModelError(StoreError):
    """Configuration, checkpoint, data and machine do not match; the message is one line that says what, where, and what to do."""
