"""The template: layout and features combined into one symmetric head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

from facegraft.arrays import Floats, Ints
from facegraft.heads.synthetic import features as feat
from facegraft.heads.synthetic.base import CROWN_TOP, SECTIONS, BareHead
from facegraft.heads.synthetic.landmarks import landmarks, sphere
from facegraft.heads.synthetic.layout import COLUMNS, Block, Layout, build_layout, split_quads


def _runs(start: float, *parts: tuple[float, int]) -> Floats:
    """Knots from start through the given (end, cells) runs of equal cells."""
    knots = [start]
    for end, cells in parts:
        knots.extend(np.linspace(knots[-1], end, cells + 1)[1:])
    return np.array(knots)


THROAT, CHIN = -124.0, -106.0  # heights of the front midline between which rows are spread evenly over its arc
NECK_ROWS = _runs(-182, (THROAT, 10))
CHIN_ROWS = 13
FACE_ROWS = _runs(
    CHIN, (-86.5, 7), (-54, 12), (-50, 2), (-34, 9), (-18, 6), (20, 12), (32, 4), (56, 7), (80, 6), (SECTIONS[-1, 0], 6)
)  # chin | mouth | lip | base of the nose | nose | eye | brow | forehead ... crown
ROWS = len(NECK_ROWS) - 1 + CHIN_ROWS + len(FACE_ROWS) - 1
_MOUTH_BOTTOM = 10 + CHIN_ROWS + 7
_EYE_BOTTOM = _MOUTH_BOTTOM + 12 + 2 + 9 + 6
EYE = Block(_EYE_BOTTOM, _EYE_BOTTOM + 12, 7, 21, rings=9)
MOUTH = Block(_MOUTH_BOTTOM, _MOUTH_BOTTOM + 12, 0, 14, rings=10)
COLUMN_MM = _runs(0, (12, 7), (54, 14), (108, 14), (168, 21))
EYE_STEPS = np.array([1.0, 0.80, 0.62, 0.47, 0.34, 0.235, 0.15, 0.085, 0.035, 0.0])
MOUTH_STEPS = np.array([1.0, 0.72, 0.46, 0.24, 0.09])


def half_vertices(layout: Layout) -> Floats:
    """Positions [count, 3] of the half layout."""
    bare = BareHead()
    neck, face = bare.station(NECK_ROWS), bare.station(FACE_ROWS)
    stations = np.concatenate([neck, np.linspace(neck[-1], face[0], CHIN_ROWS + 1)[1:-1], face])
    girth = float(bare.half_girth(bare.station(np.zeros(()))))
    behind = COLUMNS - len(COLUMN_MM) + 1
    ahead = COLUMN_MM[-1] - COLUMN_MM[-2]  # columns behind the ear widen evenly
    u = np.arange(1, behind + 1) / behind
    rest = girth - COLUMN_MM[-1]
    columns = np.concatenate([COLUMN_MM, COLUMN_MM[-1] + ahead * behind * u + (rest - ahead * behind) * u * u]) / girth
    points = np.full((layout.count, 3), np.nan)
    i, j = np.nonzero(layout.grid >= 0)
    points[layout.grid[i, j]] = bare(columns[j], stations[i])

    def on_face(xy: Floats) -> Floats:
        share, station = bare.chart(xy[..., 0].ravel(), xy[..., 1].ravel())
        return bare(share, station)

    # eye: straight lines in the front view from the block's outline to the lid margin
    rings = layout.eye
    outline = points[rings[0], :2]
    margin = feat.lid_margin(rings.shape[1])
    eye_xy = margin + EYE_STEPS[:, None, None] * (outline - margin)
    points[rings[1:].ravel()] = on_face(eye_xy[1:])

    # mouth: from the outline to the border of the lips, then over the lips
    plan = feat.lips(layout.mouth.shape[1])
    outline = points[layout.mouth[0], :2]
    mouth_xy = [plan.border + s * (outline - plan.border) for s in MOUTH_STEPS]
    mouth_xy += [plan.border + s * (plan.opening - plan.border) for s, _, _ in feat.LIP_SECTION]
    mouth_points = on_face(np.array(mouth_xy[1:]))
    points[layout.mouth[1:].ravel()] = mouth_points

    _round_blocks(points, layout, on_face)
    _crown(points, layout)
    points = feat.relief(points)
    _lids(points, layout)
    _lips(points, layout, plan)
    points = feat.nose(points)
    points = feat.nostrils(points)
    points = feat.ear(points)
    _relax(points, layout, (np.hypot(*feat.ear_frame(points)) < 46) & (points[:, 0] > 40), rounds=2)
    points[layout.midline, 0] = 0.0
    return points


def _round_blocks(points: Floats, layout: Layout, on_face: Callable[[Floats], Floats]) -> None:
    """Round off the rectangular blocks: smooth the grid around them in the front view, on the bare surface.

    Parts are cut along rings and rows; loops around rounded blocks are smooth.
    """
    loose = np.zeros(layout.count, dtype=bool)
    for block, margin in ((EYE, 5), (MOUTH, 4)):
        inner = max(block.inner - margin, 0)
        patch = layout.grid[block.bottom - margin : block.top + margin + 1, inner : block.outer + margin + 1]
        loose[patch[patch >= 0]] = True
    loose[layout.eye[:5]] = True
    loose[layout.mouth[:3]] = True
    plan = points.copy()
    _relax(plan, layout, loose, rounds=20)
    points[loose] = on_face(plan[loose, :2])


def _crown(points: Floats, layout: Layout) -> None:
    """Fill the crown patch: in plan view the Coons patch of its rim, in height a smooth continuation of the rows around it."""
    c = layout.crown
    n, m = c.shape[0] - 1, c.shape[1] - 1
    s, t = np.meshgrid(np.linspace(0, 1, n + 1), np.linspace(0, 1, m + 1), indexing="ij")
    s, t = s[..., None], t[..., None]
    side, front, back = points[c[-1]], points[c[:, 0]], points[c[:, -1]]
    middle = front[0] + np.linspace(0, 1, m + 1)[:, None] * (back[0] - front[0])
    coons = (1 - s) * middle + s * side[None] + (1 - t) * front[:, None] + t * back[:, None]
    coons -= (1 - s) * (1 - t) * front[0] + (1 - s) * t * back[0] + s * (1 - t) * front[-1] + s * t * back[-1]
    around = points[layout.grid[-4:]].reshape(-1, 3)
    known = np.concatenate(
        [around, around[around[:, 0] > 1e-6] * [-1, 1, 1], [[0, CROWN_TOP, 0.5 * (front[0, 2] + back[0, 2])]]]
    )
    dome = RBFInterpolator(known[:, [0, 2]], known[:, 1], kernel="cubic")
    inner = coons[:-1, 1:-1].reshape(-1, 3)
    inner[:, 1] = dome(inner[:, [0, 2]])
    points[c[:-1, 1:-1].ravel()] = inner


def _averaging(layout: Layout) -> sp.csr_matrix:
    """Mean of the quad neighbours of every vertex [count, count]; beyond the midline lies the mirror image."""
    q = layout.quads
    rows, cols = (
        np.concatenate([q, np.roll(q, -1, axis=1)]).ravel(),
        np.concatenate([np.roll(q, -1, axis=1), q]).ravel(),
    )
    around = sp.csr_matrix((np.ones(len(rows)), (rows, cols)), shape=(layout.count, layout.count))
    around.data[:] = 1.0
    middle = np.zeros(layout.count)
    middle[layout.midline] = 1.0
    both = sp.diags(middle) @ around @ sp.diags(1 - middle)  # a neighbour off the midline counts twice there
    around = (around + both).tocsr()
    return sp.diags(1 / np.asarray(around.sum(axis=1)).ravel()) @ around


def _relax(points: Floats, layout: Layout, chosen: NDArray[np.bool_], rounds: int) -> None:
    """Move the chosen vertices half way to the mean of their neighbours, a few times."""
    mean = _averaging(layout)
    for _ in range(rounds):
        points[chosen] += 0.5 * (mean @ points - points)[chosen]
        points[layout.midline, 0] = 0.0


def _lids(points: Floats, layout: Layout) -> None:
    """Lay the rings at the eye on the lid shell, fading into the orbit."""
    rings = layout.eye
    w = EYE_STEPS[:, None]
    p = points[rings]
    thick = np.interp(EYE_STEPS, [0, 0.03, 0.09, 1], [0.25, 1.2, 1.7, 1.7])[:, None]
    shell = feat.lid_height(p[..., :2], feat.EYE_RADIUS + thick)
    orbit = p[..., 2]
    free = -feat.smooth_min(-orbit, -shell, 5.0)
    hold = 1 - feat.smoothstep(0.05, 0.28, w)
    free = orbit + (free - orbit) * (1 - feat.smoothstep(0.5, 1.0, w))
    z = free + hold * (shell - free)
    z += feat.upper_fold(p[..., :2]) * feat.smoothstep(0.03, 0.15, w) * (1 - feat.smoothstep(0.75, 1.0, w))
    points[rings[1:], 2] = z[1:]


def _lips(points: Floats, layout: Layout, plan: feat.LipPlan) -> None:
    """Bulge the lips over the face and turn their inner edge back."""
    first = len(MOUTH_STEPS)
    for k, (_, bulge, back) in enumerate(feat.LIP_SECTION):
        ring = layout.mouth[first + k]
        points[ring, 2] += bulge * plan.thickness - back


Group = tuple[list[list[int]], str, str | None]


@dataclass(frozen=True)
class SyntheticTemplate:
    """The mean neutral head and everything that all heads of the family share."""

    vertices: Floats  # [V, 3] mm
    faces: Ints  # [F, 3]
    landmarks68: Ints  # [68] iBUG order
    symmetry: Ints  # [V] mirror image of every vertex
    groups: dict[str, Group]  # name -> ([start, stop] ranges, role, part that it follows)
    layout: Layout  # vertex numbers of the left half's grid and rings
    twin: Ints  # [half] mirror image of every vertex of the left half


@lru_cache(maxsize=1)
def template() -> SyntheticTemplate:
    """The template; made once, its arrays are read-only."""
    layout = build_layout(ROWS, EYE, MOUTH)
    half = half_vertices(layout)
    triangles = split_quads(layout, half)
    twin = np.arange(layout.count)
    off = np.setdiff1d(np.arange(layout.count), layout.midline)
    twin[off] = layout.count + np.arange(len(off))
    skin = layout.count + len(off)
    ball, ball_faces = sphere(feat.EYE_CENTRE, feat.EYE_RADIUS)
    mirror = np.array([-1.0, 1.0, 1.0])
    vertices = np.concatenate([half, half[off] * mirror, ball, ball * mirror])
    left, right = skin + ball_faces, skin + len(ball) + ball_faces[:, ::-1]
    faces = np.concatenate([triangles, twin[triangles][:, ::-1], left, right])
    symmetry = np.arange(len(vertices))
    symmetry[off], symmetry[twin[off]] = twin[off], off
    balls = skin + np.arange(len(ball))
    symmetry[balls], symmetry[balls + len(ball)] = balls + len(ball), balls
    groups: dict[str, Group] = {
        "skin": ([[0, skin]], "surface", None),
        "eyeball_left": ([[skin, skin + len(ball)]], "inner", "eye_left"),
        "eyeball_right": ([[skin + len(ball), len(vertices)]], "inner", "eye_right"),
    }
    marks = landmarks(half, layout, twin, len(MOUTH_STEPS))
    for array in (vertices, faces, marks, symmetry, twin):
        array.setflags(write=False)
    return SyntheticTemplate(vertices, faces, marks, symmetry, groups, layout, twin)
