"""The pictures of the page: heads with one framing, composites, seams, points, the template morph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from matplotlib.colors import Colormap
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse.csgraph import dijkstra

from facegraft.arrays import Floats, Ints
from facegraft.report.clay import TINT, HeadLook, part_palette, rgb
from facegraft.report.seams import SeamMap
from facegraft.report.studio import Body, Camera, Studio
from facegraft.surfaces.normals import vertex_normals
from facegraft.surfaces.topology import unique_edges
from facegraft.vocabulary import CANTHI, CHIN

FRONT, THREE_QUARTER, SIDE = 0.0, 38.0, 90.0
TILT = 3.0
WIDE = 0.86
"""Width of a head's picture, as a share of its height."""


@dataclass(frozen=True)
class Framing:
    """The framing of a topology's heads: offset [3] of the focus from the mean of the canthi, and height of the picture."""

    offset: Floats
    height: float

    def camera(self, landmarks: Floats, turn_deg: float = FRONT) -> Camera:
        """A camera for a head with these landmarks [68, 3]."""
        return Camera(landmarks[list(CANTHI)].mean(axis=0) + self.offset, self.height, turn_deg, TILT)


def frame_heads(heads: Sequence[tuple[Floats, Floats]], surface: Ints | None = None) -> Framing:
    """A framing that contains each of these heads (vertices [V, 3], landmarks [68, 3]) from the crown to below the chin."""
    tops, chins, depths = [], [], []
    for vertices, landmarks in heads:
        eyes = landmarks[list(CANTHI)].mean(axis=0)
        skin = (vertices if surface is None or not len(surface) else vertices[surface]) - eyes
        chin = landmarks[CHIN, 1] - eyes[1]
        above = skin[skin[:, 1] > chin]
        tops.append(above[:, 1].max())
        chins.append(chin)
        depths.append(0.5 * (above[:, 2].max() + above[:, 2].min()))
    top, chin = float(np.max(tops)), float(np.min(chins))
    height = 1.30 * (top - chin)
    return Framing(np.array([0.0, 0.5 * (top + chin) - 0.045 * height, float(np.median(depths))]), height)


class HeadScenes:
    """Pictures of the heads of one topology."""

    def __init__(self, studio: Studio, look: HeadLook, framing: Framing) -> None:
        self.studio, self.look, self.framing = studio, look, framing
        self._made: dict[tuple[object, ...], Image.Image] = {}

    def head(
        self, name: str, vertices: Floats, landmarks: Floats, turn_deg: float, tinted: tuple[int, ...], height: int
    ) -> Image.Image:
        """One head; the same picture is drawn only once (`name` identifies the head)."""
        made = (name, turn_deg, tinted, height)
        if made not in self._made:
            camera = self.framing.camera(landmarks, turn_deg)
            self._made[made] = self.studio.shoot([self.look.body(vertices, tinted)], camera, portrait(height))
        return self._made[made]

    def heat(
        self,
        vertices: Floats,
        landmarks: Floats,
        values: Floats,
        top: float,
        colours: Colormap,
        loops: Mapping[str, Ints],
        turn_deg: float,
        height: int,
    ) -> Image.Image:
        """Values [V] as colours on a head, up to `top` (clay where they are 0), with the parts' loops drawn on it."""
        painted = np.where(
            values[:, None] > 0, np.asarray(colours(np.clip(values / top, 0, 1)))[:, :3], self.look.colours
        )
        bodies = [self.look.painted(vertices, painted)]
        ink = rgb("#3a3a42")
        bodies += [self._curve(vertices, loop, np.tile(ink, (len(loop), 1)), 1.1) for loop in loops.values()]
        return self.studio.shoot(bodies, self.framing.camera(landmarks, turn_deg), portrait(height))

    def seams(
        self,
        vertices: Floats,
        landmarks: Floats,
        found: SeamMap,
        top: float,
        colours: Colormap,
        turn_deg: float,
        height: int,
    ) -> Image.Image:
        """The seam excess of every loop edge as the colour of the loop, 0 to `top`."""
        bodies = [self.look.body(vertices)]
        for name, loop in found.loops.items():
            painted = np.asarray(colours(np.clip(found.excess[name] / top, 0, 1)))[:, :3]
            bodies.append(self._curve(vertices, loop, painted, 3.4))
        return self.studio.shoot(bodies, self.framing.camera(landmarks, turn_deg), portrait(height))

    def _curve(self, vertices: Floats, loop: Ints, colours: Floats, width: float) -> Body:
        # Raised a little, since the skin would hide half of the line.
        normals = vertex_normals(vertices, self.look.faces)
        lifted = vertices[loop] + 0.004 * self.framing.height * normals[loop]
        return Body(lifted, colours, size=width, closed_line=True)

    def morph_stage(
        self, points: Floats, mesh: StagePointMesh, landmarks: Floats, moved: tuple[int, ...], height: int
    ) -> Image.Image:
        """One stage of the template morph, its stage points [M, 3] joined to a mesh, with the parts of the labels that have moved tinted."""
        return self.studio.shoot(
            [self._stage(points, mesh, moved)], self.framing.camera(landmarks, THREE_QUARTER), portrait(height)
        )

    def marked_stage(
        self, points: Floats, mesh: StagePointMesh, landmarks: Floats, marked: Mapping[int, Floats], height: int
    ) -> Image.Image:
        """One stage from the front, with the parts tinted and the landmarks [k, 3] of each label as dots in its colour."""
        palette = part_palette()
        bodies = [self._stage(points, mesh, tuple(marked))]
        for label, marks in marked.items():
            lifted = marks + np.array([0.0, 0.0, 0.02 * self.framing.height])  # before the skin, which would hide half of a dot
            bodies.append(Body(lifted, np.tile(0.6 * palette[label], (len(marks), 1)), size=9.0))
        return self.studio.shoot(bodies, self.framing.camera(landmarks), portrait(height))

    def _stage(self, points: Floats, mesh: StagePointMesh, tinted: tuple[int, ...]) -> Body:
        colours = np.tile(self.look.colours[0], (len(points), 1))
        palette = part_palette()
        for label in tinted:
            chosen = mesh.parts == label
            colours[chosen] += TINT * (palette[label] - colours[chosen])
        return Body(points, colours * mesh.light[:, None], mesh.faces, vertex_normals(points, mesh.faces))


@dataclass(frozen=True)
class StagePointMesh:
    """Triangles [f, 3] over the stage points, with their light and part labels [M]."""

    faces: Ints
    light: Floats
    parts: NDArray[np.uint8]


def join_stage_points(
    template: Floats, skin_faces: Ints, stage_vertices: Ints, light: Floats, parts: NDArray[np.uint8]
) -> StagePointMesh:
    """Triangles over a subset of a mesh's vertices: the dual of the subset's geodesic Voronoi cells on the mesh.

    Every vertex of the mesh belongs to the nearest stage vertex along the edges; where a face of the mesh touches three
    cells, their stage vertices are joined.
    """
    edges = unique_edges(skin_faces)
    lengths = np.linalg.norm(template[edges[:, 0]] - template[edges[:, 1]], axis=1)
    graph = sp.csr_matrix((lengths, (edges[:, 0], edges[:, 1])), shape=(len(template), len(template)))
    _, _, owner = dijkstra(graph, directed=False, indices=stage_vertices, min_only=True, return_predecessors=True)
    number = np.full(len(template) + 1, -1)
    number[stage_vertices] = np.arange(len(stage_vertices))
    cells = number[np.where(owner < 0, len(template), owner)][skin_faces]
    apart = (cells[:, 0] != cells[:, 1]) & (cells[:, 1] != cells[:, 2]) & (cells[:, 2] != cells[:, 0])
    faces = cells[apart & (cells >= 0).all(axis=1)]
    _, first = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
    return StagePointMesh(faces[np.sort(first)], light[stage_vertices], parts)


def point_cloud(
    studio: Studio,
    points: Floats,
    normals: Floats,
    colours: Floats,
    camera: Camera,
    size: tuple[int, int],
    dot: float,
) -> Image.Image:
    """Dots [n, 3], shaded by their normals; dots that face away are left out, since they would show through the gaps."""
    away = camera.position() - camera.focus
    away /= np.linalg.norm(away)
    right = np.cross([0.0, 1.0, 0.0], away)
    right /= np.linalg.norm(right)
    key = -0.55 * right + 0.5 * np.cross(away, right) + away
    front = normals @ away > 0
    shade = 0.42 + 0.58 * np.clip(normals[front] @ (key / np.linalg.norm(key)), 0, 1)
    return studio.shoot([Body(points[front], colours[front] * shade[:, None], size=dot)], camera, size)


def portrait(height: int) -> tuple[int, int]:
    """Width and height of a head's picture in pixels."""
    return round(WIDE * height), height
