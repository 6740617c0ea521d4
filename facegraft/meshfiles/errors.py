"""What can be wrong with one mesh."""

from __future__ import annotations

from facegraft.errors import FacegraftError


class MeshError(FacegraftError):
    """One mesh that cannot be used: the message names the file, the line where there is one, and the remedy.

    During ingest it rejects that head and the others go on.
    """
