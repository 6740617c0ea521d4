"""Errors of one mesh."""

from __future__ import annotations

from facegraft.errors import FacegraftError


class MeshError(FacegraftError):
    """A mesh that cannot be used: the message names the file, the line (in text files) and the remedy.

    During ingest that head is rejected and the others are processed.
    """
