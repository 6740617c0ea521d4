"""Trace an outline in the chart, or a mask of vertices, as a disk of the mesh: a loop of edges and the faces inside it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from facegraft.arrays import Bools, Floats, Ints
from facegraft.geometry.chart import CylinderChart, outer_skin
from facegraft.geometry.cutpath import NoPath, TurnGraph, cheapest_loop, cheapest_path, is_simple, turn_price
from facegraft.geometry.outline import crosses, lies_on
from facegraft.regions.outlines import DiskOutline, keeps_off
from facegraft.regions.raggedness import raggedness
from facegraft.regions.regionmap import Disk, RegionMapError
from facegraft.surfaces.errors import TopologyError
from facegraft.surfaces.mirror import MIRROR
from facegraft.surfaces.normals import face_areas
from facegraft.surfaces.topology import (
    boundary_loops,
    face_components,
    faces_within,
    grow_rings,
    unique_edges,
    vertex_adjacency,
)

log = logging.getLogger("facegraft")


NEAR = 2.5  # distance, in edges, at which leaving the outline doubles an edge's price, ...
NEAR_MM = 5.0  # ... but no more than this on a coarse mesh (and no less than one edge)
INWARD = (
    1.7  # factor on distances inside the outline, so that lid and lip corners keep their margin
)
BAND = 3.0  # half width of the band in which a loop may run, in those distances
ALONG = 0.5  # price of an edge across the outline, on top of its length
TURNS = (1.6, 2.4, 3.6)  # price of a right-angled turn, in NEAR distances: loops follow the lines of the mesh, not stairs across
# them; where a loop comes out too ragged, as among triangles that follow no lines, turns are dearer
ON_LINE_MM = 1e-3
GAP_MM = 6.0  # wanted distance between two disks of a set, ...
GAP_EDGES = (2, 3)  # ... but no fewer and no more edges than these, ...
GAP_MM_LEAST = 4.0  # ... and never less than this
SPLINTER = 0.05  # a mask cut by an earlier one may fall apart: pieces below this share of the largest one's area are dropped


@dataclass(frozen=True)
class FaceSurface:
    """A template's skin and sockets in mm, with the face's midline plane at x = 0; faces index all vertices.

    Where `mirror` is known the vertices are exactly symmetric and `edges` only holds edges with a mirror image.
    """

    vertices: Floats
    faces: Ints
    edges: Ints
    chart: CylinderChart
    flat: Floats
    mirror: Ints | None

    @classmethod
    def build(cls, vertices: Floats, faces: Ints, chart: CylinderChart, mirror: Ints | None) -> FaceSurface:
        edges = unique_edges(faces)
        if mirror is not None:
            size = len(vertices)
            image = np.sort(mirror[edges], axis=1)
            edges = edges[np.isin(image[:, 0] * size + image[:, 1], edges[:, 0] * size + edges[:, 1])]
        return cls(vertices, faces, edges, chart, chart.flatten(vertices), mirror)


def trace_loop(surface: FaceSurface, disk: DiskOutline, blocked: Bools) -> Ints:
    """The cheapest loop of mesh edges along a disk's outline, over outer skin and past blocked vertices [V].

    Midline disks on a symmetric topology: the cheapest path from midline to midline over the left half, and its mirror
    image. Other disks: the cheapest closed loop around the medial line. A loop that is too ragged is traced again with dearer
    turns. Raises NoPath naming the disk.
    """
    half = disk.midline and surface.mirror is not None
    edges, price, near = _priced_edges(surface, disk, blocked, half)
    best: tuple[float, Ints] | None = None
    for turn in TURNS:
        graph = TurnGraph.build(edges, surface.vertices, price, turn * near)
        try:
            loop = _half_loop(surface, disk, graph) if half else _whole_loop(surface, disk, graph)
        except NoPath as error:
            raise NoPath(f"disk {disk.name}: {error}; are the landmarks right, and is the mesh fine enough?") from error
        ragged = raggedness(surface.vertices[loop])
        if is_simple(loop) and (best is None or ragged < best[0]):
            best = ragged, loop
        if best is not None and best[0] <= 1.0:
            return best[1]
    if best is None:
        raise NoPath(f"disk {disk.name}: the cheapest loop touches itself; the mesh is too coarse there")
    return best[1]


def _priced_edges(surface: FaceSurface, disk: DiskOutline, blocked: Bools, half: bool) -> tuple[Ints, Floats, float]:
    """Directed edges [E, 2] near the outline with their prices [E], and the distance `near` in the unit of length.

    Price = length · (1 + (distance / near)²) · (1 + ALONG · (1 - |cos to the outline's tangent|)).
    """
    v, flat = surface.vertices, surface.flat
    reach = 0.25 * np.ptp(disk.outline.points, axis=0).max()
    used = np.zeros(len(v), dtype=bool)
    used[surface.edges] = True
    low, high = disk.outline.points.min(axis=0) - reach, disk.outline.points.max(axis=0) + reach
    candidates = np.flatnonzero(used & ~blocked & (flat >= low).all(axis=1) & (flat <= high).all(axis=1))
    distance = disk.outline.nearest(flat[candidates])[0]
    candidates = candidates[(distance < reach) & keeps_off(disk, flat[candidates])]
    skin = np.zeros(len(v), dtype=bool)
    skin[candidates[outer_skin(v, surface.faces, surface.chart, candidates)]] = True
    if half and surface.mirror is not None:
        midline = surface.mirror == np.arange(len(v))
        skin &= midline | (flat[:, 0] > 0)
    edges = surface.edges[skin[surface.edges].all(axis=1)]
    if half and surface.mirror is not None:
        edges = edges[~midline[edges].all(axis=1)]
    if not len(edges):
        raise NoPath(f"disk {disk.name}: no outer skin lies along its outline")
    length = np.linalg.norm(v[edges[:, 0]] - v[edges[:, 1]], axis=1)
    middle = flat[edges].mean(axis=1)
    distance, tangent, _ = disk.outline.nearest(middle)
    edge_length = (
        float(np.median(length[distance < 0.25 * reach]))
        if (distance < 0.25 * reach).any()
        else float(np.median(length))
    )
    near_length = min(NEAR * edge_length, max(NEAR_MM, edge_length))
    distance = np.where(disk.outline.contains(middle), INWARD, 1.0) * distance
    near = distance < BAND * near_length
    ends = flat[edges]
    medial = disk.medial if half else disk.whole_medial
    clear = crosses(ends[:, 0], ends[:, 1], medial) == 0
    if not half:  # otherwise a loop could change sides at a vertex on the line, such as a landmark
        clear &= ~lies_on(ends.reshape(-1, 2), medial, ON_LINE_MM).reshape(-1, 2).any(axis=1)
    edges, length, distance, tangent = (
        edges[near & clear],
        length[near & clear],
        distance[near & clear],
        tangent[near & clear],
    )
    step = flat[edges[:, 1]] - flat[edges[:, 0]]
    step /= np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-12)
    aligned = np.abs(np.einsum("ij,ij->i", step, tangent))
    price = length * (1 + (distance / near_length) ** 2) * (1 + ALONG * (1 - aligned))
    return np.concatenate([edges, edges[:, ::-1]]), np.concatenate([price, price]), near_length


def _half_loop(surface: FaceSurface, disk: DiskOutline, graph: TurnGraph) -> Ints:
    """Cheapest path over the left half between midline vertices at the outline's top and bottom, and its mirror image."""
    assert surface.mirror is not None
    midline = surface.mirror == np.arange(len(surface.vertices))
    along = disk.outline.nearest(surface.flat)[2]
    upper = (along < 0.25) | (along > 0.75)
    bend = turn_price(
        graph.vectors * MIRROR * -1.0, graph.vectors, graph.turn_weight
    )  # from the mirror image onto the edge
    start = np.where(midline[graph.edges[:, 0]] & upper[graph.edges[:, 0]], 0.5 * bend, np.inf)
    end = np.where(midline[graph.edges[:, 1]] & ~upper[graph.edges[:, 1]], 0.5 * bend, np.inf)
    path, _ = cheapest_path(graph, start, end)
    return np.concatenate([path, surface.mirror[path[-2:0:-1]]])


def _whole_loop(surface: FaceSurface, disk: DiskOutline, graph: TurnGraph) -> Ints:
    """Cheapest closed loop around the medial line, through one edge of a cut from its outer end to the band's rim."""
    far = 2.0 * np.ptp(disk.outline.points, axis=0).max()
    tip, inward = disk.medial[-1], disk.medial[-2]
    ray = np.stack([tip, tip + far * (tip - inward) / np.linalg.norm(tip - inward)])
    ends = surface.flat[graph.edges]
    crossing = crosses(ends[:, 0], ends[:, 1], ray)
    keep = crossing >= 0
    inner = TurnGraph.build(graph.edges[keep], surface.vertices, graph.price[keep], graph.turn_weight)
    return cheapest_loop(inner, crossing[keep] > 0)[0]


def enclosed_disk(faces: Ints, vertex_count: int, loop: Ints, seed: int, name: str) -> Disk:
    """The disk that a loop cuts off around a seed vertex, with the loop turned so that the disk lies to its left.

    A flood fill over the faces that does not cross the loop: the inside of the lids, nostrils and mouth sac are included.
    Raises RegionMapError when the loop does not separate the seed from the rest of the skin.
    """
    if seed in set(loop.tolist()):
        raise RegionMapError(f"disk {name}: its loop runs through its own landmark (vertex {seed})")
    inside = flood(faces, vertex_count, loop, seed)
    if 2 * inside.sum() > len(faces):
        raise RegionMapError(f"disk {name}: its loop does not close around the disk")
    loops = [found for found in boundary_loops(faces[inside]) if set(found.tolist()) == set(loop.tolist())]
    if len(loops) != 1:
        raise RegionMapError(f"disk {name}: the faces around vertex {seed} are not bounded by its loop")
    turned = np.roll(loops[0], -int(np.argmin(loops[0])))
    return Disk(turned, np.setdiff1d(np.unique(faces[inside]), loop))


def flood(faces: Ints, vertex_count: int, loop: Ints, seed: int) -> Bools:
    """Mask [F] of the faces that can be reached from a seed vertex without crossing the loop's edges."""
    corner = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    corner = np.sort(corner, axis=1)
    key = corner[:, 0] * vertex_count + corner[:, 1]
    ring = np.sort(np.column_stack([loop, np.roll(loop, -1)]), axis=1)
    open_edge = ~np.isin(key, ring[:, 0] * vertex_count + ring[:, 1])
    face = np.tile(np.arange(len(faces)), 3)[open_edge]
    _, edge = np.unique(key[open_edge], return_inverse=True)
    incidence = sp.csr_matrix((np.ones(len(face)), (face, edge.ravel())), shape=(len(faces), int(edge.max()) + 1))
    label = connected_components(incidence @ incidence.T, directed=False)[1]
    touching = np.flatnonzero((faces == seed).any(axis=1))
    return np.asarray(label == label[touching[0]])


def nearest_skin(surface: FaceSurface, point: Floats) -> int:
    """The vertex of outer skin that lies nearest to a point [2] of the chart."""
    used = np.unique(surface.edges)
    order = used[np.argsort(np.round(np.linalg.norm(surface.flat[used] - point, axis=1), 9), kind="stable")]
    for block in np.array_split(order, max(1, len(order) // 64)):
        found = block[outer_skin(surface.vertices, surface.faces, surface.chart, block)]
        if len(found):
            return int(found[0])
    raise RegionMapError("the mesh has no outer skin; do its faces look inward?")


def keep_clear(face: FaceSurface, disk: Disk) -> Bools:
    """Mask [V] of the vertices that another disk's loop must avoid: the disk itself and the rings around it."""
    count = len(face.vertices)
    around = face.vertices[np.column_stack([disk.loop, np.roll(disk.loop, -1)])]
    edge_length = float(np.median(np.linalg.norm(around[:, 0] - around[:, 1], axis=1)))
    edges = int(np.clip(np.ceil(GAP_MM / edge_length), *GAP_EDGES))
    mask = np.zeros(count, dtype=bool)
    mask[disk.interior] = True
    mask[disk.loop] = True
    for ring in grow_rings(vertex_adjacency(face.faces, count), disk.loop, edges - 1):
        mask[ring] = True
    near = cKDTree(face.vertices[disk.loop]).query(face.vertices, distance_upper_bound=GAP_MM_LEAST)[0]
    return mask | (near < GAP_MM_LEAST)


def masked_disks(face: FaceSurface, mask: Ints, name: str) -> list[Disk]:
    """The disks that a mask of vertices covers: one for each connected piece of its faces, the largest first.

    Holes in a piece and the sockets behind its openings are filled; a piece of less than SPLINTER of the largest one's area is
    left out, with a warning. Raises RegionMapError, naming the mask, where it covers no face, or the boundary of a piece passes
    twice through a vertex.
    """
    count = len(face.vertices)
    member = np.zeros(count, dtype=bool)
    member[mask] = True
    covered = face.faces[faces_within(face.faces, member)]
    if not len(covered):
        raise RegionMapError(
            f"mask {name}: covers no whole triangle of the skin; are its indices those of this topology?"
        )
    piece = face_components(covered)
    area = np.bincount(piece, face_areas(face.vertices, covered))
    disks = []
    for number in np.argsort(-area, kind="stable"):
        own = covered[piece == number]
        if area[number] < SPLINTER * area.max():
            log.warning("mask %s: left out a splinter of %d triangles at vertex %d", name, len(own), int(own.min()))
            continue
        try:
            loops = boundary_loops(own)
        except TopologyError as error:
            raise RegionMapError(
                f"mask {name}: its rim is not a simple loop ({error}); smooth the mask there"
            ) from error
        rim = max(loops, key=lambda loop: _length(face.vertices, loop), default=np.empty(0, dtype=np.int64))
        inside = np.setdiff1d(np.unique(own), np.concatenate([*loops, rim]))
        if len(inside):
            disks.append(enclosed_disk(face.faces, count, rim, int(inside[0]), name))
    if not disks:
        raise RegionMapError(f"mask {name}: is only a strip one triangle wide; a part needs vertices inside its rim")
    return disks


def _length(vertices: Floats, loop: Ints) -> float:
    return float(np.linalg.norm(vertices[loop] - vertices[np.roll(loop, -1)], axis=1).sum())
