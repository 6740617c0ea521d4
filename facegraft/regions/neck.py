"""The neck cut below the chin: a loop of edges around the neck, the same on every head of a topology."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from facegraft.arrays import Bools, Floats, Ints
from facegraft.geometry.cutpath import NoPath, TurnGraph, cheapest_loop, cheapest_path, is_simple, turn_price
from facegraft.regions.tracing import FaceSurface, flood
from facegraft.surfaces.mirror import MIRROR
from facegraft.surfaces.topology import boundary_loops

TILT = np.radians(15.0)  # about how far the neck leans forward: the cut is perpendicular to it, lower in front
BELOW_CHIN = 0.18  # height of the cut below the chin, and its distance behind it, ...
BEHIND_CHIN = 0.45  # ... as fractions of the face height nasion-chin
BAND = 3.0  # half width of the band around the plane, in edges
TURN = 1.0  # price of a right-angled turn, in edges


@dataclass(frozen=True)
class NeckPlane:
    """A tilted plane below the chin, and cylinder coordinates about its normal through the neck's middle."""

    point: Floats
    normal: Floats
    middle: Floats

    @classmethod
    def below(cls, points68: Floats, skin: Floats) -> NeckPlane:
        """The plane from the landmark positions and skin vertices, both in mm in the face frame. Raises NoPath without a neck."""
        face_height = float(np.linalg.norm(points68[27] - points68[8]))
        point = points68[8] - face_height * np.array([0.0, BELOW_CHIN, BEHIND_CHIN])
        normal = np.array([0.0, np.cos(TILT), np.sin(TILT)])
        near = skin[np.abs((skin - point) @ normal) < 0.05 * face_height]
        if len(near) < 3:
            raise NoPath("no skin lies at the height of the neck cut")
        middle = 0.5 * (near.min(axis=0) + near.max(axis=0)) * [0.0, 1.0, 1.0]
        return cls(point, normal, middle)

    def height(self, points: Floats) -> Floats:
        """Signed height [N] above the plane."""
        return np.asarray((points - self.point) @ self.normal)

    def angle(self, points: Floats) -> Floats:
        """Angle [N] about the neck's axis, 0 in front, positive toward the subject's left, ±pi behind."""
        forward = np.array([0.0, -self.normal[2], self.normal[1]])
        local = points - self.middle
        return np.asarray(np.arctan2(local[:, 0], local @ forward))


def neck_crop(
    surface: FaceSurface, points68: ArrayLike, opening: Ints | None, nose_tip: int, skin: Bools
) -> tuple[Ints, Ints] | None:
    """(loop, vertices below it) of the neck cut, oriented as the boundary of the kept part; None without a neck opening.

    Where the neck is too short for a cut (its opening reaches the band around the plane) the opening itself is the
    loop and nothing is dropped.
    """
    if opening is None:
        return None
    nothing = np.empty(0, dtype=np.int64)
    try:
        plane = NeckPlane.below(np.asarray(points68, dtype=np.float64), surface.vertices[skin])
        loop = _neck_loop(surface, plane, opening, skin)
    except NoPath:
        return opening, nothing  # documented: a short neck is cut where the mesh ends
    kept = flood(surface.faces, len(surface.vertices), loop, nose_tip)
    turned = [found for found in boundary_loops(surface.faces[kept]) if set(found.tolist()) == set(loop.tolist())]
    if len(turned) != 1:
        return opening, nothing
    below = np.setdiff1d(np.unique(surface.faces[~kept]), loop)
    return np.roll(turned[0], -int(np.argmin(turned[0]))), below


def _neck_loop(surface: FaceSurface, plane: NeckPlane, opening: Ints, skin: Bools) -> Ints:
    """Cheapest edge loop around the neck along the plane; raises NoPath where the mesh ends too near."""
    v = surface.vertices
    height, angle = plane.height(v), plane.angle(v)
    if (height[opening] > 0).any():
        raise NoPath("the neck opening reaches above the plane")
    edges = surface.edges[skin[surface.edges].all(axis=1)]
    length = np.linalg.norm(v[edges[:, 0]] - v[edges[:, 1]], axis=1)
    middle = height[edges].mean(axis=1)
    edge_length = float(np.median(length[np.abs(middle) < 10.0]))
    near = np.abs(middle) < BAND * edge_length
    if height[opening].max() > -edge_length:
        raise NoPath("the neck opening lies at the plane")
    edges, length, middle = edges[near], length[near], middle[near]
    rise = np.abs(height[edges[:, 0]] - height[edges[:, 1]]) / length
    price = length * (1 + (middle / edge_length) ** 2) * (1 + 0.5 * (1 - np.sqrt(np.maximum(0.0, 1 - rise**2))))
    edges, price = np.concatenate([edges, edges[:, ::-1]]), np.concatenate([price, price])
    if surface.mirror is not None:
        loop = _mirrored_half(surface, edges, price, angle, edge_length)
    else:
        step = angle[edges[:, 1]] - angle[edges[:, 0]]
        seam = np.where(np.abs(step) > np.pi, -np.sign(step), 0.0)  # +1: passes the back from left to right
        keep = seam >= 0
        graph = TurnGraph.build(edges[keep], v, price[keep], TURN * edge_length)
        loop = cheapest_loop(graph, seam[keep] > 0)[0]
    if not is_simple(loop):
        raise NoPath("the loop around the neck touches itself")
    return loop


def _mirrored_half(surface: FaceSurface, edges: Ints, price: Floats, angle: Floats, edge_length: float) -> Ints:
    assert surface.mirror is not None
    midline = surface.mirror == np.arange(len(surface.vertices))
    left = midline | (surface.vertices[:, 0] > 0)
    inside = left[edges].all(axis=1) & ~midline[edges].all(axis=1)
    graph = TurnGraph.build(edges[inside], surface.vertices, price[inside], TURN * edge_length)
    front = np.abs(angle) < 0.5 * np.pi
    bend = turn_price(graph.vectors * MIRROR * -1.0, graph.vectors, graph.turn_weight)
    start = np.where(midline[graph.edges[:, 0]] & front[graph.edges[:, 0]], 0.5 * bend, np.inf)
    end = np.where(midline[graph.edges[:, 1]] & ~front[graph.edges[:, 1]], 0.5 * bend, np.inf)
    path, _ = cheapest_path(graph, start, end)
    return np.concatenate([path, surface.mirror[path[-2:0:-1]]])
