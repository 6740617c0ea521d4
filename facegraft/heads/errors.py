"""What can be wrong with heads on disk: one mesh, or a whole source."""

from __future__ import annotations

from facegraft.errors import FacegraftError


class MeshError(FacegraftError):
    """One mesh that cannot be used: the message names the file, the line where there is one, and the remedy.

    During ingest it rejects that head and the others go on.
    """


class SourceError(FacegraftError):
    """A source of heads of which nothing can be used, or whose options contradict it: ingest stops before any work."""
