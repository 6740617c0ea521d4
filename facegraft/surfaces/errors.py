"""Errors of surfaces and of operations on them."""

from __future__ import annotations

from facegraft.errors import FacegraftError


class SurfaceError(FacegraftError):
    """A surface for which the operation is not defined: empty, not finite, without area, or out of reach."""


class TopologyError(SurfaceError):
    """A mesh whose connectivity is not what an operation needs."""


class SamplingError(SurfaceError):
    """A surface that cannot be sampled, or parameters that contradict each other."""


class DistanceError(SurfaceError):
    """A mesh or points for which a signed distance is not defined, or an unknown backend."""
