"""The look of heads: clay with ambient occlusion baked in per vertex, tinted parts, eyes and teeth in their own colours."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from facegraft.arrays import Floats, Ints, Labels
from facegraft.colours import CLAY, label_colour
from facegraft.parts import MAX_PARTS
from facegraft.regions.regionmap import RegionMap
from facegraft.report.studio import Body
from facegraft.surfaces.normals import face_areas, vertex_normals
from facegraft.surfaces.topology import faces_within

EYEBALL, IRIS, TEETH, GUMS = "#f4f2ee", "#5b6a76", "#f1ece0", "#c79a92"
SOCKET_SHADE = 0.72
TEETH_LIGHT, EYE_LIGHT = 0.80, 0.85
TINT = 0.62
"""Share of the part's colour in the tint of a part; the rest is clay."""

IRIS_DEG = 25.0
"""Half angle of the iris as seen from the centre of the eyeball: 5.5 to 6 mm on a radius of 12 to 13 mm."""

# Overlays that renderers draw as transparent; as clay they would cover the eyes.
LEFT_OUT = ("lash", "occ", "blend", "lacrimal")

OCCLUSION_RAYS = 48
DENSE_CELLS = 8000


def rgb(colour: str) -> Floats:
    """The colour "#rrggbb" as [3] in 0..1."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255


def part_palette() -> Floats:
    """Colours [256, 3] by part label."""
    return np.stack([rgb(label_colour(label)) for label in range(MAX_PARTS + 1)])


@dataclass(frozen=True)
class HeadLook:
    """Data shared by all heads of one topology: drawn faces [f, 3], colours [V, 3], light [V] in 0..1, part labels [V]."""

    faces: Ints
    colours: Floats
    light: Floats
    labels: Labels

    def body(self, vertices: Floats, tinted: Collection[int] = ()) -> Body:
        """A head [V, 3] in clay, with the parts of some labels tinted."""
        colours = self.colours.copy()
        palette = part_palette()
        for label in tinted:
            chosen = self.labels == label
            colours[chosen] += TINT * (palette[label] - colours[chosen])
        return self.painted(vertices, colours)

    def painted(self, vertices: Floats, colours: Floats) -> Body:
        """A head [V, 3] in colours [V, 3], shaded by the light that reaches it."""
        return Body(
            points=vertices,
            colours=colours * self.light[:, None],
            faces=self.faces,
            normals=vertex_normals(vertices, self.faces),
        )


def head_look(vertices: Floats, faces: Ints, region_map: RegionMap | None, labels: Labels | None) -> HeadLook:
    """The look of a topology, with the light computed on one typical head [V, 3]."""
    count = len(vertices)
    colours = np.tile(rgb(CLAY), (count, 1))
    drawn = np.ones(count, dtype=bool)
    tintable = np.ones(count, dtype=bool)
    shade = np.ones(count)
    least = np.zeros(
        count
    )  # on a typical head, lips and lids cover teeth and eyes, which would stay dark on heads that open them
    for name, group in (region_map.groups if region_map else {}).items():
        members = group.vertices
        if group.role == "socket":
            shade[members] = SOCKET_SHADE
        if group.role != "inner":
            continue
        tintable[members] = False
        if any(word in name for word in LEFT_OUT):
            drawn[members] = False
        elif name.startswith("eyeball"):
            colours[members], least[members] = _eyeball(vertices[members]), EYE_LIGHT
        elif "teeth" in name:
            colours[members], least[members] = rgb(TEETH), TEETH_LIGHT
        else:
            colours[members] = rgb(GUMS)
    shown = faces[faces_within(faces, drawn)]
    light = np.maximum(shade * _opened(ambient_light(vertices, shown)), least)
    parts = np.zeros(count, dtype=np.uint8) if labels is None else np.where(tintable, labels, 0).astype(np.uint8)
    return HeadLook(shown, colours, light, parts)


def surface_look(vertices: Floats, faces: Ints, labels: Labels) -> HeadLook:
    """The look of a single mesh with part labels [v]."""
    return HeadLook(faces, np.tile(rgb(CLAY), (len(vertices), 1)), _opened(ambient_light(vertices, faces)), labels)


def _eyeball(vertices: Floats) -> Floats:
    """Colours of an eyeball that looks along +z."""
    centre = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    out = vertices - centre
    out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
    iris = out[:, 2] > np.cos(np.radians(IRIS_DEG))
    return np.where(iris[:, None], rgb(IRIS), rgb(EYEBALL))


def _opened(light: Floats) -> Floats:
    """Ambient light as a factor on the colour: never black, and 1 where the whole half sphere is open."""
    return np.asarray(0.36 + 0.64 * np.clip(1.15 * light, 0, 1) ** 0.8)


def ambient_light(vertices: Floats, faces: Ints, rays: int = OCCLUSION_RAYS) -> Floats:
    """Share [V] of the light of a uniform sky that reaches each vertex (ambient occlusion by rays, cosine weighted).

    All vertices use the same directions, and the result is smoothed once over the edges, so that few rays suffice.
    """
    light = _sky_share(vertices, faces, vertices, vertex_normals(vertices, faces), rays)
    return _smoothed_over_edges(light, faces, 1)


def dense_mesh_light(vertices: Floats, faces: Ints, normals: Floats) -> Floats:
    """Light [V] in 0..1 as a factor on the colours of a mesh of many small triangles, such as the output of marching cubes.

    Rays are cast against a coarse mesh: one vertex for each cell of a grid with about DENSE_CELLS cells on the surface
    (vertices whose normals point into different octants are kept apart, so that the two lips do not mix). All vertices of
    a cell get its light, which is then smoothed over the edges by about the width of a cell.
    """
    step = float(np.sqrt(face_areas(vertices, faces).sum() / DENSE_CELLS)) or 1.0
    place = np.floor((vertices - vertices.min(axis=0)) / step).astype(np.int64)
    wide = int(place.max()) + 1
    octant = (normals > 0) @ np.array([1, 2, 4])
    number = 8 * ((place[:, 0] * wide + place[:, 1]) * wide + place[:, 2]) + octant
    _, kept, cell = np.unique(number, return_index=True, return_inverse=True)
    coarse = cell[faces]
    coarse = coarse[(coarse != np.roll(coarse, 1, axis=1)).all(axis=1)]
    light = _sky_share(vertices[kept], coarse, vertices[kept], normals[kept], OCCLUSION_RAYS)
    return _opened(_smoothed_over_edges(light[cell], faces, max(2, len(vertices) // len(kept))))


def _sky_share(vertices: Floats, faces: Ints, points: Floats, normals: Floats, rays: int) -> Floats:
    """Cosine-weighted share [n] of the open sky at points [n, 3] with normals [n, 3] on a mesh."""
    size = float(np.linalg.norm(np.ptp(vertices, axis=0))) or 1.0
    scene = EmbreeScene()
    TriangleMesh(scene, (vertices / size).astype(np.float32), faces.astype(np.int32))
    starts = (points / size + 2e-3 * normals).astype(np.float32)
    open_light, all_light = np.zeros(len(points)), np.zeros(len(points))
    for direction in fibonacci_sphere(2 * rays):
        weight = normals @ direction
        facing = np.flatnonzero(weight > 0.05)
        ways = np.tile(direction.astype(np.float32), (len(facing), 1))
        hit = np.asarray(scene.run(starts[facing], ways))
        open_light[facing] += weight[facing] * (hit < 0)
        all_light[facing] += weight[facing]
    return np.divide(open_light, all_light, out=np.ones(len(points)), where=all_light > 0)


def _smoothed_over_edges(values: Floats, faces: Ints, times: int) -> Floats:
    """Values [V], averaged `times` times over each vertex and its neighbours."""
    # An inner edge counts twice and a border edge once; the difference is small, and finding unique edges takes longer than the rays.
    ends = np.concatenate([faces.ravel(), np.roll(faces, -1, axis=1).ravel()])
    others = np.concatenate([np.roll(faces, -1, axis=1).ravel(), faces.ravel()])
    shape = (len(values), len(values))
    around = sp.csr_matrix((np.ones(len(ends)), (ends, others)), shape=shape) + 2 * sp.identity(len(values))
    total = np.asarray(around.sum(axis=1)).ravel()
    for _ in range(times):
        values = (around @ values) / total
    return np.asarray(values)


def fibonacci_sphere(count: int) -> Floats:
    """Nearly uniform directions [count, 3]."""
    i = np.arange(count) + 0.5
    z = 1 - 2 * i / count
    turn = np.pi * (1 + 5**0.5) * i
    r = np.sqrt(1 - z * z)
    return np.column_stack([r * np.cos(turn), r * np.sin(turn), z])
