"""Errors of the store, with a message of one line for the user."""

from __future__ import annotations

from facegraft.errors import FacegraftError


class StoreError(FacegraftError):
    """A dataset cannot be read or written: what, where, and what to do."""


class FieldError(StoreError):
    """An item's arrays or index row do not match the schema."""


class IncompleteError(StoreError):
    """The folder holds a run that has not finished, so there is no dataset to read yet."""


class DamagedError(StoreError):
    """A file exists, but its bytes are not those that were written."""


class RemoteError(StoreError):
    """An object store does not answer, refuses a request, or did not store what it was sent; the data itself may be intact."""


class UnknownKeyError(StoreError, KeyError):
    """No such item. Also a KeyError, because a dataset is read like a mapping."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument; users should see the plain text.
        return str(self.args[0])
