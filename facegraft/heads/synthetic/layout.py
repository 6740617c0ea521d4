"""Connectivity of the synthetic head: a quad grid with rings of quads around the eye and the mouth.

Only the left half (x >= 0) is laid out; the right half is its mirror image, so that vertices, faces and
landmarks are symmetric by construction. Rows run up from the neck opening to the crown, columns from the
front midline (0) to the back midline (`COLUMNS`). A rectangular block of grid cells is left out at the eye and
at the mouth; rings with as many vertices as the block's outline fill it up to the opening (an "O-grid": the only
irregular vertices are the corners of the blocks). The crown is closed by a rectangular patch.
Nothing here depends on positions, so the topology is the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Ints

COLUMNS = 70  # cells from the front midline to the back midline
CROWN_HALF_WIDTH = 16  # cells of the crown patch from the midline to its side; its depth is COLUMNS - 2 * this


@dataclass(frozen=True)
class Block:
    """Cells [bottom, top) x [inner, outer) of the grid that an opening's rings replace."""

    bottom: int
    top: int
    inner: int
    outer: int
    rings: int  # rings between the outline (not counted) and the opening's rim (counted)


@dataclass(frozen=True)
class Layout:
    """Half of the head's topology. -1 marks grid places without a vertex."""

    count: int  # vertices of the half, midline included
    grid: Ints  # [rows + 1, COLUMNS + 1] vertex of each grid place
    eye: Ints  # [rings + 1, P] closed rings, from the outline to the rim; place 0 is lateral, then up (counter-clockwise)
    mouth: Ints  # [rings + 1, P / 2 + 1] half rings, from the bottom midline by the corner to the top midline
    crown: Ints  # [CROWN_HALF_WIDTH + 1, depth + 1] places of the crown patch, midline first, front to back
    midline: Ints  # vertices on the plane x = 0
    quads: Ints  # [Q, 4] outward (counter-clockwise seen from outside)
    odd: NDArray[np.bool_]  # [Q] every other quad, like the dark squares of a chess board


def _outline_closed(block: Block) -> list[tuple[int, int]]:
    """Grid places (row, column) around a block, counter-clockwise from the middle of its lateral side."""
    middle = (block.bottom + block.top) // 2
    places = [(i, block.outer) for i in range(middle, block.top)]
    places += [(block.top, j) for j in range(block.outer, block.inner, -1)]
    places += [(i, block.inner) for i in range(block.top, block.bottom, -1)]
    places += [(block.bottom, j) for j in range(block.inner, block.outer)]
    return places + [(i, block.outer) for i in range(block.bottom, middle)]


def _outline_half(block: Block) -> list[tuple[int, int]]:
    """Grid places around a block that straddles the midline: bottom midline, corner side, top midline."""
    places = [(block.bottom, j) for j in range(block.outer)]
    places += [(i, block.outer) for i in range(block.bottom, block.top)]
    return places + [(block.top, j) for j in range(block.outer, -1, -1)]


def build_layout(rows: int, eye: Block, mouth: Block) -> Layout:
    """Number the vertices of the half head and list its quads; `rows` counts the grid's cells from neck to crown."""
    present = np.ones((rows + 1, COLUMNS + 1), dtype=bool)
    present[eye.bottom + 1 : eye.top, eye.inner + 1 : eye.outer] = False
    present[mouth.bottom + 1 : mouth.top, : mouth.outer] = False
    grid = np.full(present.shape, -1, dtype=np.int64)
    grid[present] = np.arange(present.sum())
    count = int(present.sum())

    def rings(outline: list[tuple[int, int]], number: int) -> Ints:
        nonlocal count
        first = np.array([grid[place] for place in outline])
        fresh = count + np.arange(number * len(outline)).reshape(number, -1)
        count += fresh.size
        return np.vstack([first, fresh])

    eye_rings = rings(_outline_closed(eye), eye.rings)
    mouth_rings = rings(_outline_half(mouth), mouth.rings)
    depth = COLUMNS - 2 * CROWN_HALF_WIDTH
    crown = np.full((CROWN_HALF_WIDTH + 1, depth + 1), -1, dtype=np.int64)
    crown[:, 0] = grid[rows, : CROWN_HALF_WIDTH + 1]
    crown[-1, :] = grid[rows, CROWN_HALF_WIDTH : CROWN_HALF_WIDTH + depth + 1]
    crown[::-1, -1] = grid[rows, CROWN_HALF_WIDTH + depth :]
    crown[:-1, 1:-1] = count + np.arange(CROWN_HALF_WIDTH * (depth - 1)).reshape(CROWN_HALF_WIDTH, -1)
    count += CROWN_HALF_WIDTH * (depth - 1)

    cells = np.ones((rows, COLUMNS), dtype=bool)
    cells[eye.bottom : eye.top, eye.inner : eye.outer] = False
    cells[mouth.bottom : mouth.top, : mouth.outer] = False
    i, j = np.nonzero(cells)
    quads = [np.column_stack([grid[i, j], grid[i, j + 1], grid[i + 1, j + 1], grid[i + 1, j]])]
    turns = [(i + j) % 2]
    around = np.roll(eye_rings, -1, axis=1)
    quads.append(np.column_stack([a.ravel() for a in (eye_rings[:-1], around[:-1], around[1:], eye_rings[1:])]))
    turns.append(np.add(*np.indices((eye.rings, eye_rings.shape[1]))).ravel() % 2)
    m = mouth_rings
    quads.append(np.column_stack([a.ravel() for a in (m[:-1, :-1], m[:-1, 1:], m[1:, 1:], m[1:, :-1])]))
    turns.append(np.add(*np.indices((mouth.rings, m.shape[1] - 1))).ravel() % 2)
    c = crown
    quads.append(np.column_stack([a.ravel() for a in (c[:-1, :-1], c[1:, :-1], c[1:, 1:], c[:-1, 1:])]))

    turns.append(np.add(*np.indices((CROWN_HALF_WIDTH, depth))).ravel() % 2)

    on_midline = np.concatenate([grid[:, 0], grid[:, -1], mouth_rings[1:, 0], mouth_rings[1:, -1], crown[0, 1:-1]])
    midline = np.unique(on_midline[on_midline >= 0])
    return Layout(
        count, grid, eye_rings, mouth_rings, crown, midline, np.concatenate(quads), np.concatenate(turns) == 1
    )


def split_quads(layout: Layout, vertices: NDArray[np.float64]) -> Ints:
    """Two triangles per quad: diagonals alternate, except where one of them is 10 % shorter than the other.

    Alternation avoids shading that is biased toward one side. With the margin, rounding never decides.
    """
    quads = layout.quads
    corner = vertices[quads]
    first = np.linalg.norm(corner[:, 0] - corner[:, 2], axis=1)
    second = np.linalg.norm(corner[:, 1] - corner[:, 3], axis=1)
    by_second = second < np.where(layout.odd, 1 / 0.9037, 0.9037) * first
    turned = np.where(by_second[:, None], np.roll(quads, -1, axis=1), quads)
    return turned[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3)
