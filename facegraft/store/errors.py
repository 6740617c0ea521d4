"""What the store refuses, as errors with one line for the user."""

from __future__ import annotations

from facegraft.errors import FacegraftError


class StoreError(FacegraftError):
    """A dataset cannot be read or written: what, where, and what to do."""


class FieldError(StoreError):
    """An item's arrays or index row are not what the schema says."""


class IncompleteError(StoreError):
    """The folder holds a run that has not finished, so there is no dataset to read yet."""


class DamagedError(StoreError):
    """A file is there but its bytes are not those that were written."""


class RemoteError(StoreError):
    """An object store does not answer, refuses, or did not keep what it was sent: says nothing about the data itself."""


class UnknownKeyError(StoreError, KeyError):
    """No such item. Also a KeyError, because a dataset is read like a mapping."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument; a user should read the sentence itself.
        return str(self.args[0])
