"""What can be wrong with a source of heads. (What can be wrong with one mesh: `facegraft.meshfiles.MeshError`.)"""

from __future__ import annotations

from facegraft.errors import FacegraftError


class SourceError(FacegraftError):
    """A source of heads of which nothing can be used, or whose options contradict it: ingest stops before any work."""
