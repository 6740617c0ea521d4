"""Closing heads: from the registered skin of a topology to one watertight solid per head.

`HeadCloser` finds once, on the topology's template, which faces stay, which openings there are and how they are
capped. Closing a head then takes three steps: pick its skin vertices, place the caps' vertices, check the result.
Connectivity is never changed per head, so all closed heads of a topology have the same faces and their vertices
correspond; a head takes a few milliseconds.

- Everything that is not skin (eyeballs, teeth, eye sockets, mouth sac) is left out.
- The neck is cut below a fixed loop of edges, by the template's plane, and closed with a film of well-shaped triangles.
- Eyes are closed by a cap on the sphere of the eyeball, fitted to the lid rim: it looks like an eye and leaves no pocket.
- The mouth and every other opening get the triangulation of least area between their own vertices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facegraft.arrays import Floats, Ints
from facegraft.errors import FacegraftError
from facegraft.geometry.caps import (
    CapError,
    CapPattern,
    estimated_eye_radius,
    minimal_area_cap,
    place_flat,
    place_on_sphere,
    planar_cap,
    sphere_radius,
)
from facegraft.geometry.neck import NeckCut, cut_neck
from facegraft.surfaces.normals import signed_volume
from facegraft.surfaces.topology import (
    boundary_edges,
    boundary_loops,
    euler_characteristic,
    face_components,
    is_watertight,
    unique_edges,
)
from facegraft.vocabulary import NECK


class ClosingError(FacegraftError):
    """A topology whose openings cannot be closed, or a head that is not closed by its topology's caps."""


@dataclass(frozen=True)
class ClosedHead:
    """A watertight head, outward oriented.

    vertices        [V, 3] f64   skin vertices exactly as given, then the caps' own
    faces           [F, 3] i64   the same for every head of a closer
    vertex_labels   [V]    u8    part labels; a cap has the label of the part that its rim lies in
    source          [V]    i64   the vertex's index in the given head; -1 for vertices of a cap or of the neck's cut
    """

    vertices: Floats
    faces: Ints
    vertex_labels: NDArray[np.uint8]
    source: Ints


@dataclass(frozen=True)
class _Opening:
    """A rim (indices into the given head), its cap, and the vertices of the eyeball that a spherical cap follows."""

    name: str
    rim: Ints
    pattern: CapPattern
    eye: bool
    eyeball: Ints | None


class HeadCloser:
    """Closes the heads of one topology.

    template        [V, 3]  vertices of the topology's template, in the same unit as the heads
    surface_faces   [F, 3]  faces of the outer skin, indices into the V vertices
    openings        ordered rims by name, e.g. eye_left, eye_right, mouth, neck. Rims whose name starts with "eye" get
                    spherical caps, the others least-area ones. Every boundary loop of the surface must be among them.
    vertex_labels   [V]     part label of every vertex (loop vertices belong to the remainder)
    neck_loop, neck_drop    the loop of edges below which the neck is cut (see `neck`), and the vertices below it;
                    without them the opening named "neck", if there is one, is closed as it is
    eyeballs        vertices of the eyeball behind each eye opening, by the opening's name; for an opening without
                    them, the eyeball's radius is estimated from the width of the lids

    Raises ClosingError where the caps do not make the template one closed, outward-oriented sphere.
    """

    def __init__(
        self,
        template: ArrayLike,
        surface_faces: ArrayLike,
        openings: Mapping[str, ArrayLike],
        vertex_labels: ArrayLike,
        *,
        neck_loop: ArrayLike | None = None,
        neck_drop: ArrayLike | None = None,
        eyeballs: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        head = np.asarray(template, dtype=np.float64)
        labels = np.asarray(vertex_labels, dtype=np.uint8)
        if labels.shape != (len(head),):
            raise ClosingError(f"vertex labels have shape {labels.shape}, but the template has {len(head)} vertices")
        faces = np.asarray(surface_faces, dtype=np.int64)
        rims = {name: np.asarray(loop, dtype=np.int64) for name, loop in openings.items()}
        self._cut: NeckCut | None = None
        if neck_loop is not None:
            drop = np.asarray(neck_drop if neck_drop is not None else [], dtype=np.int64)
            loop = np.asarray(neck_loop, dtype=np.int64)
            dropped = np.zeros(len(head), dtype=bool)
            dropped[drop] = True
            kept = faces[~dropped[faces].any(axis=1)]
            if not any(set(found.tolist()) == set(loop.tolist()) for found in boundary_loops(kept)):
                raise ClosingError(
                    "the neck loop is not a boundary of the skin above it: wrong loop, or wrong vertices to drop"
                )
            self._cut = cut_neck(head, faces, loop, drop)
            faces = kept if self._cut is None else self._cut.faces
            rims[NECK] = loop if self._cut is None else self._cut.loop
        self._vertex_count = len(head)
        head = self._extended(head)
        labels = np.concatenate([labels, np.zeros(len(head) - len(labels), dtype=np.uint8)])
        self._kept = np.unique(faces)
        self._openings = _cap_openings(
            head, faces, rims, {k: np.asarray(v, np.int64) for k, v in (eyeballs or {}).items()}
        )

        new = np.full(len(head), -1, dtype=np.int64)
        new[self._kept] = np.arange(len(self._kept))
        all_faces, all_labels, count = [new[faces]], [labels[self._kept]], len(self._kept)
        for opening in self._openings:
            added = opening.pattern.new_count
            names = np.concatenate([new[opening.rim], np.arange(count, count + added)])
            all_faces.append(names[opening.pattern.faces])
            all_labels.append(np.full(added, _label_of_rim(labels[opening.rim]), dtype=np.uint8))
            count += added
        self._faces = np.concatenate(all_faces)
        of_neck = [False, *(opening.name == NECK for opening in self._openings)]
        self._neck = np.repeat(of_neck, [len(part) for part in all_faces])
        self._labels = np.concatenate(all_labels)
        self._added = np.arange(len(self._faces)) >= len(faces)
        self._added[: len(faces)] = (faces >= self._vertex_count).any(axis=1)
        own = np.where(self._kept < self._vertex_count, self._kept, -1)
        self._source = np.concatenate([own, np.full(count - len(own), -1)])
        self._skin_faces = faces[(faces < self._vertex_count).all(axis=1)]
        self._skin_faces.setflags(write=False)
        self._faces.setflags(write=False)
        self._labels.setflags(write=False)
        self._source.setflags(write=False)
        self._check_topology()
        self.close(head[: self._vertex_count])

    def _extended(self, head: Floats) -> Floats:
        """The head's vertices, then those of the neck's cut."""
        return head if self._cut is None else self._cut.extend(head)

    @property
    def neck_faces(self) -> NDArray[np.bool_]:
        """Mask [F] of the faces that close the neck."""
        return self._neck

    @property
    def added_faces(self) -> NDArray[np.bool_]:
        """Mask [F] of the faces that are not the topology's own: those of caps, and those that the neck's cut made."""
        return self._added

    @property
    def faces(self) -> Ints:
        """Faces [F, 3], the same for every head that this closer closes (read-only)."""
        return self._faces

    @property
    def vertex_labels(self) -> NDArray[np.uint8]:
        """Part labels [V] of the closed heads' vertices (read-only)."""
        return self._labels

    @property
    def skin_faces(self) -> Ints:
        """The triangles [F', 3] of the given head that a closed head keeps, in vertices of the given head (read-only): those of
        the topology itself, without caps and without the triangles that the neck's cut runs through."""
        return self._skin_faces

    @property
    def source(self) -> Ints:
        """Index [V] in the given head of every vertex of a closed head; -1 for those of a cap or the neck's cut (read-only)."""
        return self._source

    def close(self, vertices: ArrayLike) -> ClosedHead:
        """Close one head [V, 3] of the topology; skin vertices are copied bit for bit (as float64).

        Raises ClosingError for a wrong vertex count, numbers that are not finite, a collapsed opening, or a head
        that is inside out (enclosed volume not positive).
        """
        head = np.asarray(vertices, dtype=np.float64)
        if head.shape != (self._vertex_count, 3):
            raise ClosingError(
                f"cannot close the head: its vertices have shape {head.shape}, the topology's ({self._vertex_count}, 3)"
            )
        head = self._extended(head)
        skin = head[self._kept]
        if not np.isfinite(skin).all():
            bad = self._kept[~np.isfinite(skin).all(axis=1)]
            raise ClosingError(
                f"cannot close the head: {len(bad)} of its vertices are not finite, the first is vertex {bad[0]}"
            )
        parts = [skin]
        size = float(np.linalg.norm(np.ptp(skin, axis=0)))
        for opening in self._openings:
            rim = head[opening.rim]
            if np.ptp(rim, axis=0).max() < 1e-6 * size:
                raise ClosingError(f"cannot close the head: the opening {opening.name} has collapsed to a point")
            parts.append(_place(opening, rim, head))
        closed = np.concatenate(parts)
        volume = signed_volume(closed, self._faces)
        if not volume > 0.0:
            raise ClosingError(
                f"cannot close the head: it encloses a volume of {volume:.3g}; is it inside out (mirrored, or its faces reversed)?"
            )
        return ClosedHead(closed, self._faces, self._labels, self._source)

    def _check_topology(self) -> None:
        if not is_watertight(self._faces):
            raise ClosingError(
                f"the caps do not close the head: {len(boundary_edges(self._faces))} open edges or an edge with more than 2 faces"
            )
        pieces = int(face_components(self._faces).max()) + 1
        if pieces != 1:
            raise ClosingError(
                f"the surface is in {pieces} pieces, not one; are inner parts (eyeballs, teeth) among its groups?"
            )
        euler = euler_characteristic(self._faces)
        if euler != 2:
            raise ClosingError(
                f"the closed head has Euler characteristic {euler}, not 2: the surface has a handle or a pinched vertex"
            )


def _cap_openings(head: Floats, faces: Ints, rims: Mapping[str, Ints], eyeballs: Mapping[str, Ints]) -> list[_Opening]:
    """Match the boundary loops of the faces with the named rims and make each one's cap on the template."""
    names = {frozenset(rim.tolist()): name for name, rim in rims.items()}
    edges = unique_edges(faces)
    openings = []
    for loop in boundary_loops(faces):
        name = names.pop(frozenset(loop.tolist()), None)
        if name is None:
            raise ClosingError(
                f"the surface has a boundary of {len(loop)} vertices (through vertex {loop[0]}) that is none of the openings "
                f"{', '.join(sorted(rims)) or '(none given)'}: add it to the topology's openings"
            )
        taken = _edges_between(loop, edges)
        eye = name.startswith("eye")
        try:
            pattern = planar_cap(head[loop], taken) if eye or name == NECK else None
            pattern = pattern if pattern is not None else minimal_area_cap(head[loop], taken)
        except CapError as error:
            raise ClosingError(f"opening {name}: {error}") from error
        openings.append(_Opening(name, loop, pattern, eye, eyeballs.get(name)))
    unmatched = [name for name in names.values() if name != NECK]
    if unmatched:
        raise ClosingError(
            f"the openings {', '.join(sorted(unmatched))} are no boundary loops of the surface: wrong loops or wrong faces"
        )
    return openings


def _label_of_rim(labels: NDArray[np.uint8]) -> int:
    """The most frequent label of a rim's vertices [n]: the part that the opening lies in."""
    return int(np.bincount(labels).argmax())


def _place(opening: _Opening, rim: Floats, head: Floats) -> Floats:
    """Vertices [m, 3] that an opening's cap adds to one head."""
    if not opening.eye:
        return place_flat(opening.pattern, rim)
    radius = estimated_eye_radius(rim)
    if opening.eyeball is not None:
        ball = head[opening.eyeball]
        if not np.isfinite(ball).all():
            raise ClosingError(
                f"cannot close the head: the eyeball behind {opening.name} has vertices that are not finite"
            )
        radius = sphere_radius(ball)
    try:
        return place_on_sphere(opening.pattern, rim, radius)
    except CapError as error:
        raise ClosingError(f"cannot close the head: opening {opening.name}: {error}") from error


def _edges_between(loop: Ints, edges: Ints) -> list[tuple[int, int]]:
    """Pairs of positions in the loop that an edge of the head joins (those along the loop included)."""
    position = {int(v): i for i, v in enumerate(loop)}
    near = edges[np.isin(edges, loop).all(axis=1)]
    return [(position[int(a)], position[int(b)]) for a, b in near]
