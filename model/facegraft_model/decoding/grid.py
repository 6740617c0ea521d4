"""Regular grids: node (i, j, k) lies at origin + spacing·(i, j, k), for queries and vertices alike.

A surface extracted with one spacing for the queries (2/N) and another for the vertices (2/(N-1)) is scaled about a corner
of the box; even a perfect field would then have an error of half a millimetre. So both use `Grid.points`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegraft_model.errors import ModelError

SDF = Callable[[NDArray[np.float32]], NDArray[Any]]  # points [n,3] -> signed distances [n], negative inside
MAX_SURFACE_CELLS = 8_000_000  # cells with a change of sign; a head at 512³ has under one million
MAX_RESOLUTION = 512  # nodes per axis: a float32 volume of 512 MiB


@dataclass(frozen=True, eq=False)
class Grid:
    """A grid of nodes: origin f64 [3] is node (0, 0, 0), spacing the edge of a cell, shape the number of nodes per axis.

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
            raise ModelError(
                f"grid: needs an origin of 3 numbers and a positive spacing, not {self.origin!r}, {self.spacing!r}"
            )
        if len(self.shape) != 3 or min(self.shape) < 2:
            raise ModelError(f"grid: needs at least 2 nodes on each of 3 axes, not {self.shape}")
        if self.size > MAX_RESOLUTION**3:
            raise ModelError(f"grid: {self.shape} has more than {MAX_RESOLUTION}³ nodes; use a lower resolution")

    @classmethod
    def cube(cls, resolution: int, half: float = 1.0) -> Grid:
        """The cube [-half, half]³ with `resolution` nodes per axis, its faces included."""
        if not 2 <= resolution <= MAX_RESOLUTION:
            raise ModelError(f"resolution {resolution}: must be from 2 to {MAX_RESOLUTION} nodes per axis")
        return cls(np.full(3, -half), 2 * half / (resolution - 1), (resolution,) * 3)

    @property
    def size(self) -> int:
        """Number of nodes."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def cells(self) -> tuple[int, int, int]:
        """Number of cells per axis."""
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


class NodeValues:
    """The field at the nodes of a grid: values f32 [nodes], NaN where not evaluated."""

    def __init__(self, sdf: SDF, grid: Grid, chunk: int) -> None:
        self.sdf, self.grid, self.chunk = sdf, grid, chunk
        self.values = np.full(grid.size, np.nan, dtype=np.float32)

    @property
    def volume(self) -> NDArray[np.float32]:
        return self.values.reshape(self.grid.shape)

    def field(self, points: NDArray[np.float64]) -> NDArray[np.float32]:
        """Values at points [n,3], checked, in chunks; an exact 0 counts as just outside."""
        values = np.empty(len(points), dtype=np.float32)
        for a in range(0, len(points), self.chunk):
            part = points[a : a + self.chunk].astype(np.float32)
            got = np.asarray(self.sdf(part), dtype=np.float32)
            if got.shape != (len(part),):
                raise ModelError(
                    f"extraction: the field gave shape {got.shape} for {len(part)} points; expected ({len(part)},)"
                )
            bad = np.flatnonzero(~np.isfinite(got))
            if len(bad):
                raise ModelError(
                    f"extraction: the field is {got[bad[0]]} at {part[bad[0]].tolist()} ({len(bad)} of {len(part)} points); the network or its code is damaged"
                )
            values[a : a + self.chunk] = got
        values[values == 0] = np.finfo(np.float32).tiny
        return values

    def evaluate(self, ids: NDArray[np.int64]) -> None:
        """Fill in nodes (distinct ids) that are not known yet."""
        missing = ids[np.isnan(self.values[ids])]
        for a in range(0, len(missing), self.chunk):
            part = missing[a : a + self.chunk]
            self.values[part] = self.field(self.grid.points(self.grid.nodes(part)))

    def evaluate_all(self) -> None:
        for a in range(0, self.grid.size, self.chunk):
            part = np.arange(a, min(a + self.chunk, self.grid.size))
            self.values[part] = self.field(self.grid.points(self.grid.nodes(part)))

    def at(self, nodes: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.values[self.grid.ids(nodes)]

    def surface_cells(self) -> NDArray[np.int64]:
        """Lower corners [m,3] of the cells whose eight corners are known and differ in sign; a slab at a time."""
        found, total = [], 0
        nx, ny, nz = self.grid.shape
        slab = max(1, (1 << 22) // (ny * nz))
        for i in range(0, nx - 1, slab):
            values = self.volume[i : i + slab + 1]
            inside, outside = values < 0, values > 0  # neither where unknown
            mixed = _over_corners(np.logical_or, inside) & _over_corners(np.logical_or, outside)
            mixed &= _over_corners(np.logical_and, inside | outside)
            cells = np.argwhere(mixed) + np.array([i, 0, 0])
            total += len(cells)
            if total > MAX_SURFACE_CELLS:
                raise ModelError(
                    f"extraction: the field changes sign in more than {MAX_SURFACE_CELLS:,} cells; it is noise, not a distance (an untrained or damaged model?), or use a lower resolution"
                )
            found.append(cells)
        return np.concatenate(found)


def _over_corners(combine: Any, flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Combine a property of nodes [a,b,c] over the corners of each cell [a-1,b-1,c-1]."""
    flags = combine(flags[:-1], flags[1:])
    flags = combine(flags[:, :-1], flags[:, 1:])
    return combine(flags[:, :, :-1], flags[:, :, 1:])
