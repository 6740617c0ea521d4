"""Triangle meshes of the zero level of a signed distance field.

The field is evaluated at nodes of a `Grid`, each at most once: at all of them (`dense`), or at those near the surface, found
by refining blocks from coarse to fine (`sparse`). In both modes marching cubes (Lorensen & Cline 1987, by libigl) runs over
the cells with a change of sign; so both give the same mesh if the sparse search finds the whole surface.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Bools, Floats, Ints
from facegraft.lazily import lazy_import
from facegraft.surfaces.normals import face_areas
from facegraft.surfaces.topology import face_components
from facegraft_model.decoding.grid import SDF, Grid, NodeValues
from facegraft_model.errors import ModelError

MAX_BLOCKS = 2_000_000  # blocks kept at one level; a head at 512³ has about 300,000
# Vertices keep this share of an edge away from its nodes, so that no triangle collapses where the field is 0 at a node.
_EDGE_MARGIN = 1e-4
_OFFSETS = np.array(list(itertools.product((0, 1), repeat=3)))  # of the eight children or corners
# Corners in libigl's order; the three edge directions of its cube are x, y, z.
_CORNERS = np.array([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)])


class EmptyFieldError(ModelError):
    """The field has no zero crossing (within the ball), so there is no surface."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """vertices f64 [n,3], faces i64 [m,3], counter-clockwise seen from outside.

    Raises ModelError for other shapes, a coordinate that is not finite, or a face that names a missing vertex.
    """

    vertices: Floats
    faces: Ints

    def __post_init__(self) -> None:
        vertices = np.ascontiguousarray(self.vertices, dtype=np.float64)
        faces = np.ascontiguousarray(self.faces, dtype=np.int64)
        if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
            raise ModelError(f"mesh: vertices must be [n,3] and faces [m,3], not {vertices.shape} and {faces.shape}")
        if not np.isfinite(vertices).all():
            raise ModelError("mesh: a vertex is not finite")
        if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
            raise ModelError(
                f"mesh: a face names vertex {faces.max() if faces.min() >= 0 else faces.min()} of {len(vertices)}"
            )
        object.__setattr__(self, "vertices", vertices)
        object.__setattr__(self, "faces", faces)


def extract_surface(
    sdf: SDF,
    grid: Grid,
    *,
    mode: Literal["sparse", "dense"] = "sparse",
    chunk: int = 1 << 17,
    safety: float = 1.25,
    polish: bool = False,
    clip_radius: float | None = None,
    keep: Literal["all", "largest"] = "all",
) -> Mesh:
    """The surface sdf = 0 of a field that is negative inside: points f32 [n,3] -> values [n], at most `chunk` at a time.

    sparse: halves blocks that the surface can cross if |∇sdf| <= safety, and follows each piece of surface to its end; a
    separate piece is missed only where the field is steeper than that. dense: evaluates every node.
    polish: evaluate the field once more at each vertex, which linear interpolation has put on an edge of the grid, and move
    the vertex to the root of the parabola through the three values: its error falls from second to third order in the spacing.
    clip_radius: faces with a vertex farther from 0 than this are left out (models are trained only inside the unit ball).
    keep: all components, or the one with the largest area.
    Raises EmptyFieldError without a zero crossing, ModelError for a value that is not finite, or a field that is far from
    a distance.
    """
    if mode not in ("sparse", "dense"):
        raise ModelError(f"mode {mode!r}: must be 'sparse' or 'dense'")
    if keep not in ("all", "largest"):
        raise ModelError(f"keep {keep!r}: must be 'all' or 'largest'")
    if chunk < 1 or safety <= 0:
        raise ModelError(f"extraction: chunk ({chunk}) and safety ({safety}) must be positive")
    samples = NodeValues(sdf, grid, chunk)
    if mode == "dense":
        samples.evaluate_all()
        cells = _within(grid, samples.surface_cells(), 1, clip_radius)
    else:
        _sample_near_surface(samples, safety, clip_radius)
        cells = _follow_surface(samples, clip_radius)
    if not len(cells):
        raise EmptyFieldError(_describe_empty(samples, mode, clip_radius))
    mesh = _march(samples, cells, polish)
    if clip_radius is not None:
        mesh = with_faces(mesh, (np.linalg.norm(mesh.vertices, axis=1) <= clip_radius)[mesh.faces].all(axis=1))
        if not len(mesh.faces):
            raise EmptyFieldError(_describe_empty(samples, mode, clip_radius))
    return largest_piece(mesh) if keep == "largest" else mesh


def _describe_empty(samples: NodeValues, mode: str, clip_radius: float | None) -> str:
    known = samples.values[~np.isnan(samples.values)]
    where = "" if clip_radius is None else f" inside the ball of radius {clip_radius:g}"
    shape = "×".join(map(str, samples.grid.shape))
    hint = "" if mode == "dense" else "; a field that is not a true distance may need mode 'dense'"
    return (
        f"extraction: the field has no zero crossing{where} on the {shape} grid (values {known.min():.4g} to {known.max():.4g} "
        f"at {len(known):,} nodes), so there is no surface: is the model trained, and the code one of this model?{hint}"
    )


def _within(grid: Grid, blocks: Ints, stride: int, radius: float | None) -> Ints:
    """The blocks (index × stride is the lower corner) that overlap the ball about 0."""
    if radius is None or not len(blocks):
        return blocks
    low = grid.points(blocks * stride)
    high = grid.points(np.minimum((blocks + 1) * stride, grid.cells))
    nearest = np.clip(0.0, low, high)
    return blocks[np.einsum("ij,ij->i", nearest, nearest) <= radius**2]


def _sample_near_surface(samples: NodeValues, safety: float, radius: float | None) -> None:
    """Evaluate every corner of the cells that the surface can pass, by refining blocks of nodes.

    With |∇sdf| <= safety, a ball of radius |sdf(c)| / safety about c contains no surface. A block is dropped when the ball
    about its middle node covers it; a cell when the balls about two opposite corners do. Two neighbouring blocks whose
    middles differ in sign are always kept.
    """
    grid = samples.grid
    cells = np.array(grid.cells)
    stride = 2
    while cells.max() > 12 * stride:
        stride *= 2
    blocks = np.argwhere(np.ones(-(-cells // stride), dtype=bool))
    while True:
        blocks = _within(grid, blocks, stride, radius)
        low = blocks * stride
        high = np.minimum(low + stride, cells)
        middle = (low + high) // 2
        samples.evaluate(grid.ids(middle))
        values = samples.at(middle)
        reach = grid.spacing * np.linalg.norm(np.maximum(middle - low, high - middle), axis=1)
        blocks = blocks[(np.abs(values) <= safety * reach) | _beside_other_sign(blocks, values, -(-cells // stride))]
        if len(blocks) > MAX_BLOCKS:
            raise ModelError(
                f"extraction: the field is within reach of 0 in {len(blocks):,} blocks of {stride}³ cells, too flat to be a distance; use mode 'dense' or a lower resolution"
            )
        if stride == 2:
            break
        stride //= 2
        blocks = _children(blocks, -(-cells // stride))
    low = blocks * 2
    high = np.minimum(low + 2, cells)
    for offset in _OFFSETS:
        samples.evaluate(np.unique(grid.ids(np.where(offset, high, low))))
    units = _children(blocks, cells)
    middle = (units // 2 * 2 + np.minimum(units // 2 * 2 + 2, cells)) // 2
    one, other = samples.at(middle), samples.at(2 * units + 1 - middle)  # at opposite corners of the cell
    covered = _covers_cell(np.abs(one) / (safety * grid.spacing), np.abs(other) / (safety * grid.spacing))
    _evaluate_corners(samples, units[~covered | ((one < 0) != (other < 0))])


def _covers_cell(a: Floats, b: Floats) -> Bools:
    """Whether balls of radii a, b [n] about two opposite corners of the unit cube cover it.

    The rest of the cube outside the larger ball is spanned by points on the cube's edges; the smaller ball must reach the farthest.
    """
    larger, smaller = np.maximum(a, b), np.minimum(a, b)
    past_face = np.sqrt(np.maximum(larger**2 - 1, 0))  # where the larger ball ends on the edges of its three far faces
    past_edge = np.sqrt(np.maximum(larger**2 - 2, 0))  # and on the three edges at the other corner
    needed = np.where(larger >= np.sqrt(2), 1 - past_edge, np.sqrt(1 + (1 - past_face) ** 2))
    return (larger >= 1) & (smaller >= needed)


def _children(blocks: Ints, limit: Ints) -> Ints:
    """The blocks split into blocks of half the size, without those outside the grid."""
    children = (2 * blocks[:, None] + _OFFSETS).reshape(-1, 3)
    return children[(children < limit).all(axis=1)]


def _beside_other_sign(blocks: Ints, values: NDArray[np.float32], shape: Ints) -> Bools:
    """Mask [m] of the blocks with a face neighbour among them whose value has the other sign."""
    sign = np.zeros(shape, dtype=np.int8)
    index = tuple(blocks.T)
    sign[index] = np.where(values < 0, -1, 1)
    beside = np.zeros(shape, dtype=bool)
    for axis in range(3):
        lower, upper = np.moveaxis(sign, axis, 0)[:-1], np.moveaxis(sign, axis, 0)[1:]
        differ = lower * upper < 0
        view = np.moveaxis(beside, axis, 0)
        view[:-1] |= differ
        view[1:] |= differ
    return beside[index]


def _evaluate_corners(samples: NodeValues, cells: Ints) -> None:
    needed = np.zeros(samples.grid.size, dtype=bool)
    for offset in _OFFSETS:
        needed[samples.grid.ids(cells + offset)] = True
    samples.evaluate(np.flatnonzero(needed))


def _follow_surface(samples: NodeValues, radius: float | None) -> Ints:
    """All cells [m,3] with a change of sign, in the order of a scan, after the surface has been followed to its end.

    Where the surface leaves the evaluated cells through a face with both signs, the next cell is evaluated: even if the field is
    steeper than expected, a piece is found completely or not at all.
    """
    grid = samples.grid
    while True:
        cells = _within(grid, samples.surface_cells(), 1, radius)
        ahead = _unknown_ahead(samples, cells, radius)
        if not len(ahead):
            return cells
        while len(ahead):
            samples.evaluate(np.unique(grid.ids(ahead[:, None] + _OFFSETS)))
            ahead = _unknown_ahead(samples, ahead, radius)


def _unknown_ahead(samples: NodeValues, cells: Ints, radius: float | None) -> Ints:
    """The incompletely evaluated cells that share a face with both signs with one of these cells."""
    onward = []
    for axis, side in itertools.product(range(3), (0, 1)):
        negative = samples.at(cells[:, None] + _OFFSETS[_OFFSETS[:, axis] == side]) < 0
        crossed = cells[negative.any(axis=1) & ~negative.all(axis=1)].copy()
        crossed[:, axis] += 2 * side - 1
        onward.append(crossed)
    ahead = np.concatenate(onward)
    ahead = ahead[((ahead >= 0) & (ahead < samples.grid.cells)).all(axis=1)]
    ahead = ahead[np.isnan(samples.at(ahead[:, None] + _OFFSETS)).any(axis=1)]
    return _within(samples.grid, np.unique(ahead, axis=0), 1, radius)


def _march(samples: NodeValues, cells: Ints, polish: bool) -> Mesh:
    """Marching cubes over cells [m,3] with a change of sign; vertices on grid edges."""
    igl = lazy_import("igl")
    grid = samples.grid
    corner_ids, corners = np.unique(grid.ids(cells[:, None] + _CORNERS), return_inverse=True)
    nodes = grid.nodes(corner_ids)
    values = samples.values[corner_ids].astype(np.float64)
    _, faces, edge_vertices = igl.marching_cubes(
        values, grid.points(nodes), corners.reshape(-1, 8).astype(np.int64), 0.0
    )
    keys = np.fromiter(edge_vertices.keys(), dtype=np.int64, count=len(edge_vertices))
    order = np.fromiter(edge_vertices.values(), dtype=np.int64, count=len(edge_vertices))
    ends = np.empty((len(keys), 2), dtype=np.int64)  # the two nodes of each vertex's edge, the lower first
    ends[order] = np.sort(np.stack([keys & 0xFFFFFFFF, keys >> 32], axis=1), axis=1)
    start = nodes[ends[:, 0]].astype(np.float64)
    along = nodes[ends[:, 1]] - nodes[ends[:, 0]]
    f0, f1 = values[ends[:, 0]], values[ends[:, 1]]
    t = np.clip(f0 / (f0 - f1), _EDGE_MARGIN, 1 - _EDGE_MARGIN)
    if polish:
        ft = samples.field(grid.points(start + t[:, None] * along)).astype(np.float64)
        t = np.clip(_root_of_parabola(t, f0, ft, f1), _EDGE_MARGIN, 1 - _EDGE_MARGIN)
    return Mesh(grid.points(start + t[:, None] * along), faces)


def _root_of_parabola(t: Floats, f0: Floats, ft: Floats, f1: Floats) -> Floats:
    """The root in [0, 1] of the parabolas through (0, f0), (t, ft), (1, f1); f0, f1 of opposite sign, 0 < t < 1."""
    sign = np.where(f0 < 0, 1.0, -1.0)  # then the parabola rises through its root
    f0, ft, f1 = sign * f0, sign * ft, sign * f1
    curve = ((f1 - ft) / (1 - t) - (f1 - f0)) / t
    linear = f1 - f0 - curve
    rise = np.sqrt(np.maximum(linear**2 - 4 * curve * f0, 0.0))
    # The form of the root without cancellation; where linear < 0, curve > 0.
    forward = -2 * f0 / np.where(linear >= 0, linear + rise, 1.0)
    backward = (rise - linear) / np.where(linear < 0, 2 * curve, 1.0)
    return np.where(linear >= 0, forward, backward)


def with_faces(mesh: Mesh, faces: Bools) -> Mesh:
    """The chosen faces [m] bool and the vertices they use, in order."""
    chosen = mesh.faces[faces]
    used = np.zeros(len(mesh.vertices), dtype=bool)
    used[chosen] = True
    return Mesh(mesh.vertices[used], (np.cumsum(used) - 1)[chosen])


def largest_piece(mesh: Mesh) -> Mesh:
    """The component with the largest area."""
    component = face_components(mesh.faces)
    areas = np.bincount(component, weights=face_areas(mesh.vertices, mesh.faces))
    return with_faces(mesh, component == areas.argmax())
