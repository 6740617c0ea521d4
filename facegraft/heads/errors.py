"""Errors of a source of heads, and of one of its heads. (Errors of one mesh file: `facegraft.meshfiles.MeshError`.)"""

from __future__ import annotations

from facegraft.arrays import Floats
from facegraft.errors import FacegraftError
from facegraft.meshfiles.errors import MeshError


class SourceError(FacegraftError):
    """A source without any usable head, or with options that contradict it: ingest stops before any work."""


class HeadError(MeshError):
    """A mesh that was read, but is no head, or not like the others. `vertices` [V, 3] in mm are what was judged, for a picture."""

    def __init__(self, message: str, vertices: Floats) -> None:
        super().__init__(message)
        self.vertices = vertices
