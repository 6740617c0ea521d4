"""Regular grids whose origin and spacing cannot disagree: node (i, j, k) lies at origin + spacing·(i, j, k), always.

A surface extracted with one spacing for the queries (2/N) and another for the vertices (2/(N-1)) is scaled about a corner
of the box; a perfect field would then score half a millimetre. So both are taken from `Grid.points` alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facegraft_model.errors import ModelError

MAX_RESOLUTION = 512  # nodes an axis: a float32 volume of 512 MiB


@dataclass(frozen=True)
class Grid:
    """A grid of nodes: origin f64 [3] is node (0, 0, 0), spacing the edge of a cell, shape the number of nodes an axis.

    Node ids count in C order: id = (i·ny + j)·nz + k. Raises ModelError for a grid without a cell, or over the size limit.
    """

    origin: NDArray[np.float64]
    spacing: float
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        origin = np.array(self.origin, dtype=np.float64)
        origin.setflags(write=False)
        object.__setattr__(self, "origin", origin)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if origin.shape != (3,) or not np.isfinite(origin).all() or not np.isfinite(self.spacing) or self.spacing <= 0:
            raise ModelError(f"grid: needs an origin of 3 numbers and a positive spacing, not {self.origin!r}, {self.spacing!r}")
        if len(self.shape) != 3 or min(self.shape) < 2:
            raise ModelError(f"grid: needs at least 2 nodes on each of 3 axes, not {self.shape}")
        if self.size > MAX_RESOLUTION**3:
            raise ModelError(f"grid: {self.shape} has more than {MAX_RESOLUTION}³ nodes; take a lower resolution")

    @classmethod
    def cube(cls, resolution: int, half: float = 1.0) -> Grid:
        """The cube [-half, half]³ with `resolution` nodes an axis, its faces included."""
        if not 2 <= resolution <= MAX_RESOLUTION:
            raise ModelError(f"resolution {resolution}: must be from 2 to {MAX_RESOLUTION} nodes an axis")
        return cls(np.full(3, -half), 2 * half / (resolution - 1), (resolution,) * 3)

    @property
    def size(self) -> int:
        """Number of nodes."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def cells(self) -> tuple[int, int, int]:
        """Number of cells an axis."""
        nx, ny, nz = self.shape
        return nx - 1, ny - 1, nz - 1

    def ids(self, nodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Node ids [...] of indices (i, j, k) [..., 3]."""
        _, ny, nz = self.shape
        return (nodes[..., 0] * ny + nodes[..., 1]) * nz + nodes[..., 2]

    def nodes(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Indices (i, j, k) [..., 3] of node ids [...]."""
        return np.stack(np.unravel_index(ids, self.shape), axis=-1)

    def points(self, nodes: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Positions [..., 3] of (fractional) indices [..., 3]: the only place where an index becomes a coordinate."""
        return self.origin + self.spacing * np.asarray(nodes, dtype=np.float64)
