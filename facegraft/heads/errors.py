"""Errors of a source of heads. (Errors of one mesh: `facegraft.meshfiles.MeshError`.)"""

from __future__ import annotations

from facegraft.errors import FacegraftError


class SourceError(FacegraftError):
    """A source without any usable head, or with options that contradict it: ingest stops before any work."""
