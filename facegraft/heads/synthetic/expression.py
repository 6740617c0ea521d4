"""Expressions: displacements of the template that are added to a subject's neutral head, and the closing of the lids.

Most expressions are sums of lobes. The jaw turns about the axis through its joints with a weight that is 1 on the lower
lip and the chin, 0 on the upper lip and the skull, and harmonic (smooth) in between, so that the mouth opens. Lids close
by linear interpolation between the subject's own margins.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import spsolve

from facegraft.arrays import Floats, Ints
from facegraft.heads.synthetic.features import smoothstep
from facegraft.heads.synthetic.fields import Shift, Stretch, Term, total
from facegraft.heads.synthetic.template import EYE_STEPS, MOUTH_STEPS, SyntheticTemplate, template

JAW_AXIS = np.array([0.0, -14.0, 8.0])  # a point between the joints


@dataclass(frozen=True)
class Recipe:
    """The ingredients of one expression: lobes, and angles and amounts for jaw, lids and mouth."""

    terms: tuple[Term, ...] = ()
    jaw_open: float = 0.0  # degrees about the lateral axis
    jaw_turn: float = 0.0  # degrees about the vertical axis; positive moves the chin to the subject's left
    lids: float = 0.0  # 1 closes the eyes, negative opens them
    sideways: float = 0.0  # mm that the mouth goes to the subject's left


_CORNER = (25.0, -69.5, 95.0)

RECIPES: dict[str, Recipe] = {
    "neutral": Recipe(),
    "smile": Recipe(
        (
            Shift(_CORNER, (11, 9, 18), (5.5, 6.0, -4.0)),
            Shift((40, -42, 86), (14, 13, 22), (1.0, 4.0, 3.5)),
            Shift((27, -55, 96), (5, 12, 16), (0.5, 0, -0.7)),
            Shift((32, -12, 91), (12, 4.5, 16), (0, 1.4, 0.8)),
            Shift((0, -63, 106), (13, 5, 14), (0, 1.0, -1.0)),
        ),
        lids=0.12,
    ),
    "mouth_stretch": Recipe((Shift(_CORNER, (9, 9, 16), (-1.5, 0, 0)),), jaw_open=15.0),
    "anger": Recipe(
        (
            Shift((13, 19, 101), (9, 8, 16), (-2.4, -5.0, 0.8)),
            Shift((32, 21, 98), (12, 8, 18), (-1.0, -3.0, 0.8)),
            Shift((0, 15, 102), (6, 7, 14), (0, -1.0, 2.0)),
            Shift((14, -42, 104), (7, 6, 12), (1.2, 1.6, 0)),
            Shift((0, -69, 104), (20, 8, 16), (0, 0, -2.0)),
            Shift(_CORNER, (9, 8, 16), (-1.5, -2.0, 0)),
            Shift((0, -88, 98), (16, 8, 18), (0, 1.5, 1.5)),
        ),
        lids=0.22,
    ),
    "jaw_left": Recipe(jaw_turn=7.0, jaw_open=2.5),
    "jaw_right": Recipe(jaw_turn=-7.0, jaw_open=2.5),
    "mouth_left": Recipe(sideways=9.0),
    "mouth_right": Recipe(sideways=-9.0),
    "dimpler": Recipe(
        (
            Shift(_CORNER, (8, 8, 16), (5.0, 0.8, -5.5)),
            Shift((35, -69, 88), (5, 6, 14), (0, 0, -2.0)),
            Shift((0, -69, 104), (16, 8, 14), (0, 0, -1.5)),
            Shift((42, -66, 78), (9, 12, 18), (2.0, 0, 1.5)),
        )
    ),
    "lip_puckerer": Recipe(
        (
            Stretch((0, -69.5, 100), (19, 13, 34), (-0.55, -0.06, 0)),
            Shift((0, -69, 103), (15, 11, 18), (0, 0, 6.5)),
            Shift((36, -62, 82), (12, 14, 20), (-2.0, 0, -2.5)),
        )
    ),
    "lip_funneler": Recipe(
        (
            Stretch((0, -70, 100), (20, 14, 34), (-0.34, 0, 0)),
            Shift((0, -69, 103), (17, 13, 18), (0, 0, 5.0)),
            Shift((0, -64, 106), (14, 5, 16), (0, 2.5, 1.0)),
        ),
        jaw_open=5.0,
    ),
    "sadness": Recipe(
        (
            Shift((12, 20, 101), (9, 9, 16), (-2.0, 5.5, 0)),
            Shift((44, 18, 90), (10, 8, 18), (0, -2.0, 0)),
            Shift(_CORNER, (10, 9, 18), (-0.5, -6.0, -0.5)),
            Shift((0, -77, 104), (14, 6, 16), (0, 1.6, 2.0)),
            Shift((0, -96, 100), (13, 9, 16), (0, 2.0, 0.8)),
        ),
        lids=0.2,
    ),
    "cheek_blowing": Recipe(
        (
            Shift((44, -62, 76), (17, 18, 28), (8.0, 0, 6.0)),
            Shift((16, -56, 101), (12, 7, 16), (1.0, 0, 2.6)),
            Shift((16, -84, 96), (12, 7, 16), (1.0, 0, 2.6)),
            Shift((0, -69, 104), (14, 8, 14), (0, 0, 1.5)),
        )
    ),
    "eye_closed": Recipe((Shift((28, 20, 99), (18, 9, 20), (0, -1.2, 0)),), lids=1.0),
    "brow_raiser": Recipe(
        (
            Shift((27, 22, 99), (19, 10, 24), (0, 8.0, -0.5)),
            Shift((0, 22, 101), (10, 10, 18), (0, 2.0, 0)),
            Shift((24, 47, 97), (22, 8, 20), (0, 1.0, 1.2)),
        ),
        lids=-0.08,
    ),
    "brow_lower": Recipe(
        (
            Shift((26, 21, 99), (17, 8, 20), (-1.2, -4.5, 0.8)),
            Shift((0, 17, 102), (8, 8, 14), (0, -3.0, 1.2)),
        ),
        lids=0.12,
    ),
}
EXPRESSIONS: tuple[str, ...] = tuple(RECIPES)


def _skin_laplacian(head: SyntheticTemplate) -> sp.csr_matrix:
    """Uniform graph Laplacian of the whole mesh (the eyeballs are components of their own)."""
    f, count = head.faces, len(head.vertices)
    edges = np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]])
    length = np.linalg.norm(head.vertices[edges[:, 0]] - head.vertices[edges[:, 1]], axis=1)
    weights = sp.coo_matrix((1 / length, (edges[:, 0], edges[:, 1])), shape=(count, count))
    weights = (weights + weights.T).tocsr()
    return sp.diags(np.asarray(weights.sum(axis=1)).ravel()) - weights


def jaw_weight(head: SyntheticTemplate) -> Floats:
    """Weight [V] of the jaw's rotation at every vertex: 1 on lower lip and chin, 0 on upper lip, nose, skull and neck."""
    x, y, z = head.vertices.T
    rings = head.layout.mouth
    corner = rings.shape[1] // 2
    follows = (y < -83) & (y > -113) & (z > 52)  # the body of the jaw
    stays = (y > -46) | (z < -15) | (y < -155)
    stays |= (y > -58) & (np.abs(x) < 16) & (z > 60)
    fixed = follows | stays
    weight = follows.astype(np.float64)
    # the lips part gradually from the corner, where both follow half way
    away = (np.arange(rings.shape[1]) - corner) / corner  # -1 lower midline, 0 corner, 1 upper midline
    oval = (np.abs(away) * (2 - np.abs(away))) ** 0.75
    lip = 0.5 - 0.5 * np.sign(away) * oval
    for ring in rings[len(MOUTH_STEPS) :]:
        for vertices in (ring, head.symmetry[ring]):
            weight[vertices], fixed[vertices] = lip, True
    laplacian = _skin_laplacian(head)
    free = ~fixed
    weight[free] = spsolve(laplacian[free][:, free].tocsc(), -laplacian[free][:, fixed] @ weight[fixed])
    weight = 0.5 * (weight + weight[head.symmetry])
    return np.where(fixed, weight, smoothstep(0.0, 1.0, weight))


def _turned(points: Floats, degrees: float, axis: int) -> Floats:
    """Displacement of points turned about an axis (0 lateral, 1 vertical) through JAW_AXIS."""
    angle = np.radians(degrees)
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) if axis == 0 else np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return (points - JAW_AXIS) @ (turn - np.eye(3)).T


@lru_cache(maxsize=1)
def expression_fields() -> dict[str, Floats]:
    """Displacement [V, 3] in mm of every expression at strength 1, without the closing of the lids; read-only."""
    head = template()
    points = head.vertices
    jaw = jaw_weight(head)[:, None]
    mouth = Shift((0, -69, 98), (22, 15, 30), (1.0, 0, 0))(points)
    still = np.concatenate(
        [np.arange(*r) for ranges, role, _ in head.groups.values() if role == "inner" for r in ranges]
    )
    fields = {}
    for name, recipe in RECIPES.items():
        field = total(points, recipe.terms)
        if recipe.jaw_open:
            field += jaw * (_turned(points, recipe.jaw_open, 0) + np.array([0, -0.15, 0.5]) * recipe.jaw_open)
        if recipe.jaw_turn:
            field += jaw * _turned(points, recipe.jaw_turn, 1)
        if recipe.sideways:
            bend = np.array([0, 0, -0.25]) * (np.sign(recipe.sideways) * points[:, :1] / 25) * np.abs(mouth[:, :1])
            field += recipe.sideways * mouth + np.abs(recipe.sideways) * bend
        field[still] = 0.0
        field.setflags(write=False)
        fields[name] = field
    return fields


@dataclass(frozen=True)
class Lids:
    """The rings around one eye and how far each follows the lid margin."""

    rings: Ints  # [rings, P]
    partner: Ints  # [P] place on the opposite lid
    travel: Floats  # [P] share of the way to the partner when the eye closes
    follow: Floats  # [rings, 1]


@lru_cache(maxsize=1)
def lids() -> tuple[Lids, Lids]:
    """The left and the right eye's lids."""
    head = template()
    rings = head.layout.eye
    count = rings.shape[1]
    place = np.arange(count)
    partner = (-place) % count
    upper = (place > 0) & (place < count // 2)
    lower = place > count // 2
    travel = np.where(upper, 0.86, np.where(lower, 0.12, 0.0))
    follow = 1 - smoothstep(0.0, 0.62, EYE_STEPS)[:, None]
    return Lids(rings, partner, travel, follow), Lids(head.symmetry[rings], partner, travel, follow)


def close_lids(vertices: Floats, amount: float) -> Floats:
    """The head with its lid margins moved toward each other (1 closed, negative wider open); [V, 3] mm."""
    result = vertices.copy()
    for eye in lids():
        margin = vertices[eye.rings[-1]]
        way = eye.travel[:, None] * (margin[eye.partner] - margin)
        result[eye.rings] += amount * eye.follow[:, :, None] * way
    return result
