"""The error of the report."""

from facegraft.errors import FacegraftError


class ReportError(FacegraftError):
    """Nothing to report on, or no way to draw it."""
